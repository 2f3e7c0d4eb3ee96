"""Multicast groups: the gateway hears from its neighbours what it may send to a group."""

from dataclasses import replace

import pytest

from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from tests.unit.ruleset import policies as w
from tests.unit.ruleset.packets import cut, flow, packet

GROUPS = (w.net("224.0.0.9/32"), w.net("ff02::9/128"))
TRAFFIC = (Traffic(88), Traffic(17, 520, 520))
TO = Destination(Direction.OUTBOUND, (), GROUPS, TRAFFIC)
PEER = Destination(Direction.OUTBOUND, (), (w.net("203.0.113.1/32"),), TRAFFIC)
SERVICE = Service("rip", "", "", "", Criticality.VITAL, ("gateway",), (), (TO, PEER))


@pytest.mark.parametrize(
    ("source", "to", "protocol", "port", "kept"),
    [
        ("192.0.2.9", "224.0.0.9", 88, 0, True),
        ("192.0.2.9", "224.0.0.9", 17, 520, True),
        ("fe80::9", "ff02::9", 17, 520, True),
        ("192.0.2.9", "224.0.0.9", 17, 521, False),
        ("192.0.2.9", "224.0.0.9", 89, 0, False),
        ("192.0.2.9", "224.0.0.10", 88, 0, False),
    ],
)
def test_what_is_kept_to_a_group_is_heard_from_it(source, to, protocol, port, kept):
    policy = Policy(w.SITE, (SERVICE,))
    said = flow(source, to, protocol, port)
    for hook, iif, oif in (("input", "wan0", ""), ("output", "", "wan0")):
        judged = cut(policy).judge(packet(said, iif, oif, hook))
        assert (judged.verdict == "accept", judged.service) == (kept, "svc_rip" if kept else "")
        assert cut(policy, level="isolate").judge(packet(said, iif, oif, hook)).verdict != "accept"
        spoofed = packet(replace(said, spoofed=True), iif, oif, hook)
        assert cut(policy).judge(spoofed).verdict != "accept"


def test_a_peer_is_heard_as_before_only_where_from_names_it():
    """What goes to an address gets its answer, and opens nothing the other way."""
    oracle = cut(Policy(w.SITE, (SERVICE,)))
    stranger = packet(flow("203.0.113.1", "192.0.2.1", 88, 0), "wan0", "", "input")
    assert oracle.judge(stranger).verdict == "drop"
    answer = flow("192.0.2.1", "203.0.113.1", 88, 0)
    back = packet(answer, "wan0", "", "input", direction="reply")
    assert oracle.judge(back).verdict == "accept"
