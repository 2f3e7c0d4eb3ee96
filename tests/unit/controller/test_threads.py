"""Threads that others hold or that cannot be had: a closing and a healing need none of them."""

import asyncio
import contextlib
import threading

import pytest

from ecluse.errors import KernelError
from tests.unit.controller.machine import WHO, Machine
from tests.unit.controller.test_machine import CUT, OPEN, simple
from tests.unit.ruleset.policies import ZONES

ISOLATED = dict.fromkeys(ZONES, "isolate")
MORE_THAN_ALL_THREADS = 40
"""asyncio's own pool has at most 32 (concurrent.futures.thread), and 6 on two processors."""
NO_THREAD = RuntimeError("can't start new thread")


@pytest.fixture
def machine():
    made = Machine(simple())
    made.start()
    yield made
    made.close()


@pytest.fixture
def hung(machine):
    """Let whoever reads from the disk wait, as one that hangs does, until the test is over."""
    over = threading.Event()
    load, read = machine.source.load, machine.state.read_policy

    def waits(work):
        def waiting(*given):
            over.wait(60)
            return work(*given)

        return waiting

    machine.source.load, machine.state.read_policy = waits(load), waits(read)
    yield over
    over.set()


@pytest.mark.parametrize(
    "plan", [{"rollback": 1, "reload": False}, {"rollback": None, "reload": True}]
)
def test_plans_that_wait_for_the_disk_hold_up_no_healing_and_no_closing(machine, hung, plan):
    """RED before: a healing compiled in the pool in which they waited, and had the writer's lock
    meanwhile.
    """
    machine.set("cut")
    ask = machine.controller.plan

    async def bad_night():
        plans = [
            asyncio.create_task(ask(level=None, zones=None, **plan))
            for _ in range(MORE_THAN_ALL_THREADS)
        ]
        await asyncio.sleep(0.01)
        machine.firewall.tamper("flush ruleset", "meddler", 4242)
        while not machine.controller._live.lock.locked():
            await asyncio.sleep(0)
        answer = await machine.controller.set_level(
            "isolate", None, actor=WHO, reason="", authorised_by=""
        )
        status = await machine.controller.status()
        hung.set()
        await asyncio.gather(*plans)
        return answer, status

    answer, status = machine.run(bad_night())
    assert answer.changed
    assert answer.verified
    assert status.last_tamper.pid == 4242
    machine.settle()
    assert machine.kernel() == ISOLATED


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
            await machine.controller.set_level("open", None, actor=WHO, reason="", authorised_by="")
        finally:
            machine.firewall.fail.clear()

    with pytest.raises(type(error)):
        machine.run(fails())
    machine.heal()
    assert machine.kernel() == CUT
    assert dict(machine.status().levels) == CUT
