"""What comes by a VRF is judged by its real interface: the kernel calls such packets by the VRF's
name (docs/datapath.md).
"""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from ecluse.ruleset import switch, table_names
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple
from ecluse.ruleset.simulator import Packet, Simulator
from tests.unit.ruleset import policies as w

INSIDE, STRANGER, PARTNER = (ip_address(a) for a in ("10.10.0.5", "198.51.100.3", "203.0.113.1"))
LEVELS = ("cut", "isolate")


def oracle(*interfaces, level="cut", **others):
    """Give the judge of a site whose zone care has these interfaces, with a service kept to the
    partner.
    """
    care = replace(w.CARE, interfaces=interfaces)
    site = replace(w.SITE, zones=(care, *w.SITE.zones[1:]))
    to = Destination(Direction.OUTBOUND, (), (w.net("203.0.113.1/32"),), (Traffic(17, 443, 443),))
    lab = Service("lab", "Lab", "Lab", "", Criticality.VITAL, ("care",), (), (to,))
    policy = Policy(site, (lab,))
    levels = dict.fromkeys(w.ZONES, level) | others
    return Simulator(compile_program(policy, {}, 1), switch.switch_targets(policy, 1, levels))


def packet(iif, slave, oif, source, destination, *, hook="forward", opener=None):
    """Give a datagram of a connection to udp/443 that its sender, or its receiver, opened."""
    by_sender = opener in {None, source}
    one, other = (source, destination) if by_sender else (destination, source)
    connection = ConntrackEntry(17, Tuple(one, other, 40000, 443), Tuple(other, one, 443, 40000))
    return Packet(
        hook,
        iif,
        oif,
        source,
        destination,
        17,
        connection,
        "original" if by_sender else "reply",
        slave=slave,
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("names_", [("lan0", "vall"), ("lan0",), ("vall", "lan*"), ("lan0", "v*")])
def test_a_stranger_in_the_vrf_of_the_inside_gets_in_at_no_level(level, names_):
    judge = oracle(*names_, level=level)
    strange = packet("vall", "wan0", "lan0", STRANGER, INSIDE)
    assert judge.judge(strange).verdict == "drop"
    assert judge.judge(strange).counters == (table_names.REFUSED_IN,), "in silence, as from outside"
    to_us = packet("vall", "wan0", "", STRANGER, ip_address("10.10.0.1"), hook="input")
    assert judge.judge(to_us).verdict == "drop"
    assert oracle(*names_, level="open").judge(strange).verdict == "accept", "positive control"
    assert judge.judge(packet("vall", "lan0", "lan0", INSIDE, INSIDE)).verdict == "accept", (
        "inside to inside"
    )
    here = packet("vall", "lan0", "", INSIDE, ip_address("10.10.0.1"), hook="input")
    assert judge.judge(here).verdict == "accept"


@pytest.mark.parametrize("names_", [("lan0", "vall"), ("lan0",)])
def test_a_kept_service_passes_in_a_vrf(names_):
    judge = oracle(*names_)
    assert judge.judge(packet("vall", "lan0", "wan0", INSIDE, PARTNER)).service == "svc_lab"
    back = packet("vall", "wan0", "lan0", PARTNER, INSIDE, opener=INSIDE)
    assert judge.judge(back).service == "svc_lab"
    away = packet("vall", "lan0", "wan0", INSIDE, STRANGER)
    assert judge.judge(away).verdict == "reject", "an inside machine is told"
    assert table_names.REFUSED_OUT in judge.judge(away).counters


def test_an_open_zone_lets_no_stranger_through_its_vrf_to_somewhere_outside():
    judge = oracle("lan0", "vall", care="open")
    assert judge.judge(packet("vall", "wan0", "wan1", STRANGER, PARTNER)).verdict == "drop"
    assert judge.judge(packet("vall", "lan0", "wan1", INSIDE, STRANGER)).verdict == "accept"


def test_what_comes_by_no_vrf_is_judged_as_ever():
    judge = oracle("lan0")
    assert judge.judge(packet("lan0", "", "lan0", INSIDE, INSIDE)).verdict == "accept"
    assert judge.judge(packet("lan0", "", "wan0", INSIDE, PARTNER)).service == "svc_lab"
    assert judge.judge(packet("wan0", "", "lan0", STRANGER, INSIDE)).verdict == "drop"
