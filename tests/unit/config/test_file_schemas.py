"""Each form's values, and its rules about keys that stand together."""

from datetime import date
from ipaddress import IPv6Network

import pytest

from ecluse.config import load_policy
from ecluse.policy import (
    Direction,
    DnsLimits,
    DnsMode,
    Traffic,
)
from tests.unit.config.samples import TO, UNBOUNDED, UNICAST, nets


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


def test_management_from_everywhere_when_that_is_meant(files):
    files.site("networks: [10.90.0.0/24]", 'unbounded: true, networks: [0.0.0.0/0, "::/0"]')
    assert load_policy(files.path).site.lifeline.management_networks == nets("0.0.0.0/0", "::/0")


def test_said_whole(files):
    files.dns_gate(
        "  mode: always\n  port: 5310\n  limits: {client_queries: 20, label: 30}\n"
        "  internal:\n    - {names: [hospital.example, 10.in-addr.arpa, intranet],"
        " servers: [10.20.0.53]}\n",
    )
    gate = load_policy(files.path).site.dns
    assert (gate.mode, gate.port) == (DnsMode.ALWAYS, 5310)
    assert gate.limits == DnsLimits(client_queries=20, label=30)
    assert gate.internal[0].names == ("hospital.example", "10.in-addr.arpa", "intranet")


SITE_CASES = {
    # what is written -> what is said of it, with its place
    "zone gateway": (
        "name: offices",
        "name: gateway",
        "8:11: the name 'gateway' is Écluse's own, expected another name",
    ),
    "built-in level": (
        "name: reduced",
        "name: cut",
        "16:12: the name 'cut' is Écluse's own, expected another name",
    ),
    "title too long": (
        "title: CHU d'Example",
        f"title: {'x' * 121}",
        "2:8: a text of 121 characters, expected at most 120",
    ),
    "management from everywhere": (
        "networks: [10.90.0.0/24]",
        "networks: [0.0.0.0/0]",
        (
            "12:27: '0.0.0.0/0' is the whole internet, or much of it, expected the partner's"
            f" prefixes, or {UNBOUNDED}"
        ),
    ),
}


@pytest.mark.parametrize("case", SITE_CASES)
def test_faults_of_the_site(files, case):
    files.site_fault(*SITE_CASES[case])


LABS_CASES = {
    # what is written -> what is said of it, with its place
    "for nobody": (
        "    zones: [care]\n",
        "",
        "2:5: neither 'zones' nor 'hosts', expected who inside may use the service",
    ),
    "any with unbounded false": (
        TO,
        "to: any\n        unbounded: false",
        f"9:13: 'any' is the whole internet, expected the partner's addresses, or {UNBOUNDED}",
    ),
    "both ways": (
        TO,
        "to: 203.0.113.10\n        from: 203.0.113.10",
        "10:9: 'to' and 'from' in one destination, expected two destinations",
    ),
    "neither way": (
        f"- {TO}\n        ",
        "- ",
        "9:9: neither 'to' nor 'from', expected one of the two",
    ),
    "from everywhere": (
        TO,
        "from: 0.0.0.0/0",
        (
            "9:15: '0.0.0.0/0' is the whole internet, or much of it, expected the partner's"
            f" prefixes, or {UNBOUNDED}"
        ),
    ),
    "multicast beside unbounded": (
        TO,
        "to: 224.0.0.0/4\n        unbounded: true",
        f"9:13: '224.0.0.0/4' is or contains multicast, expected {UNICAST}",
    ),
}


@pytest.mark.parametrize("case", LABS_CASES)
def test_faults_of_the_allowlist(files, case):
    files.labs_fault(*LABS_CASES[case])
