"""Blocks of addresses that hold every zone."""

from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from ecluse.policy import Policy, network_interval
from ecluse.ruleset.families import FAMILIES, IPV4, IPV6
from ecluse.ruleset.inside_blocks import inside_blocks
from tests.unit.ruleset import policies as w


def site(*subnets):
    care = replace(w.CARE, subnets=tuple(map(ip_network, subnets)))
    return Policy(replace(w.SITE, zones=(care,)), ())


def blocks(policy, family):
    kind = "0.0.0.0" if family is IPV4 else "::"
    return [
        (str(ip_network(f"{kind}/0")[low]), (high - low + 1).bit_length() - 1)
        for low, high in inside_blocks(policy, family)
    ]


def test_a_block_is_as_narrow_as_whole_bytes_are():
    policy = site("10.10.0.0/16", "10.30.0.0/16", "2001:db8:10::/48", "2001:db8:30::/48")
    assert blocks(policy, IPV4) == [("10.0.0.0", 24)]
    assert blocks(policy, IPV6) == [("2001:db8::", 88)]
    assert blocks(site("192.168.7.16/28"), IPV4) == [("192.168.7.0", 8)]


def test_a_few_blocks_are_compared_and_no_more():
    some = [f"{n}.0.0.0/16" for n in (10, 172, 192, 198)]
    assert [low for low, _ in blocks(site(*some), IPV4)] == [f"{s[:-3]}" for s in some]
    assert blocks(site(*some, "203.0.113.0/24"), IPV4) == []
    assert blocks(site("0.0.0.0/1"), IPV4) == [], "wider than a byte"
    assert blocks(site("10.0.0.0/8"), IPV6) == []


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), min_size=1, max_size=6))
def test_every_subnet_is_in_a_block_that_is_a_prefix(pairs):
    subnets = [ip_network((number, bits), strict=False) for number, bits in pairs]
    policy = site(*map(str, subnets))
    found = inside_blocks(policy, IPV4)
    for low, high in found:
        assert (high - low + 1).bit_count() == 1 and low % (high - low + 1) == 0
    for subnet in subnets if found else ():
        low, high = network_interval(subnet)
        assert any(first <= low and high <= last for first, last in found)
    assert all(len(inside_blocks(policy, family)) <= 4 for family in FAMILIES)
