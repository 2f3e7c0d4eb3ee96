"""Formulas say what their words say."""

from ipaddress import ip_network

from ecluse.proof.formula import Words
from tests.unit.proof.worlds import view


def test_and_or_not():
    w = Words(view())
    a, b = w.among("dport", 1, (5, 9)), w.among("dport", (7, 20))
    assert (a & b).region is w.among("dport", (7, 9)).region
    assert (a | b).region is w.among("dport", 1, (5, 20)).region
    assert (a & ~a).region is w.nothing.region
    assert (a | ~a).region is w.everything.region is w.given(True).region


def test_networks_of_the_other_family_do_not_count():
    w = Words(view(version=6))
    both = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert w.within("saddr", both).region is w.within("saddr", both[1:]).region
    assert w.within("saddr", both[:1]).region is w.nothing.region


def test_a_star_stands_for_any_ending():
    w = Words(view())

    def name(text):
        return {w.view.level["iifname"]: int.from_bytes(text.encode().ljust(16, b"\0"), "big")}

    wild, alone = w.link("iifname", ["wlan*"]).region, w.link("iifname", ["wlan"]).region
    holds = w.view.space.holds
    assert [holds(wild, name(n)) for n in ("wlan", "wlan7", "wla", "wlbn")] == [
        True,
        True,
        False,
        False,
    ]
    assert [holds(alone, name(n)) for n in ("wlan", "wlan7")] == [True, False]
