"""Advice on host names: what a person can act on, and nothing where all is well."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest

from ecluse.name_advice import Knowledge, address_states, failures, name_states, owners_of
from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from ecluse.records import KnownAddress, KnownName, NameStatistics
from tests.unit.ruleset.policies import SITE

NOW = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)


OLD, NEW = "203.0.113.9", "203.0.113.10"


HTTPS = (Traffic(6, 443, 443),)


def destination(*hosts, direction=Direction.OUTBOUND, traffic=HTTPS, **more):
    return Destination(direction, hosts, (), traffic, **more)


def service(*destinations, name="lab", zones=("care",), hosts=()):
    inside = tuple(map(ip_network, hosts))
    return Service(name, "", "", "", Criticality.VITAL, zones, inside, destinations)


def policy(*services):
    return Policy(SITE, services or (service(destination("a.example")),))


def known(name, *addresses, seen=NOW, **more):
    expires = seen + timedelta(seconds=300)
    return KnownName(name, tuple(KnownAddress(a, seen, expires) for a in addresses), NOW, **more)


def states(*entries, tally=None, service_=None, days=30):
    knowledge = Knowledge(
        {entry.name: entry for entry in entries},
        {entries[0].name: tally or NameStatistics()},
        timedelta(days=days),
        NOW,
        owners_of({entry.name: entry for entry in entries}),
    )
    one = service_ or service(destination(entries[0].name))
    return next(iter(name_states(policy(one), one, knowledge))), list(failures(one, knowledge))


def test_nothing_is_said_of_a_name_that_is_well():
    state, wrong = states(known("a.example", NEW, since=NOW))
    assert (state.warnings, wrong, state.kept_until) == ((), [], None)


ADVICE = {
    "rotates": (
        [known("a.example", NEW)],
        NameStatistics(answers=5, turned=3),
        "nearly every answer (3 of 5)",
    ),
    "early": (
        [known("a.example", NEW)],
        NameStatistics(answers=9, early=3),
        "rotates faster than its TTL",
    ),
    "network": (
        [known("a.example", NEW, alias="x.b-cdn.net")],
        None,
        "shared content network (b-cdn.net)",
    ),
    "neighbour": (
        [known("a.example", NEW), known("b.other.example2", NEW)],
        None,
        "shares an address with b.other",
    ),
    "inside": ([known("a.example", "2001:db8:20::9", NEW)], None, "inside zone 'admin'"),
    "unused": (
        [known("a.example", NEW, since=NOW - timedelta(days=8))],
        None,
        "never seen in use in 8 days",
    ),
    "six alone": (
        [known("a.example", "2001:db8:ff::1")],
        None,
        "IPv6 addresses only: machines without IPv6",
    ),
}


@pytest.mark.parametrize("case", ADVICE)
def test_advice_that_a_person_can_act_on(case):
    entries, tally, words = ADVICE[case]
    state, wrong = states(*entries, tally=tally)
    assert len(state.warnings) == 1
    assert words in state.warnings[0]
    assert wrong == [], "advice is no failure"


def test_ipv6_alone_where_the_inside_has_none():
    one = service(destination("a.example"), zones=("guests",))
    state, _ = states(known("a.example", "2001:db8:ff::1"), service_=one)
    assert "the inside of 'lab' has no IPv6" in state.warnings[0]
    gateway = service(destination("a.example"), zones=("guests", "gateway"))
    state, _ = states(known("a.example", "2001:db8:ff::1"), service_=gateway)
    assert state.warnings == (
        "a.example has IPv6 addresses only: machines without IPv6 don't reach it",
    ), "nobody knows what the gateway has"


def test_until_when_an_address_stays_is_said_of_those_that_left_or_whose_time_is_over_alone():
    fresh, over, left = known("a.example", NEW, OLD, "203.0.113.11").addresses
    over = replace(over, seen=NOW - timedelta(hours=1), expires=NOW - timedelta(minutes=50))
    left = replace(left, left=NOW)
    entry = replace(known("a.example"), addresses=(fresh, over, left))
    knowledge = Knowledge({"a.example": entry}, {}, timedelta(days=30), NOW, {})
    shown = [
        each.kept_until for each in address_states(service(destination("a.example")), knowledge)
    ]
    assert shown == [
        None,
        NOW - timedelta(hours=1) + timedelta(days=30),
        NOW + timedelta(minutes=30),
    ]


def test_no_advice_where_there_is_nothing_to_say():
    used = known("a.example", NEW, since=NOW - timedelta(days=8))
    used = replace(used, addresses=tuple(replace(each, used=NOW) for each in used.addresses))
    for entries, tally in (
        ([used], NameStatistics(answers=50, turned=3, early=2)),
        (
            [known("a.example", NEW, alias="a.notb-cdn.net.example"), known("b.a.example", NEW)],
            None,
        ),
    ):
        assert states(*entries, tally=tally)[0].warnings == ()


def test_a_name_that_is_not_resolved_says_for_how_long_it_is_kept():
    entry = known(
        "a.example", NEW, seen=NOW - timedelta(days=1), failure="192.0.2.53 answered SERVFAIL"
    )
    state, (wrong,) = states(entry, days=7)
    assert state.kept_until == NOW + timedelta(days=6)
    assert "kept until 2026-03-10 03:00 UTC at most" in wrong
    assert "SERVFAIL" in wrong


def test_a_name_of_which_one_address_was_refused_is_not_called_unresolved():
    state, (wrong,) = states(
        known("a.example", NEW, failure="refused 10.0.0.1 (a private address)")
    )
    assert "resolved in part only (refused 10.0.0.1" in wrong
    assert state.kept_until is None


def test_private_addresses_that_another_service_has_by_a_name_are_not_this_ones():
    entry = known("a.example", "10.200.0.9")
    _, (wrong,) = states(entry)
    assert "nothing is kept for it" in wrong
    assert states(entry, service_=service(destination("a.example", private=True)))[1] == []


def test_a_name_without_addresses():
    _, (wrong,) = states(KnownName("a.example", (), NOW, "192.0.2.53 answered NXDOMAIN"))
    assert (
        wrong
        == "a.example has no address yet (192.0.2.53 answered NXDOMAIN): nothing is kept for it"
    )
