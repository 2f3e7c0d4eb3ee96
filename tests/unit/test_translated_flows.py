"""Kept flows that the site translates to where the second lock lets nothing out."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ecluse.flow_judge import ConntrackEntry, FlowJudge, Tuple
from ecluse.policy import (
    Criticality,
    Destination,
    Direction,
    Policy,
    SecondLock,
    Service,
    Traffic,
)
from ecluse.ruleset.compile import compile_program
from ecluse.translated_flows import MOST_WAYS, translated_warnings
from tests.unit.ruleset import policies as w
from tests.unit.test_flow_judge import exact

MEANT, LISTED, REAL = "203.0.113.1", "203.0.113.2", "198.51.100.7"


def judge(lock: SecondLock = SecondLock.CUT, level: str = "cut", local=("192.0.2.2",)) -> FlowJudge:
    policy = exact(f"{MEANT}/32", f"{LISTED}/32", "198.51.100.64/28")
    policy = replace(policy, site=replace(policy.site, second_lock=lock))
    levels = dict.fromkeys(w.ZONES, level)
    return FlowJudge(policy, compile_program(policy, {}, 1), levels, frozenset(local))


def flow(real: str, meant: str = MEANT, source: str = "10.10.0.5") -> ConntrackEntry:
    ours, other = ip_address(source), ip_address(real)
    return ConntrackEntry(
        6, Tuple(ours, ip_address(meant), 40000, 443), Tuple(other, ours, 443, 40000)
    )


def test_a_place_that_is_not_listed_is_told_once_with_what_to_list():
    (text,) = translated_warnings(judge(), [flow(REAL), flow(REAL), flow(MEANT)], {})
    assert f"'lab' goes to {MEANT}" in text
    assert f"list {REAL}" in text


@pytest.mark.parametrize(
    "one",
    [
        flow(MEANT),
        flow(LISTED),
        flow("198.51.100.79"),
        flow("10.20.0.5"),
        flow("192.0.2.2"),
        flow(REAL, meant="203.0.113.99"),
        flow(REAL, source="10.20.0.5"),
    ],
    ids=["not translated", "listed", "in a prefix", "inside", "ours", "not kept", "another zone"],
)
def test_what_the_lock_does_not_drop_is_not_told(one):
    assert translated_warnings(judge(), [one], {}) == ()


def test_a_port_forward_to_the_inside_is_not_told():
    partner, ours, server = "203.0.113.77", "192.0.2.2", "10.10.0.8"
    one = Destination(Direction.INBOUND, (), (w.net(f"{partner}/32"),), (Traffic(6, 443, 443),))
    site = replace(w.SITE, second_lock=SecondLock.CUT)
    service = Service("remote", "", "", "", Criticality.VITAL, ("care",), (), (one,))
    policy = Policy(site, (service,))
    levels = dict.fromkeys(w.ZONES, "cut")
    there = FlowJudge(policy, compile_program(policy, {}, 1), levels, frozenset({ours}))
    forwarded = flow(server, meant=ours, source=partner)
    assert there.judge(forwarded).verdict == "kept"
    assert translated_warnings(there, [forwarded], {}) == ()


@pytest.mark.parametrize(
    "where",
    [judge(SecondLock.ISOLATE), judge(SecondLock.OFF), judge(level="open"), judge(level="isolate")],
    ids=["isolate", "off", "open", "nothing kept"],
)
def test_where_no_lock_stands_or_nothing_is_kept_nothing_is_told(where):
    assert translated_warnings(where, [flow(REAL)], {}) == ()


def test_of_many_the_first_are_named():
    told = translated_warnings(judge(), [flow(f"198.51.100.{n}") for n in range(1, 31)], {})
    assert len(told) == MOST_WAYS + 1
    assert told[-1].startswith("20 more")
