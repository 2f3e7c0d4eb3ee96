"""Rules for several values at once."""

from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.config import (
    load_policy,
)
from ecluse.policy import Traffic
from ecluse.policy.network_index import NetworkIndex
from tests.unit.config.samples import SECOND, TO, L
from tests.unit.config.strategies import PREFIXES


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


def test_a_wildcard_needs_the_gate(files):
    files.dns_gate("  mode: never\n")
    files.labs(TO, 'to: "*.lab.example"')
    assert files.faults() == [
        (
            "allowlist.d/10-labs.yaml:9:13: '*.lab.example' and 'dns_gate: {mode: never}',"
            " expected mode: cut, or host names"
        )
    ]


def test_an_inside_server_lies_inside_and_a_domain_has_one_answer(files):
    one = "{names: [hospital.example], servers: [192.0.2.53]}"
    other = "{names: [hospital.example], servers: [10.20.0.53]}"
    files.dns_gate(f"  internal:\n    - {one}\n    - {other}\n")
    assert [f.split(", expected")[0] for f in files.faults()] == [
        (
            "site.yaml:19:45: '192.0.2.53' lies in no zone's subnets: names of the inside"
            " would be asked outside"
        ),
        "site.yaml:20:16: the domain 'hospital.example' a second time",
    ]


def test_a_service_twice_names_the_first_place(files):
    files.write("allowlist.d/20-more.yaml", (files.path / "allowlist.d/10-labs.yaml").read_text())
    assert files.faults() == [
        (
            "allowlist.d/20-more.yaml:2:11: the service 'laboratory' a second time, first at"
            f" {files.path}/{L}2:11, expected each service once"
        ).replace(f"{files.path}/", "")
    ]


@given(st.lists(PREFIXES.map(ip_network), max_size=8), PREFIXES.map(ip_network))
@example(
    [ip_network(t) for t in ("198.18.0.0/15", "198.18.0.0/24", "0.0.0.0/0", "198.18.0.0/24")],
    ip_network("198.18.0.7"),
)
def test_networks_around_one_are_found_widest_first(networks, inner):
    index = NetworkIndex()
    for number, network in enumerate(networks):
        index.add(network, number)
    around = [
        (n, i) for i, n in enumerate(networks) if n.version == inner.version and inner.subnet_of(n)
    ]
    assert list(index.containing(inner)) == sorted(around, key=lambda found: found[0].prefixlen)


SITE_CASES = {
    # what is written -> what is said of it, with its place
    "zone twice": (
        "name: offices",
        "name: care",
        "8:11: the name 'care' a second time, first at 4:11, expected another name",
    ),
    "pattern over another zone's": (
        "interfaces: [lan1]",
        "interfaces: [vlan17]",
        (
            "9:18: 'vlan17' is also covered by 'vlan1*' of zone 'care', expected each"
            " interface in one pattern only"
        ),
    ),
    "wider pattern than another zone's": (
        "interfaces: [lan1]",
        'interfaces: ["v*"]',
        (
            "6:24: 'vlan1*' is also covered by 'v*' of zone 'offices', expected each"
            " interface in one pattern only"
        ),
    ),
    "overlap": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.10.128.0/17]",
        (
            "10:15: the subnet '10.10.128.0/17' overlaps '10.10.0.0/16' of zone 'care',"
            " expected subnets that are disjoint"
        ),
    ),
    "overlap from above": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.0.0.0/8]",
        (
            "10:15: the subnet '10.0.0.0/8' overlaps '10.10.0.0/16' of zone 'care', expected"
            " subnets that are disjoint"
        ),
    ),
    "level without vital": (
        "keeps: [vital, important]",
        "keeps: [important]",
        (
            "16:56: a level that does not keep 'vital' would be more closed than 'cut',"
            " expected vital and more (for less there is 'isolate')"
        ),
    ),
    "level like cut": (
        "keeps: [vital, important]",
        "keeps: [vital]",
        "16:56: a level that keeps 'vital' alone is the same as 'cut', expected vital and more",
    ),
    "level without important": (
        "keeps: [vital, important]",
        "keeps: [vital, deferrable]",
        (
            "16:56: 'deferrable' is kept and 'important' is not, expected [vital, important]"
            " or [vital, important, deferrable]"
        ),
    ),
    "same level twice": (
        "keeps: [vital, important]}\n",
        "keeps: [vital, important]}\n  - {name: other, keeps: [important, vital]}\n",
        "17:26: the level 'reduced' keeps the same, expected levels that differ",
    ),
}


@pytest.mark.parametrize("case", SITE_CASES)
def test_faults_of_the_site(files, case):
    files.site_fault(*SITE_CASES[case])


LABS_CASES = {
    # what is written -> what is said of it, with its place
    "unknown zone": (
        "zones: [care]",
        "zones: [car]",
        "7:13: there is no zone 'car': did you mean 'care'?, expected care, offices or gateway",
    ),
    "host outside": (
        "zones: [care]",
        "hosts: [192.0.2.7]",
        "7:13: '192.0.2.7' lies in no zone's subnets, expected a host of the inside",
    ),
    "host prefix wider than its zone": (
        "zones: [care]",
        "hosts: [10.0.0.0/8]",
        "7:13: '10.0.0.0/8' lies in no zone's subnets, expected a host of the inside",
    ),
    "wildcard that comes in": (
        TO,
        'from: "*.lab.example"',
        (
            "9:15: the wildcard '*.lab.example' in 'from', expected prefixes: who connects in"
            " has no name"
        ),
    ),
    "records without a name": (
        TO,
        "to: 203.0.113.10\n        records: [MX]",
        (
            "10:18: 'records' without a host name or a wildcard in 'to', expected none, or"
            " the names that have them"
        ),
    ),
    "ah over IPv6": (
        "203.0.113.10]\n        ports: [tcp/443]",
        '"2001:db8::1"]\n        ports: [esp, ah]',
        (
            "9:35: 'ah' with '2001:db8::1': over IPv6 it can't be told from what it carries,"
            " and would be refused, expected IPv4 addresses for ah, or esp"
        ),
    ),
}


@pytest.mark.parametrize("case", LABS_CASES)
def test_faults_of_the_allowlist(files, case):
    files.labs_fault(*LABS_CASES[case])


@pytest.mark.parametrize(
    ("inside", "way"),
    [("zones: [care]", "to"), ("zones: [gateway]", "from"), ("zones: [care, gateway]", "to")],
)
def test_a_multicast_group_is_the_gateways_alone(files, inside, way):
    def write(inside, way):
        groups = '224.0.0.5, "ff02::5"'
        text = SECOND.format(inside=inside, way=way, target=groups, ports="proto/89")
        files.write("allowlist.d/20-more.yaml", text)

    write(inside, way)
    at = "allowlist.d/20-more.yaml:9"
    assert [fault.split(", expected")[0] for fault in files.faults()] == [
        f"{at}:{14 + len(way) - 2}: the multicast group '224.0.0.5'",
        f"{at}:{25 + len(way) - 2}: the multicast group 'ff02::5'",
    ]
    write("zones: [gateway]", "to")
    assert load_policy(files.path).services[1].destinations[0].traffic == (Traffic(89),)
