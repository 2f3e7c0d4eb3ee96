"""The nft text of each part of a rule, and of elements."""

from ipaddress import ip_address

import pytest

from ecluse.ruleset import program as p
from ecluse.ruleset.program_text import (
    element_text,
    elements_text,
    interval_text,
    part_text,
    render,
    structure_text,
)


def number(text):
    return int(ip_address(text))


@pytest.mark.parametrize(
    "part, text",
    [
        (p.Match(p.L4PROTO, (6,)), "meta l4proto 6"),
        (p.Match(p.L4PROTO, (6, 17), negate=True), "meta l4proto != { 6, 17 }"),
        (p.Match(p.OIFNAME, ("lo",)), 'oifname "lo"'),
        (p.Match(p.SADDR4, ((number("10.0.0.0"), number("10.0.0.255")),)), "ip saddr 10.0.0.0/24"),
        (
            p.Match(p.SADDR4, ((number("10.0.0.1"), number("10.0.0.2")),)),
            "ip saddr 10.0.0.1-10.0.0.2",
        ),
        (p.InSet((p.SADDR4, p.TH_DPORT), "k1_s", negate=True), "ip saddr . th dport != @k1_s"),
        (p.CountByMap((p.CT_PORT,), "k1_m"), "counter name ct original proto-dst map @k1_m"),
        (p.Counter("svc_a"), 'counter name "svc_a"'),
        (
            p.AddToSet(("ip saddr", "0"), "refused4"),
            "update @refused4 { ip saddr . 0 timeout 1d counter }",
        ),
        (p.RateLimit(10), "limit rate 10/second"),
        (p.goto("k1_x"), "goto k1_x"),
        (p.DROP, "drop"),
        (p.Reject("tcp reset"), "reject with tcp reset"),
        (p.RefreshInSet(p.DADDR4, "dns_x"), "update @dns_x { ip daddr }"),
        (
            p.RateOver(p.SADDR4, "dns_rate_4", 5),
            "update @dns_rate_4 { ip saddr limit rate over 5/second burst 10 packets }",
        ),
        (p.LOCAL, "fib daddr type local"),
        (p.NOTRACK, "notrack"),
        (p.FROM_HERE, "fib saddr . iif oif exists"),
        (p.Redirect(5300), "redirect to :5300"),
        (p.VerdictMap((p.IIFNAME,), "k1_from"), "iifname vmap @k1_from"),
    ],
)
def test_each_part_of_a_rule(part, text):
    assert part_text(part) == text


@pytest.mark.parametrize(
    "kind, interval, text",
    [
        ("ipv4_addr", (number("192.0.2.1"),) * 2, "192.0.2.1"),
        ("ipv6_addr", (number("2001:db8::"), number("2001:db8::f")), "2001:db8::-2001:db8::f"),
        ("inet_service", (443, 443), "443"),
        ("inet_service", (1, 9), "1-9"),
        ("ifname", p.ifname_interval("vlan*"), '"vlan*"'),
        ("ifname", p.ifname_interval("eth0"), '"eth0"'),
    ],
)
def test_intervals_are_numbers_and_addresses_never_names(kind, interval, text):
    assert interval_text(kind, interval) == text


def test_elements_alone_and_together_are_written_alike():
    key_a, key_b = ((1, 1), (6, 6)), ((2, 5), (6, 6))
    types = ("inet_service", "inet_proto")
    named = p.NamedSet("k1_m", types, True, "counter", {key_a: "svc_a", key_b: "svc_b"})
    single = [element_text(named, key) for key in (key_a, key_b)]
    assert single == ['1 . 6 : "svc_a"', '2-5 . 6 : "svc_b"']
    assert elements_text(named).split(",\n\t\t\t") == single


def test_the_structure_lacks_only_the_elements_of_large_maps():
    large = p.NamedSet("k1_m", ("inet_service",), False, "counter", {((1, 1),): "svc_a"})
    small = p.NamedSet("k1_s", ("inet_service",), False, "", {((7, 7),): ""})
    program = p.Program(1, ("svc_a",), (large, small), (p.Chain("k1_c", ((p.ACCEPT,),)),))
    assert "elements = {\n\t\t\t7\n" in structure_text(program)
    assert '1 : "svc_a"' not in structure_text(program)
    assert '1 : "svc_a"' in render(program)
    assert "\tchain k1_c {\n\t\taccept\n\t}\n" in structure_text(program)
