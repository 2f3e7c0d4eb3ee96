"""The whole directory: what right files mean, and every fault of every file at once."""

import dataclasses
import gc
import inspect
from datetime import date
from ipaddress import IPv4Address

import pytest

from ecluse.config import (
    ConfigDirectory,
    load,
    load_policy,
    read_directory,
    warnings_of,
)
from ecluse.config.cross_checks import PlacedService
from ecluse.config.file_schemas import SITE
from ecluse.config.yaml_tree import Document
from ecluse.errors import ConfigError
from ecluse.faults import Fault
from ecluse.gc_pause import without_gc
from ecluse.policy import (
    CUT,
    ISOLATE,
    OPEN,
    Criticality,
    Destination,
    Direction,
    DnsMode,
    Level,
    Lifeline,
    Preset,
    Service,
    Site,
    Traffic,
    Zone,
)
from tests.unit.config.samples import DAY, EXAMPLE, HERE, PORTS, TO, L, nets


def test_the_sample_itself_is_right(files):
    assert [s.name for s in load_policy(files.path).services] == ["laboratory"]


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


def test_everything_optional_may_be_left_out(files):
    files.write(
        "site.yaml", "site: s\nzones: [{name: z, interfaces: [lan0], subnets: [10.0.0.0/8]}]\n"
    )
    files.write(
        "allowlist.d/10-labs.yaml",
        (
            "services: [{name: x, title: X, criticality: vital, zones: [z], destinations:"
            " [{to: 192.0.2.1, ports: [icmp]}]}]\n"
        ),
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
        "print(sorted(m for m in ('pydantic_settings', 'dns', 'aiohttp', 'structlog') if"
        " m in sys.modules))"
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


def test_off_unless_a_service_needs_it(files):
    assert load_policy(files.path).site.dns.mode is DnsMode.NEVER
    files.labs(TO, 'to: ["*.Lab.Example", results.lab.example]')
    policy = load_policy(files.path)
    assert policy.site.dns.mode is DnsMode.CUT
    assert policy.services[0].destinations[0].wildcards == ("lab.example",)
    assert policy.services[0].destinations[0].hosts == ("results.lab.example",)


def test_all_faults_of_all_files_at_once(files):
    files.site("site: chu-example", "site: CHU")
    files.labs(PORTS, "ports: [tcp/0, udp/9-3]")
    files.write("allowlist.d/20-more.yaml", "services:\n  - name: x\n    zone: [care]\n")
    files.write("allowlist.d/30-broken.yaml", "services: [\n")
    files.write("allowlist.d/40-latin1.yaml", "# ok\nservices: # \xe9\n".encode("latin-1"))
    found = files.faults()
    assert [line.split(": ")[0] for line in found] == [
        f"{L}10:17",
        f"{L}10:24",
        *["allowlist.d/20-more.yaml:2:5"] * 4,
        "allowlist.d/20-more.yaml:3:5",
        "allowlist.d/30-broken.yaml:2:1",
        "allowlist.d/40-latin1.yaml:2:13",
        "site.yaml:1:7",
    ]
    missing = {line.split("'")[1] for line in found if "is missing" in line}
    assert missing == {"title", "criticality", "destinations"}


def test_zones_are_still_known_when_the_rest_of_the_site_is_wrong(files):
    files.site("site: chu-example", "site: CHU")
    files.labs("zones: [care]", "zones: [car]")
    assert len(files.faults()) == 2


def test_unknown_zones_are_not_guessed_while_a_zone_is_wrong(files):
    files.site("name: offices", "name: Offices")
    files.labs("zones: [care]", "zones: [offices]")
    assert len(files.faults()) == 1


def test_an_allowlist_without_any_service(files):
    files.write("allowlist.d/10-labs.yaml", "services: []\n")
    assert files.faults() == [
        (
            "allowlist.d: the allowlist is empty: 'cut' would keep nothing, expected at least"
            " one service"
        )
    ]
    (files.path / "allowlist.d/10-labs.yaml").unlink()
    assert files.faults() == [
        (
            "allowlist.d: the allowlist is empty: 'cut' would keep nothing, expected at least"
            " one service"
        )
    ]


def test_thousands_of_faults_are_counted_and_a_thousand_listed(files):
    files.write("allowlist.d/20-more.yaml", "services:\n" + "  - 1\n" * 5000)
    with pytest.raises(ConfigError) as caught:
        read_directory(files.path)
    assert len(caught.value.faults) == 1001
    assert caught.value.faults[0] == Fault(
        str(files.path), 0, 0, "more than 1000 faults: the rest is not listed here, nor looked for"
    )


def test_a_file_of_comments_alone_keeps_nothing_and_says_so(files):
    files.write("allowlist.d/20-later.yaml", "# nothing kept here for now\n\n  # really\n")
    loaded = read_directory(files.path)
    assert len(loaded.policy.services) == 1
    assert "allowlist.d/20-later.yaml:1:1: nothing but comments: this file keeps no service" in {
        str(w).replace(f"{files.path}/", "") for w in warnings_of(loaded, DAY)
    }
    files.write("site.yaml", "# nothing\n")
    assert files.faults()[0].startswith("site.yaml:1:1: the file has nothing but comments")


def test_an_allowlist_of_comments_alone_is_empty(files):
    files.write(HERE, "# nothing\n")
    assert files.faults() == [
        (
            "allowlist.d: the allowlist is empty: 'cut' would keep nothing, expected at least"
            " one service"
        )
    ]


def test_a_loaded_directory_keeps_no_files_content(files):
    def alive():
        gc.collect()
        return [o for o in gc.get_objects() if isinstance(o, Document | PlacedService)]

    before = len(alive())
    source = ConfigDirectory(files.path, today=lambda: DAY)
    policy = source.load()
    assert policy
    assert len(alive()) > before
    source.warnings()
    assert len(alive()) == before


def test_a_review_falls_due_while_nothing_is_loaded_again(files):
    files.dns()
    days = iter([date(2027, 1, 31), date(2027, 2, 1), date(2027, 2, 1), date(2027, 1, 31)])
    source = ConfigDirectory(files.path, today=lambda: next(days))
    source.load()
    assert source.warnings() == ()
    assert [fault.line for fault in source.warnings()] == [11]
    assert [fault.line for fault in source.warnings()] == [11]
    assert source.warnings() == ()


def test_the_collector_is_on_again_whatever_happened():
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), without_gc():
        assert not gc.isenabled()
        with without_gc():
            pass
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_every_key_of_site_yaml_is_handed_on():
    """The form takes a key that `_site` forgets, and its value would be lost without a word."""
    source = inspect.getsource(load._site)
    assert [key for key in SITE.keys if f'"{key}"' not in source] == []
