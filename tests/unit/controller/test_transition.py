"""One change: applied, read back, recorded, and taken back where that fails."""

import asyncio
import contextlib
import threading

import pytest

from ecluse.errors import (
    KernelError,
    StateError,
)
from tests.unit.controller.machine import CUT, OPEN, command


def test_an_opening_that_is_taken_back_is_told_purged_and_may_be_tried_again(machine):
    machine.set("cut")
    machine.state.fail["point_boot"] = StateError("no space left")
    answer = machine.set("open")
    assert isinstance(answer, StateError)
    assert answer.retry
    assert machine.kernel() == CUT
    told = [event for event in machine.events if "taken back" in event.message]
    assert told, "an event"
    assert any("taken back" in text for text in machine.status().warnings), "a warning"
    number = machine.controller._live.current.generation.number
    assert machine.controller.purge(number).state == "done", "what began meanwhile is ended"
    del machine.state.fail["point_boot"]
    assert machine.set("open").changed
    assert not any("taken back" in text for text in machine.status().warnings)


def test_a_cut_that_the_disk_does_not_take_is_done_and_said_and_written_later(machine):
    machine.audit.fail["append"] = StateError("no space left")
    for name in ("point_boot", "write_generation"):
        machine.state.fail[name] = StateError("no space left")
    answer = machine.set("cut")
    assert machine.kernel() == CUT
    assert any("boot ruleset" in text for text in answer.unrecorded)
    assert any("audit line" in text for text in answer.unrecorded)
    assert not machine.status().recorded
    assert "generation 2" in machine.controller._records.queue.waiting
    refused = machine.set("open")
    assert isinstance(refused, StateError)
    assert machine.kernel() == CUT
    machine.audit.fail.clear()
    machine.state.fail.clear()
    machine.run(machine.controller._records.queue.write([]))
    assert machine.status().recorded
    assert 2 in machine.state.generations


def test_a_cut_is_recorded_once_its_boot_ruleset_is_on_disk_and_filed_after_the_answer(machine):
    machine.state.fail["write_generation"] = StateError("no space left")
    answer = machine.set("cut")
    assert answer.unrecorded == ()
    assert machine.state.boot[2] == answer.generation
    status = machine.status()
    assert not status.recorded, "that it could not be filed is told all the same"
    assert any("generation 2" in words for words in status.warnings)
    machine.state.fail.clear()
    machine.kill()
    machine.start()
    assert machine.state.generations[2] == answer.generation
    assert dict(machine.status().levels) == CUT


def test_an_opening_is_filed_after_the_answer_and_its_intent_goes(machine):
    machine.set("cut")
    answer = machine.set("open")
    assert machine.state.generations[3] == answer.generation
    assert machine.state.intent is None


def test_what_is_filed_after_the_answer_alarms_nobody_while_it_is_being_written(machine):
    reached, go_on = threading.Event(), threading.Event()
    write = machine.state.write_generation

    def slowly(generation):
        reached.set()
        go_on.wait(5)
        write(generation)

    machine.state.write_generation = slowly
    work = machine.controller.set_level("cut", None, command())
    answer = machine.run(work)
    assert machine.run(asyncio.to_thread(reached.wait, 5))
    assert answer.unrecorded == ()
    assert machine.status().recorded
    go_on.set()
    machine.settle()
    assert 2 in machine.state.generations


NO_THREAD = RuntimeError("can't start new thread")


def fail_once_it_is_switched(machine, call, error):
    """Have a call fail from the next switch on, until the test puts back what it is given."""
    switch = machine.firewall.switch

    async def switch_then_fail(position):
        said = await switch(position)
        machine.firewall.fail[call] = error
        machine.firewall.switch = switch
        return said

    machine.firewall.switch = switch_then_fail


@pytest.mark.parametrize("call", ["targets", "chains"])
def test_a_closing_that_finds_no_thread_to_be_read_back_stands(machine, call):
    """RED before: it stood in the kernel alone; the command failed, and the daemon took what was
    before for what stands.
    """
    machine.firewall.fail["targets"] = NO_THREAD
    fail_once_it_is_switched(machine, call, NO_THREAD)
    with contextlib.suppress(RuntimeError):
        answer = machine.set("cut")
        assert answer.generation.levels == CUT
        assert not answer.verified
    machine.firewall.fail.clear()
    assert dict(machine.controller._live.current.levels) == CUT
    assert machine.kernel() == CUT


def test_a_closing_for_which_there_is_no_thread_at_all_is_refused_in_words(machine):
    machine.firewall.fail |= dict.fromkeys(
        ("switch", "apply", "targets", "chains", "apply_closed_table"), NO_THREAD
    )
    answer = machine.set("cut")
    assert isinstance(answer, KernelError)
    assert "can't start new thread" in answer.message
    machine.firewall.fail.clear()
    assert machine.kernel() == OPEN
    assert machine.set("cut").verified


@pytest.mark.parametrize("error", [KernelError("it changed while it was being read"), NO_THREAD])
def test_an_opening_that_cannot_be_read_back_does_not_stay(machine, error):
    """RED before: the kernel stayed at the opening that was answered as failed, until the next
    regular look.
    """
    machine.set("cut")
    fail_once_it_is_switched(machine, "targets", error)

    async def fails():
        try:
            await machine.controller.set_level("open", None, command())
        finally:
            machine.firewall.fail.clear()

    with pytest.raises(type(error)):
        machine.run(fails())
    machine.heal()
    assert machine.kernel() == CUT
    assert dict(machine.status().levels) == CUT


def test_a_cut_that_cannot_be_read_back_stands_and_is_said(machine):
    machine.firewall.fail["targets"] = KernelError("it changed while it was being read")
    answer = machine.set("cut")
    assert answer.changed
    assert not answer.verified
    del machine.firewall.fail["targets"]
    assert machine.kernel() == CUT
    machine.firewall.tamper("flush chain inet ecluse forward")
    machine.settle()
    assert machine.kernel() == CUT, "what is healed is the cut, not what was before it"
    assert dict(machine.status().levels) == CUT


def test_a_refused_switch_changes_nothing_and_is_not_answered_as_done(machine):
    machine.set("cut")
    machine.firewall.fail["switch"] = KernelError("busy")
    assert isinstance(machine.set("open"), KernelError)
    assert machine.kernel() == CUT
    assert dict(machine.status().levels) == CUT
