"""The regular look: compares, reads counters, and says when it could not."""

import pytest

from ecluse.errors import KernelError
from ecluse.ports import CounterValue


@pytest.fixture
def look(machine):
    return machine.controller.parts.regular_look


def counted(machine, packets):
    async def counters():
        return {"svc_lab": CounterValue(packets, 100 * packets)}

    machine.firewall.counters = counters


def test_a_counter_is_in_use_from_the_second_look_at_which_it_rose(machine, look):
    for packets in (5, 5):
        counted(machine, packets)
        machine.run(look.look())
    assert look.last_packet == {}, "it may have stood for long"
    machine.clock.forward(10)
    counted(machine, 6)
    machine.run(look.look())
    assert look.last_packet == {"svc_lab": machine.clock.time}
    rose = machine.clock.time
    machine.clock.forward(10)
    counted(machine, 0)
    machine.run(look.look())
    assert look.last_packet == {"svc_lab": rose}, "made again, with no packet yet"
    assert look.counters["svc_lab"] == CounterValue(0, 0)


def test_who_needs_the_counters_is_given_them_at_each_look(machine, look):
    seen = []

    async def reader(counters):
        seen.append(counters["svc_lab"].packets)

    look._counter_readers = (*look._counter_readers, reader)
    for packets in (1, 2):
        counted(machine, packets)
        machine.run(look.look())
    assert seen == [1, 2]


def test_a_kernel_that_cannot_be_compared_is_an_alert_until_it_can(machine, look):
    alerts = machine.controller.parts.alerts
    counters = machine.firewall.counters

    async def refused():
        raise KernelError("no socket")

    machine.firewall.counters = refused
    machine.run(look.look_or_alert())
    assert alerts.is_raised("kernel-not-compared")
    assert not machine.controller._live.in_step
    machine.firewall.counters = counters
    machine.run(look.look_or_alert())
    assert not alerts.is_raised("kernel-not-compared")
    assert machine.controller._live.in_step


def test_while_a_change_is_under_way_nothing_is_compared(machine, look):
    live = machine.controller._live

    async def during_a_change():
        before = live.checked
        machine.clock.forward(10)
        async with live.lock.hold():
            await look.look()
        return before == live.checked

    assert machine.run(during_a_change())
    machine.run(look.look())
    assert live.checked == machine.clock.time, "positive control"
