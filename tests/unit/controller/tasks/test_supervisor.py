"""Background work that meets what nobody foresaw: told, and begun again."""

import asyncio

import pytest

from ecluse.controller.context import Options
from ecluse.controller.tasks import supervisor
from tests.unit.controller import machine as machines
from tests.unit.controller.machine import Machine, allowlist

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


def warned(machine: Machine, words: str) -> bool:
    return any(words in text for text in machine.status().warnings)


def wait_until(machine: Machine, condition) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    machine.run(wait())


async def no_warning(machine: Machine, words: str) -> None:
    while any(words in text for text in machine.alert_texts()):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("error", [TypeError("'<' not supported between str and bytes"), NO_THREAD])
def test_a_watch_that_meets_what_it_did_not_expect_begins_again(machine, error):
    machine.links.fail["read_host"] = error
    machine.links.change("interface \ufffd is up", interfaces=["lo", "wan0"])
    wait_until(
        machine, lambda: machine.controller.parts.supervisor._faults["looking at the links"] > 1
    )
    assert machine.controller.alive, "the watchdog is fed"
    assert warned(machine, "looking at the links failed")
    assert warned(machine, "time(s) since the start")
    assert len([e for e in machine.events if "looking at the links failed" in e.message]) == 1
    del machine.links.fail["read_host"]
    machine.run(no_warning(machine, "looking at the links failed"))
    machine.links.change("interface wan1 is up", interfaces=["lo", "wan1"])
    wait_until(
        machine, lambda: any("wan1" in e.message for e in machine.events if e.kind == "link")
    )


def test_work_that_is_done_once_and_fails_is_told_and_not_for_ever(machine):
    async def breaks() -> None:
        raise MemoryError

    async def begin() -> None:
        machine.controller.parts.supervisor.run_aside(breaks())

    machine.run(begin())
    machine.settle()
    assert any("background work (breaks) failed (MemoryError" in e.message for e in machine.events)
    machine.run(no_warning(machine, "background work"))


def test_one_step_of_the_regular_look_does_not_keep_the_others_from_their_turn(machine):
    async def fails():
        raise NO_THREAD

    machine.firewall.counters, sound = fails, machine.firewall.counters
    wait_until(
        machine,
        lambda: machine.controller.parts.supervisor._faults["comparing with the kernel"] > 2,
    )
    machine.set("cut")
    wait_until(machine, lambda: not machine.controller.parts.upkeep._tidying_due)
    machine.firewall.counters = sound
    machine.run(no_warning(machine, "comparing with the kernel"))


def test_nobody_says_that_work_is_well_which_was_not_done_again(machine):
    async def breaks() -> None:
        raise MemoryError

    async def begin() -> None:
        machine.controller.parts.supervisor.run_aside(breaks())

    machine.run(begin())
    machine.settle()
    machine.run(no_warning(machine, "background work"))
    assert not [e for e in machine.events if "background work (breaks) works again" in e.message]
