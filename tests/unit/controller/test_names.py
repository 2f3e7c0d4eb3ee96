"""Addresses of names over fakes: who uses them, when they go, what is said of them."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest

from ecluse.controller.tasks.addresses_in_use import in_use, learned_in_use
from ecluse.errors import KernelError
from ecluse.flow_judge import ConntrackEntry, Tuple
from ecluse.name_advice import Knowledge, address_states, failures, name_states, owners_of
from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from ecluse.records import KnownAddress, KnownName, NameStatistics
from tests.unit.controller.machine import Machine
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


def line(inside, outside, port=443, protocol=6, *, inbound=False, answered=True):
    a, b = ip_address(inside), ip_address(outside)
    if inbound:
        return ConntrackEntry(
            protocol, Tuple(b, a, 40000, port), Tuple(a, b, port, 40000), answered=answered
        )
    return ConntrackEntry(
        protocol, Tuple(a, b, 40000, port), Tuple(b, a, port, 40000), answered=answered
    )


RESOLVED = {"a.example": (ip_address(OLD), ip_address(NEW)), "b.example": (ip_address(OLD),)}
CASES = {
    "from the zone": (line("10.10.0.5", OLD), True),
    "from another zone": (line("10.30.0.5", OLD), False),
    "to another port": (line("10.10.0.5", OLD, 22), False),
    "by another protocol": (line("10.10.0.5", OLD, protocol=17), False),
    "to another address": (line("10.10.0.5", "203.0.113.77"), False),
    "never answered": (line("10.10.0.5", OLD, answered=False), False),
    "the other way round": (line("10.10.0.5", OLD, inbound=True), False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_live_connection_of_the_service_itself_counts_and_nobody_elses(case):
    connection, counts = CASES[case]
    assert in_use([policy()], RESOLVED, [connection]) == ({"a.example": {OLD}} if counts else {})


def test_who_else_may_use_a_service():
    hosts = policy(service(destination("a.example"), zones=(), hosts=("10.30.0.5/32",)))
    assert in_use([hosts], RESOLVED, [line("10.30.0.5", OLD), line("10.30.0.6", NEW)]) == {
        "a.example": {OLD}
    }
    gateway = policy(service(destination("a.example"), zones=("gateway",)))
    assert in_use([gateway], RESOLVED, [line("192.0.2.2", OLD), line("10.10.0.5", NEW)]) == {
        "a.example": {OLD}
    }
    inbound = policy(service(destination("a.example", direction=Direction.INBOUND)))
    assert in_use(
        [inbound], RESOLVED, [line("10.10.0.5", OLD, inbound=True), line("10.10.0.5", NEW)]
    ) == {"a.example": {OLD}}
    ping = policy(service(destination("c.example", traffic=(Traffic(1),))))
    six = {"c.example": (ip_address("2001:db8:ff::1"),)}
    assert in_use([ping], six, [line("2001:db8:10::5", "2001:db8:ff::1", 0, 58)]) == {
        "c.example": {"2001:db8:ff::1"}
    }


def test_any_policy_that_is_loaded_counts():
    other = policy(service(destination("b.example", traffic=(Traffic(6, 22, 22),))))
    found = in_use(
        [policy(), other], RESOLVED, [line("10.10.0.5", OLD), line("10.10.0.5", OLD, 22)]
    )
    assert found == {"a.example": {OLD}, "b.example": {OLD}}


# -- letting go


@pytest.fixture
def machine():
    made = Machine(policy(), {"a.example": [OLD, NEW]})
    made.start()
    yield made
    made.close()


LEARNED = {
    "dns_svc_lab_4": frozenset({int(ip_address(OLD))}),
    "dns_all_4": frozenset({int(ip_address(OLD))}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_learned_address_is_in_use_by_its_services_own_connections_alone(case):
    connection, counts = CASES[case]
    wild = policy(
        service(Destination(Direction.OUTBOUND, (), (), HTTPS, wildcards=("operator.example",)))
    )
    address = ip_address(OLD)
    wanted = {"dns_svc_lab_4": {address}, "dns_all_4": {address}} if counts else {}
    assert learned_in_use([wild], LEARNED, [connection]) == wanted
    fixed = policy(
        service(Destination(Direction.OUTBOUND, (), (ip_network("203.0.113.0/24"),), HTTPS))
    )
    assert learned_in_use([fixed], LEARNED, [connection]) == {}, "nothing is learned for it"


def look(machine):
    machine.run(machine.address_use().look())
    machine.settle()
    machine.run(asyncio.sleep(0.02))


def in_kernel(machine):
    elements = {
        str(ip_address(key[0][0]))
        for named in machine.controller._live.current.loaded.program.sets
        if named.by_name
        for key in named.elements
    }
    return sorted(elements)


def test_what_is_due_leaves_the_kernel_and_the_disk(machine):
    look(machine)
    assert in_kernel(machine) == [NEW, OLD], "nothing is due"
    machine.resolver.overdue = {"a.example": frozenset({OLD})}
    look(machine)
    assert in_kernel(machine) == [NEW]
    assert [each.address for each in machine.state.names["a.example"].addresses] == [NEW]


def test_what_is_due_stays_while_a_connection_lives_and_its_use_is_noted(machine):
    machine.resolver.overdue = {"a.example": frozenset({OLD})}
    machine.conntrack.table = [line("10.10.0.5", OLD)]
    look(machine)
    assert in_kernel(machine) == [NEW, OLD]
    used = {each.address: each.used for each in machine.resolver.known()["a.example"].addresses}
    assert used == {OLD: machine.clock(), NEW: None}
    machine.resolver.overdue = {"a.example": frozenset({OLD})}
    machine.conntrack.table = []
    look(machine)
    assert in_kernel(machine) == [NEW], "positive control"


def test_a_large_table_is_read_rarely_although_something_is_always_due(machine, monkeypatch):
    reads = []

    async def slow():
        reads.append(machine.conntrack.table)
        await asyncio.sleep(0.02)
        return machine.conntrack.table

    monkeypatch.setattr(machine.conntrack, "connections", slow)
    watch = machine.address_use()
    for old in (OLD, NEW):
        machine.resolver.overdue = {"a.example": frozenset({old})}
        machine.run(watch.look())
    assert len(reads) == 1, "0.02 s of work: the next look is 4 s away"
    watch._soonest -= 100
    machine.run(watch.look())
    assert len(reads) == 2, "positive control"


def test_what_is_known_is_saved_now_and_then_and_not_at_each_look(machine):
    watch = machine.address_use()
    machine.conntrack.table = [line("10.10.0.5", NEW)]

    def looked_and_saved():
        watch._next_look = 0.0
        machine.run(watch.look())
        return {each.address: each.used for each in machine.state.names["a.example"].addresses}[NEW]

    assert looked_and_saved() is None, "not yet"
    watch._next_save = 0.0
    assert looked_and_saved() == machine.clock()
    assert watch._next_save > 0.0, "and not again at once"


def test_where_the_connections_cannot_be_read_nothing_leaves_and_it_is_said(machine):
    machine.resolver.overdue = {"a.example": frozenset({OLD})}
    machine.conntrack.fail["connections"] = KernelError("busy")
    look(machine)
    assert in_kernel(machine) == [NEW, OLD]
    assert any("busy" in warning for warning in machine.status().warnings)
    del machine.conntrack.fail["connections"]
    look(machine)
    assert in_kernel(machine) == [NEW]
    assert not any("busy" in warning for warning in machine.status().warnings)


def test_names_that_may_be_private_are_asked_for_as_such(machine):
    allowed = policy(service(destination("a.example", private=True)))
    machine.reload(allowed)
    assert machine.resolver.private == {"a.example"}


def test_use_is_saved_at_the_end_too(machine):
    machine.conntrack.table = [line("10.10.0.5", NEW)]
    look(machine)
    machine.run(machine.controller.stop())
    saved = {each.address: each.used for each in machine.state.names["a.example"].addresses}
    assert saved[NEW] == machine.clock()


# -- what is said


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
    "rotates": ([known("a.example", NEW)], NameStatistics(answers=5, turned=3), "nearly every answer (3 of 5)"),
    "early": ([known("a.example", NEW)], NameStatistics(answers=9, early=3), "rotates faster than its TTL"),
    "network": ([known("a.example", NEW, alias="x.b-cdn.net")], None, "shared content network (b-cdn.net)"),
    "neighbour": ([known("a.example", NEW), known("b.other.example2", NEW)], None, "shares an address with b.other"),
    "inside": ([known("a.example", "2001:db8:20::9", NEW)], None, "inside zone 'admin'"),
    "unused": ([known("a.example", NEW, since=NOW - timedelta(days=8))], None, "never seen in use in 8 days"),
    "six alone": ([known("a.example", "2001:db8:ff::1")], None, "IPv6 addresses only: machines without IPv6"),
}  # fmt: skip


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
