"""Addresses of names: who uses them, when they go, when they are saved."""

import asyncio
from ipaddress import ip_address, ip_network

import pytest

from ecluse.errors import KernelError
from ecluse.flow_judge import ConntrackEntry, Tuple
from ecluse.policy import (
    Criticality,
    Destination,
    Direction,
    Policy,
    Service,
    Traffic,
)
from tests.unit.controller.machine import Machine
from tests.unit.ruleset.policies import SITE


def test_what_lives_at_open_is_held_for_the_cut(dns_machine):
    """No packet comes by the gate's sets at open: the look at the connections stands in for it."""
    held, idle = ip_address("203.0.113.130"), ip_address("203.0.113.131")
    both = frozenset({int(held), int(idle)})
    dns_machine.firewall.answered = {"dns_svc_secure_mail_4": both, "dns_all_4": both}
    inside = ip_address("10.10.0.5")
    dns_machine.conntrack.table = [
        ConntrackEntry(6, Tuple(inside, held, 40000, 443), Tuple(held, inside, 443, 40000))
    ]
    controller = dns_machine.controller
    dns_machine.run(dns_machine.address_use().look())
    assert dns_machine.firewall.held == {"dns_svc_secure_mail_4": {held}, "dns_all_4": {held}}
    # It is one of our own transactions, and one that needs no comparison of the whole table.
    dns_machine.firewall.fail["fingerprint"] = KernelError("nobody reads the table for it")
    live, gate = controller._live.current, controller._table
    assert dns_machine.run(gate.in_step(live.loaded, live.levels))


def test_what_lives_is_held_between_two_changes_and_not_within_one(dns_machine):
    """A load that met it in its midst would take it for a stranger's, and put the whole table in
    anew.
    """
    held = ip_address("203.0.113.130")
    dns_machine.firewall.answered = {"dns_svc_secure_mail_4": frozenset({int(held)})}
    inside = ip_address("10.10.0.5")
    dns_machine.conntrack.table = [
        ConntrackEntry(6, Tuple(inside, held, 40000, 443), Tuple(held, inside, 443, 40000))
    ]
    controller = dns_machine.controller

    async def main() -> None:
        async with controller._live.lock.hold():
            look = asyncio.create_task(dns_machine.address_use().look())
            await asyncio.sleep(0.1)
            assert not dns_machine.firewall.held
        await look
        assert dns_machine.firewall.held

    dns_machine.run(main())


OLD, NEW = "203.0.113.9", "203.0.113.10"


HTTPS = (Traffic(6, 443, 443),)


def destination(*hosts, direction=Direction.OUTBOUND, traffic=HTTPS, **more):
    return Destination(direction, hosts, (), traffic, **more)


def service(*destinations, name="lab", zones=("care",), hosts=()):
    inside = tuple(map(ip_network, hosts))
    return Service(name, "", "", "", Criticality.VITAL, zones, inside, destinations)


def policy(*services):
    return Policy(SITE, services or (service(destination("a.example")),))


@pytest.fixture
def machine():
    made = Machine(policy(), {"a.example": [OLD, NEW]})
    made.start()
    yield made
    made.close()


def look(machine):
    machine.run(machine.address_use().look())
    machine.settle()
    machine.run(asyncio.sleep(0.02))


def in_kernel(machine):
    elements = {
        str(ip_address(key[0][0]))
        for named in machine.controller._live.current.loaded.program.sets
        if named.from_host_names
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


def line(inside, outside, port=443, protocol=6, *, inbound=False, answered=True):
    a, b = ip_address(inside), ip_address(outside)
    if inbound:
        return ConntrackEntry(
            protocol, Tuple(b, a, 40000, port), Tuple(a, b, port, 40000), answered=answered
        )
    return ConntrackEntry(
        protocol, Tuple(a, b, 40000, port), Tuple(b, a, port, 40000), answered=answered
    )


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


def test_use_is_saved_at_the_end_too(machine):
    machine.conntrack.table = [line("10.10.0.5", NEW)]
    look(machine)
    machine.run(machine.controller.stop())
    saved = {each.address: each.used for each in machine.state.names["a.example"].addresses}
    assert saved[NEW] == machine.clock()
