"""What right files mean: the policy's values, the order of levels and files, and the example that
is shipped.
"""

import dataclasses
from datetime import date
from ipaddress import IPv4Address, IPv6Network, ip_network
from pathlib import Path

import pytest

from ecluse.config import ConfigDirectory, load_policy, read_directory, warnings_of
from ecluse.errors import ConfigError
from ecluse.policy import (
    CUT,
    ISOLATE,
    OPEN,
    Criticality,
    Destination,
    Direction,
    Level,
    Lifeline,
    Preset,
    Service,
    Site,
    Traffic,
    Zone,
)

EXAMPLE = Path(__file__).parents[3] / "config"
DAY = date(2026, 11, 1)


def nets(*texts):
    return tuple(map(ip_network, texts))


def test_the_whole_sample_as_values(files):
    policy = load_policy(files.path)
    assert policy.site == Site(
        "chu-example",
        "CHU d'Example",
        (
            Zone("care", "Care", ("lan0", "vlan1*"), nets("10.10.0.0/16", "2001:db8:10::/48")),
            Zone("offices", "offices", ("lan1",), nets("10.20.0.0/16")),
        ),
        Lifeline(
            nets("10.90.0.0/24"), (Traffic(6, 22, 22),), (Preset.DHCP, Preset.ND, Preset.VRRP)
        ),
        (IPv4Address("192.0.2.53"),),
        (
            OPEN,
            Level(
                "reduced",
                "Vital and important",
                frozenset({Criticality.VITAL, Criticality.IMPORTANT}),
            ),
            CUT,
            ISOLATE,
        ),
    )
    assert policy.services == (
        Service(
            "laboratory",
            "Outside laboratory",
            "Biology",
            "+33 5 55 55 01 00",
            Criticality.VITAL,
            ("care",),
            (),
            (
                Destination(
                    Direction.OUTBOUND,
                    ("results.lab.example",),
                    nets("203.0.113.10/32"),
                    (Traffic(6, 443, 443),),
                ),
            ),
            date(2027, 1, 31),
        ),
    )


@pytest.mark.parametrize(
    ("written", "hosts", "networks"),
    [
        ("Results.LAB.example.", ("results.lab.example",), ()),
        ("bücher.example", ("xn--bcher-kva.example",), ()),
        ("XN--BCHER-KVA.example", ("xn--bcher-kva.example",), ()),
        ("203.0.113.10", (), ("203.0.113.10/32",)),
        ("2001:DB8::1", (), ("2001:db8::1/128",)),
        ("2001:db8:20::/48", (), ("2001:db8:20::/48",)),
        ("[b.example, 203.0.113.0/24, a.example]", ("b.example", "a.example"), ("203.0.113.0/24",)),
        ("any\n        unbounded: true", (), ("0.0.0.0/0", "::/0")),
        ('"::/0"\n        unbounded: true', (), ("::/0",)),
    ],
)
def test_destinations(files, written, hosts, networks):
    files.labs("to: [results.lab.example, 203.0.113.10]", f"to: {written}")
    (destination,) = load_policy(files.path).services[0].destinations
    assert (destination.hosts, destination.networks) == (hosts, nets(*networks))
    assert destination.direction is Direction.OUTBOUND


def test_private_is_said_of_a_destination_and_known_by_its_names(files):
    assert load_policy(files.path).private_names() == frozenset()
    files.labs(
        "to: [results.lab.example, 203.0.113.10]",
        "to: [results.lab.example, b.example]\n        private: true",
    )
    policy = load_policy(files.path)
    assert policy.services[0].destinations[0].private
    assert policy.private_names() == {"results.lab.example", "b.example"}


def test_a_source_outside(files):
    files.labs("to: [results.lab.example, 203.0.113.10]", "from: 203.0.113.64/28")
    (destination,) = load_policy(files.path).services[0].destinations
    assert destination.direction is Direction.INBOUND
    assert destination.networks == nets("203.0.113.64/28")


def test_traffic(files):
    files.labs("ports: [tcp/443]", "ports: [udp/500-510, esp, ah, gre, icmp, sctp/1-65535]")
    assert load_policy(files.path).services[0].destinations[0].traffic == (
        Traffic(17, 500, 510),
        Traffic(50),
        Traffic(51),
        Traffic(47),
        Traffic(1),
        Traffic(132, 1, 65535),
    )


def test_zone_gateway_and_hosts(files):
    files.labs("zones: [care]", 'zones: [gateway]\n    hosts: [10.20.4.7, "2001:db8:10:4::/64"]')
    service = load_policy(files.path).services[0]
    assert service.zones == ("gateway",)
    assert service.hosts == (*nets("10.20.4.7"), IPv6Network("2001:db8:10:4::/64"))


def test_a_note_over_several_lines_becomes_one(files):
    files.labs(
        "    review: 2027-01-31", "    note: |\n      first\n      second\n    review: '2027-01-31'"
    )
    service = load_policy(files.path).services[0]
    assert (service.note, service.review) == ("first second", date(2027, 1, 31))


def test_levels_stand_from_the_least_closed_on(files):
    files.site("levels:", "levels:\n  - {name: calm, keeps: [deferrable, important, vital]}")
    text = (files.path / "site.yaml").read_text()
    lines = text.splitlines()
    files.write("site.yaml", "\n".join([*lines[:-2], lines[-1], lines[-2], ""]))
    assert [level.name for level in load_policy(files.path).site.levels] == [
        "open",
        "calm",
        "reduced",
        "cut",
        "isolate",
    ]


def test_two_zones_may_share_an_interface(files):
    files.site("interfaces: [lan1]", 'interfaces: [lan0, "vlan1*"]')
    assert load_policy(files.path).site.zones[1].interfaces == ("lan0", "vlan1*")


def test_files_merge_in_bytewise_name_order(files):
    text = (files.path / "allowlist.d/10-labs.yaml").read_text()
    for name in ("9", "B", "a", "\u00e9"):
        files.write(f"allowlist.d/{name}.yaml", text.replace("laboratory", f"s{ord(name)}", 1))
    assert [s.name for s in load_policy(files.path).services] == [
        "laboratory",
        "s57",
        "s66",
        "s97",
        "s233",
    ]


def test_management_from_everywhere_when_that_is_meant(files):
    files.site("networks: [10.90.0.0/24]", 'unbounded: true, networks: [0.0.0.0/0, "::/0"]')
    assert load_policy(files.path).site.lifeline.management_networks == nets("0.0.0.0/0", "::/0")


def test_everything_optional_may_be_left_out(files):
    files.write(
        "site.yaml", "site: s\nzones: [{name: z, interfaces: [lan0], subnets: [10.0.0.0/8]}]\n"
    )
    files.write(
        "allowlist.d/10-labs.yaml",
        "services: [{name: x, title: X, criticality: vital, zones: [z], destinations: [{to: 192.0.2.1, ports: [icmp]}]}]\n",
    )
    policy = load_policy(files.path)
    assert policy.site.lifeline == Lifeline((), (), ())
    assert policy.services[0].review is None


def test_policies_are_values(files):
    one, other = load_policy(files.path), load_policy(files.path)
    assert one == other
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.site = other.site


def test_the_example_loads_without_a_word():
    loaded = read_directory(EXAMPLE)
    assert warnings_of(loaded, DAY) == ()
    policy = loaded.policy
    assert policy.zone_names() == ("care", "administration", "guests", "gateway")
    kept = {s.name for s in policy.services if s.criticality is Criticality.VITAL}
    assert {
        "laboratory",
        "treasury",
        "blood-bank",
        "emergency-dispatch",
        "telephony",
        "health-data-host",
    } <= kept
    closed = {s.name for s in policy.services if s.criticality is Criticality.DEFERRABLE}
    assert closed == {"remote-maintenance", "offsite-backup"}
    host = next(s for s in policy.services if s.name == "health-data-host")
    assert host.destinations[0].traffic == (
        Traffic(17, 500, 500),
        Traffic(17, 4500, 4500),
        Traffic(50),
    )
    assert any(d.direction is Direction.INBOUND for s in policy.services for d in s.destinations)


def test_the_example_names_documentation_addresses_only():
    outside = [*nets("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]
    for service in load_policy(EXAMPLE).services:
        for destination in service.destinations:
            assert all(host.endswith(".example") for host in destination.hosts)
            for network in destination.networks:
                assert any(
                    n.version == network.version and network.subnet_of(n) for n in outside
                ), network


def test_the_directory_as_the_controllers_source(files):
    files.dns()
    source = ConfigDirectory(files.path, today=lambda: date(2027, 2, 1))
    assert source.warnings() == ()
    assert source.load() == load_policy(files.path)
    assert {w.line for w in source.warnings()} == {11}
    files.write("allowlist.d/20-bad.yaml", "[")
    with pytest.raises(ConfigError):
        source.load()
    assert {w.line for w in source.warnings()} == {11}


def test_a_thousand_services(files):
    files.dns()
    one = (files.path / "allowlist.d/10-labs.yaml").read_text().partition("\n")[2]
    many = "".join(
        one.replace("laboratory", f"s{n}", 1).replace(
            "203.0.113.10", f"198.51.{n // 250}.{n % 250}"
        )
        for n in range(1000)
    )
    files.write("allowlist.d/20-many.yaml", "services:\n" + many)
    loaded = read_directory(files.path)
    assert len(loaded.policy.services) == 1002
    assert (
        len(warnings_of(loaded, DAY)) == 51
    )  # each shares the laboratory's host name; more are counted


def test_the_package_does_without_the_daemons_libraries():
    import subprocess
    import sys

    code = (
        "import sys; import ecluse.config; "
        "print(sorted(m for m in ('pydantic_settings', 'dns', 'aiohttp', 'structlog') if m in sys.modules))"
    )
    path = str(EXAMPLE.parent / "src")
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": path},
    )
    assert answer.stdout.strip() == "[]"
