"""Restoration of the table: tried again until it is whole, and told in few lines."""

import asyncio
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest

from ecluse.controller.context import Options
from ecluse.controller.tasks import supervisor, tamper
from ecluse.controller.tasks.alarm_throttle import CHANGES, AlarmThrottle
from ecluse.errors import KernelError
from ecluse.flow_judge import ConntrackEntry, Tuple
from ecluse.ports import KernelChange
from tests.unit.controller import machine as machines
from tests.unit.controller.machine import CUT, Machine, allowlist, simple

NO_THREAD = RuntimeError(
    "can't start new thread"
)  # what asyncio.to_thread raises where clone(2) says ENOMEM or EAGAIN


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(supervisor, "_CALM", 0.05)
    monkeypatch.setattr(machines, "Options", lambda **given: Options(**(given | {"tick": 0.05})))
    made = Machine(allowlist())
    made.start()
    yield made
    made.close()


def wait_until(machine: Machine, condition) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    machine.run(wait())


async def no_warning(machine: Machine, words: str) -> None:
    while any(words in text for text in machine.alert_texts()):
        await asyncio.sleep(0.005)


def test_a_healing_that_meets_what_it_did_not_expect_heals_all_the_same(machine):
    machine.set("cut")
    for call in ("apply", "switch", "targets"):
        machine.firewall.fail[call] = NO_THREAD
        machine.firewall.tamper("flush ruleset")
        machine.run(asyncio.sleep(0.1))
        assert machine.firewall.table is None or machine.run(machine.firewall.chains()) is not None
        del machine.firewall.fail[call]
        wait_until(machine, lambda: machine.controller._live.in_step)
        assert machine.kernel() == CUT
        machine.settle()
    machine.run(no_warning(machine, "could not be restored"))


def test_a_change_that_cannot_be_noted_is_compared(machine):
    machine.set("cut")
    taken = machine.controller.parts.reconciler._take
    calls = []

    def fails_once(change: KernelChange) -> None:
        calls.append(change)
        if len(calls) == 1:
            raise KeyError("nobody foresaw this")
        taken(change)

    machine.controller.parts.reconciler._take = fails_once
    machine.firewall.tamper("flush ruleset")
    wait_until(machine, lambda: len(calls) > 1)
    machine.settle()
    assert machine.kernel() == CUT


def test_a_table_that_could_not_be_put_back_at_once_is_tried_again_soon(machine):
    machine.set("cut")
    machine.firewall.fail["apply"] = KernelError("busy")
    machine.firewall.tamper("flush ruleset")
    machine.settle()
    assert any("could not be restored" in warning for warning in machine.status().warnings)
    del machine.firewall.fail["apply"]
    machine.run(asyncio.sleep(0.2))
    assert machine.kernel() == CUT
    assert not any("could not be restored" in warning for warning in machine.status().warnings)


NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class Time:
    """Time that a test lets pass; the date may be set as well, by anybody."""

    def __init__(self) -> None:
        self.seconds, self.date = 1000.0, NOON

    def __call__(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> datetime:
        self.seconds += seconds
        self.date += timedelta(seconds=seconds)
        return self.date


@pytest.fixture
def passed() -> Time:
    return Time()


def test_a_fight_is_in_status_in_the_events_and_in_few_audit_lines(monkeypatch, passed):
    monkeypatch.setattr(tamper, "_PAUSE", 0.001)
    machine = Machine(simple())
    machine.start()
    machine.controller.parts.reconciler._throttle = AlarmThrottle(passed)
    machine.set("cut")
    for n in range(30):
        machine.firewall.tamper("flush ruleset", "firewall-cron", 1000 + n)
        machine.heal()
        assert machine.kernel() == CUT
    (warning,) = (text for text in machine.status().warnings if "over and over" in text)
    assert "firewall-cron (pid 1029 at last)" in warning
    lines = [record for record in machine.audit.records if "firewall-cron" in record.what]
    assert len(lines) == CHANGES
    assert lines[-1].event == "fight"
    assert sum(event.kind == "fight" for event in machine.events) == 1
    passed.pass_by(601)

    async def rest():
        await machine.controller.parts.reconciler.end_series()

    machine.run(rest())
    machine.settle()
    assert not any("over and over" in text for text in machine.status().warnings)
    assert machine.audit.records[-1].what.endswith("it is over")
    machine.close()


def test_a_leak_is_in_the_status_although_it_could_not_be_ended(machine):
    machine.set("cut")
    care, web = ip_address("10.10.0.7"), ip_address("198.51.100.80")
    machine.conntrack.table = [
        ConntrackEntry(6, Tuple(care, web, 1, 443), Tuple(web, care, 443, 1))
    ]
    machine.conntrack.fail["end"] = KernelError("no memory")
    machine.run(machine.controller.parts.reconciler._count_leak())
    assert machine.status().last_leak.connections == 1
    assert any("no memory" in e.message for e in machine.events)
