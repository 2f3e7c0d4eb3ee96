"""Which fields are the same, by what conntrack knows of a packet."""

import pytest

from ecluse.proof.packet import ICMP, Kind, kinds
from tests.unit.proof.worlds import view


def test_before_conntrack_no_packet_has_a_connection():
    assert list(kinds("prerouting", -310)) == [Kind("none")]
    assert len(list(kinds("prerouting", -150))) == len(list(kinds("forward", -10))) == 13


def test_a_packet_from_the_opener_has_its_connections_own_fields():
    v = view()
    assert v.any_of("saddr", [(9, 9)]) is v.space.both(
        v.any_of("ct.original.saddr", [(9, 9)]), v.space.all
    )
    assert v.fields["daddr"] == v.fields["ct.original.daddr"] == v.fields["ct.reply.saddr"]
    assert v.fields["dport"] == v.fields["ct.original.proto-dst"]


def test_an_answer_has_them_the_other_way_round():
    v = view(direction=1)
    assert v.fields["saddr"] == v.fields["ct.original.daddr"]
    assert v.fields["daddr"] == v.fields["ct.original.saddr"]
    assert v.fields["sport"] == v.fields["ct.original.proto-dst"]


def test_a_translated_destination_is_another_value():
    v = view(dnat=True)
    assert v.fields["daddr"] == v.fields["ct.reply.saddr"] != v.fields["ct.original.daddr"]
    early = view(hook="prerouting", dnat=True)
    early.priority = -150
    assert early._fields()["daddr"] == early.fields["ct.original.daddr"]


def test_an_error_about_a_connection_has_addresses_of_its_own():
    v = view("error")
    assert v.fields["l4proto"] == ICMP[4]
    assert v.fields["saddr"] != v.fields["ct.original.saddr"]
    assert v.fields["ct.protocol"] == "proto"


def test_without_a_connection_conntrack_can_not_be_asked():
    v = view("none")
    assert v.any_of("ct.original.saddr", [(0, (1 << 32) - 1)]) is v.space.none
    assert v.bit("ct.label", 127) is v.space.none


def test_ports_are_of_protocols_that_have_them():
    """A later fragment has no header, and ESP no port that conntrack knows."""
    v = view()
    assert v.any_of("dport", [(443, 443)]) is not v.space.none
    assert v.space.both(v.any_of("dport", [(0, 65535)]), v.variable("th", 1, 1)) is v.space.none
    plain = view("plain")
    assert plain.fields["dport"] != plain.fields["ct.original.proto-dst"]
    named = plain.in_boxes(("ct.protocol",), lambda: [((n, n),) for n in (6, 17, 132)], "entries")
    assert named is plain.space.none


def test_what_is_known_of_one_kind_is_not_taken_for_another():
    """A set of 100,000 entries is put together once; a kind without ports has fewer of them."""
    flow = view()
    plain = view("plain")
    plain.space = flow.space
    boxes = [((6, 6),), ((50, 50),)]
    for v in (flow, plain):
        v.in_boxes(("ct.protocol",), lambda: boxes, "entries")
    assert plain.in_boxes(("ct.protocol",), lambda: boxes, "entries") is plain.any_of(
        "ct.protocol", [(50, 50)]
    )
    assert flow.space.holds(
        flow.in_boxes(("ct.protocol",), lambda: boxes, "entries"), {flow.level["proto"]: 6}
    )


HOMES = [[(10, 19), (40, 49)], [(20, 29)]]


@pytest.mark.parametrize("asked", [(10, 19), (10, 49), (12, 13), (15, 25), (0, 99), (50, 60)])
def test_homes_change_no_answer(asked):
    with_, without = view(homes=HOMES), view()
    region = with_.any_of("saddr", [asked])
    plain = without.any_of("saddr", [asked])
    for address in range(70):
        home = next(
            (n for n, home in enumerate(HOMES) if any(a <= address <= b for a, b in home)), 2
        )
        point = {with_.level["opener"]: address, with_.level["home"]: home}
        held = with_.space.holds(region, point)
        assert held == without.space.holds(plain, {without.level["opener"]: address})
        real = {**point, with_.level["proto"]: 6}
        assert with_.space.holds(with_.consistent(), real)
        assert not with_.space.holds(with_.consistent(), {**real, with_.level["home"]: home + 1})


def test_an_interface_has_an_index_and_a_name_or_neither():
    v = view(hook="postrouting")
    made_here = v.space.both(v.possible, v.any_of("iif", [(0, 0)]))
    assert v.space.both(made_here, v.any_of("iifname", [(1, (1 << 128) - 1)])) is v.space.none
    assert made_here is not v.space.none


def test_what_stands_for_ports_in_other_tuples_is_not_turned_round():
    """ICMP: type and code of the opener, an identifier in answers (icmp_pkt_to_tuple)."""
    for track, same in (("flow", True), ("plain", False), ("error", False)):
        fields = view(track).fields
        assert (fields["ct.reply.proto-src"] == fields["ct.original.proto-dst"]) is same


def test_before_translation_an_answer_is_not_yet_towards_the_opener():
    """The site rewrote the opener's address: its answers come to that one (nf_nat_packet)."""
    v = view(hook="prerouting", direction=1)
    v.priority = -150
    early = v._fields()
    assert early["daddr"] not in {"opener", "target"}
    assert early["dport"] != early["ct.original.proto-src"]
    assert view(direction=1).fields["daddr"] == "opener"


def test_what_some_kernels_track_by_ports_has_none_in_others():
    """DCCP is not tracked by ports from Linux 6.17 on."""
    plain = view("plain")
    dccp = plain.any_of("l4proto", [(33, 33)])
    assert plain.space.both(plain.consistent(), dccp) is not plain.space.none
