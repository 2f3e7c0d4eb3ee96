"""Addresses and prefixes, as ipaddress judges them."""

import re
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.config import (
    address_parsers,
)
from ecluse.policy import network_interval, parse_network
from ecluse.policy.networks import network_text
from tests.unit.config.samples import ADDRESS, TO, UNBOUNDED, UNICAST
from tests.unit.config.strategies import PREFIXES, WRITTEN, outcome


@given(WRITTEN)
@example("1:2:3:4:5:6:7::")
@example("1::2:3:4:5:6:7:8")
@example("203.0.113.010")
@example("203.0.113.8/29")
def test_a_network_is_read_as_ipaddress_reads_it(text):
    quick = parse_network(text)
    try:
        slow = ip_network(text)
    except ValueError:
        assert quick is None
        return
    if quick is None:
        # only other ways to write a length: /032 and /255.255.255.0
        assert not re.fullmatch(r"0|[1-9][0-9]*", text.partition("/")[2] or "0") or "%" in text
    else:
        assert (quick, type(quick), str(quick), hash(quick)) == (
            slow,
            type(slow),
            str(slow),
            hash(slow),
        )
        assert network_interval(quick) == (int(slow.network_address), int(slow.broadcast_address))


@given(st.ip_addresses(v=4), st.integers(0, 32))
@example(ip_address("0.0.0.0"), 0)
@example(ip_address("255.255.255.255"), 32)
def test_a_network_is_written_as_ipaddress_writes_it(address, length):
    network = ip_network((address, length), strict=False)
    assert network_text(network) == str(network)


def test_reading_a_network_leaves_no_function_on_it():
    for text in ("203.0.113.9", "203.0.113.8/31", "2001:db8::1", "2001:db8::/127"):
        assert "hosts" not in vars(parse_network(text))


@given(PREFIXES, st.booleans())
@example("0.0.0.0/0", False)
@example("126.0.0.0/7", True)
@example("240.0.0.0/5", True)
@example("::/127", True)
@example("::/1", True)
def test_what_is_no_host_is_what_ipaddress_finds_inside(text, unbounded):
    network = ip_network(text)
    of_version = [
        (special, what)
        for special, what in ((ip_network(s), w) for s, w in address_parsers._NO_HOSTS)
        if special.version == network.version
    ]
    within = next((what for special, what in of_version if network.subnet_of(special)), None)
    around = next((what for special, what in of_version if special.subnet_of(network)), None)
    said = outcome(address_parsers.unicast, network, unbounded=unbounded)
    if within or (around and not address_parsers.is_wide(network)):
        shown = address_parsers.written(network)
        assert said == (
            f"'{shown}' is or contains {within or around}",
            "addresses of single hosts (unicast)",
        )
    elif address_parsers.is_wide(network) and not unbounded:
        assert "the whole internet" in said[0]
    else:
        assert said is network


SITE_CASES = {
    # what is written -> what is said of it, with its place
    "host bits": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.20.4.7/16]",
        (
            "10:15: '10.20.4.7/16' has bits set after the first 16, expected 10.20.0.0/16"
            " (the network) or 10.20.4.7 (the address alone)"
        ),
    ),
    "netmask": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.20.0.0/255.255.0.0]",
        "10:15: the prefix length in '10.20.0.0/255.255.0.0', expected 10.20.0.0/16",
    ),
    "prefix too long": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.20.0.0/33]",
        "10:15: the prefix length in '10.20.0.0/33', expected 0 to 32",
    ),
    "no address": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.20/16]",
        f"10:15: '10.20/16' is no address or prefix, expected {ADDRESS}",
    ),
    "octet with a zero before it": (
        "subnets: [10.20.0.0/16]",
        "subnets: [10.020.0.0/16]",
        f"10:15: '10.020.0.0/16' is no address or prefix, expected {ADDRESS}",
    ),
    "mapped address": (
        "subnets: [10.20.0.0/16]",
        'subnets: ["::ffff:10.20.0.0/112"]',
        "10:15: '::ffff:10.20.0.0/112' is IPv4 written as IPv6, expected 10.20.0.0/16",
    ),
    "everything is no zone": (
        "subnets: [10.20.0.0/16]",
        "subnets: [0.0.0.0/0]",
        "10:15: '0.0.0.0/0' is far more than one zone, expected the subnets of this zone",
    ),
    "multicast subnet": (
        "subnets: [10.20.0.0/16]",
        "subnets: [239.1.0.0/16]",
        f"10:15: '239.1.0.0/16' is or contains multicast, expected {UNICAST}",
    ),
    "resolver by name": (
        "resolvers: [192.0.2.53]",
        "resolvers: [dns.example]",
        (
            "14:13: 'dns.example' is no address, expected the address of a DNS server, such"
            " as 192.0.2.53"
        ),
    ),
}


@pytest.mark.parametrize("case", SITE_CASES)
def test_faults_of_the_site(files, case):
    files.site_fault(*SITE_CASES[case])


LABS_CASES = {
    # what is written -> what is said of it, with its place
    "everything": (
        TO,
        "to: [0.0.0.0/0]",
        (
            "9:14: '0.0.0.0/0' is the whole internet, or much of it, expected the partner's"
            f" prefixes, or {UNBOUNDED}"
        ),
    ),
    "everything IPv6": (
        TO,
        'to: "::/0"',
        (
            "9:13: '::/0' is the whole internet, or much of it, expected the partner's"
            f" prefixes, or {UNBOUNDED}"
        ),
    ),
    "half of everything": (
        TO,
        "to: [128.0.0.0/1]",
        (
            "9:14: '128.0.0.0/1' is the whole internet, or much of it, expected the"
            f" partner's prefixes, or {UNBOUNDED}"
        ),
    ),
    "loopback": (
        TO,
        "to: 127.0.0.1",
        f"9:13: '127.0.0.1' is or contains loopback, expected {UNICAST}",
    ),
    "unspecified": (
        TO,
        'to: "::"',
        f"9:13: '::' is or contains the unspecified address, expected {UNICAST}",
    ),
    "multicast beyond the link": (
        TO,
        "to: ff05::1",
        f"9:13: 'ff05::1' is or contains multicast, expected {UNICAST}",
    ),
    "mapped": (
        TO,
        'to: "::ffff:203.0.113.10"',
        "9:13: '::ffff:203.0.113.10' is IPv4 written as IPv6, expected 203.0.113.10",
    ),
    "scope": (
        TO,
        "to: fe80::1%eth0",
        "9:13: a scope in 'fe80::1%eth0', expected the address without '%'",
    ),
    "half an address": (
        TO,
        "to: 203.0.113",
        f"9:13: '203.0.113' is no address or prefix, expected {ADDRESS}",
    ),
}


@pytest.mark.parametrize("case", LABS_CASES)
def test_faults_of_the_allowlist(files, case):
    files.labs_fault(*LABS_CASES[case])
