"""Commands that wait for each other: what closes goes before all else, and what opens means what it
did when it was sent.
"""

import asyncio

import pytest

from ecluse.controller.lock import PriorityLock, always, never
from ecluse.errors import EcluseError, GivenUpError, StaleError, StateError
from ecluse.records import Sender
from ecluse.ruleset import switch
from tests.unit.controller.machine import WHO, Machine
from tests.unit.controller.test_machine import CUT, OPEN, simple
from tests.unit.ruleset.policies import ZONES

ISOLATE = dict.fromkeys(OPEN, "isolate")
GONE = Sender(gone=lambda: True)


@pytest.fixture
def machine():
    made = Machine(simple())
    made.start()
    yield made
    made.close()


def level(machine, name, *zones, **more):
    return machine.controller.set_level(
        name, zones or None, actor=WHO, reason="", authorised_by="", **more
    )


def test_a_closing_overtakes_all_that_waits_and_what_was_sent_before_it_opens_nothing(machine):
    machine.set("isolate")
    turns = ("open", "reduced", "cut", "open")

    async def crowd():
        openings = [
            asyncio.ensure_future(level(machine, turns[turn % 4], ZONES[turn % 4]))
            for turn in range(40)
        ]
        await asyncio.sleep(0)
        cut = await level(machine, "isolate")
        return cut, await asyncio.gather(*openings, return_exceptions=True)

    cut, openings = machine.run(crowd())
    machine.settle()
    done = [one for one in openings if not isinstance(one, EcluseError)]
    assert len(done) <= 1, "the one that had begun, and it may have been taken back"
    assert cut.generation.number <= 4
    for one in openings:
        assert one in done or isinstance(one, StaleError | StateError), one
    assert machine.kernel() == ISOLATE


def test_whoever_repeats_what_stands_holds_up_no_closing(machine):
    async def crowd():
        again = [asyncio.ensure_future(level(machine, "open")) for _ in range(40)]
        await asyncio.sleep(0)
        await level(machine, "cut")
        return sum(one.done() for one in again), await asyncio.gather(
            *again, return_exceptions=True
        )

    before, _ = machine.run(crowd())
    assert before <= 1
    machine.settle()
    assert machine.kernel() == CUT


def test_what_a_command_closes_is_asked_when_its_turn_comes(machine):
    """Sent as an opening (from isolate to cut), it closes once somebody has opened wider: it goes
    before the rest.
    """
    machine.set("isolate")
    done = []

    async def crowd():
        async with machine.controller._live.lock.hold():

            async def one(name, *zones):
                await level(machine, name, *zones)
                done.append((name, *zones))

            waiting = [
                asyncio.ensure_future(one(*words))
                for words in (("reduced",), ("open", "guests"), ("cut",))
            ]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting, return_exceptions=True)

    machine.run(crowd())
    assert done == [("reduced",), ("cut",)]
    machine.settle()
    assert machine.kernel() == CUT


def test_openings_of_two_people_at_once_are_both_done(machine):
    machine.set("cut")

    async def both():
        return await asyncio.gather(
            level(machine, "open", "care"), level(machine, "reduced", "guests")
        )

    machine.run(both())
    machine.settle()
    assert machine.kernel() == CUT | {"care": "open", "guests": "reduced"}


@pytest.mark.parametrize("order", ["level", "rollback", "reload"])
def test_what_opens_is_left_out_when_nobody_waits_for_it(machine, order):
    machine.set("cut")
    work = {
        "level": lambda: level(machine, "open", sender=GONE),
        "rollback": lambda: machine.controller.rollback(
            1, actor=WHO, reason="", authorised_by="", sender=GONE
        ),
        "reload": lambda: machine.controller.reload(
            expect=None, actor=WHO, reason="", authorised_by="", sender=GONE
        ),
    }[order]()
    assert isinstance(machine.give(work), GivenUpError)
    assert machine.kernel() == CUT
    assert machine.audit.records[-1].result == "left out"
    assert any("nobody waits" in event.message for event in machine.events)


@pytest.mark.parametrize("order", ["level", "rollback"])
def test_what_closes_is_done_though_nobody_waits_for_it(machine, order):
    machine.set("isolate")
    machine.set("open")
    work = {
        "level": lambda: level(machine, "isolate", sender=GONE),
        "rollback": lambda: machine.controller.rollback(
            2, actor=WHO, reason="", authorised_by="", sender=GONE
        ),
    }[order]()
    assert machine.give(work).changed
    assert machine.kernel() == ISOLATE


def test_of_a_command_that_does_both_what_closes_is_done_though_nobody_waits(machine):
    machine.set("isolate", "care")
    answer = machine.give(level(machine, "cut", sender=GONE))
    assert isinstance(answer, GivenUpError)
    assert "closed what was to close" in answer.message
    assert machine.kernel() == CUT | {"care": "isolate"}


@pytest.mark.parametrize("order", ["level", "rollback"])
def test_an_order_for_a_state_that_was_shown_is_for_that_state_alone(machine, order):
    machine.set("cut")
    shown = machine.status().generation
    machine.set("isolate")
    work = {
        "level": lambda: level(machine, "open", expect=shown),
        "rollback": lambda: machine.controller.rollback(
            1, actor=WHO, reason="", authorised_by="", expect=shown
        ),
    }[order]()
    answer = machine.give(work)
    assert isinstance(answer, StaleError)
    assert not answer.retry, "a script that tries again would undo the closing all the same"
    assert machine.kernel() == ISOLATE
    assert machine.give(level(machine, "isolate", expect=shown)).verified, (
        "what closes is done whatever came"
    )


def test_what_was_sent_before_the_start_opens_nothing_that_the_start_found_closed(machine):
    early = Sender(early=True)
    machine.set("cut")
    machine.kill()
    machine.start()
    assert machine.give(level(machine, "reduced", "care", sender=early)).changed, (
        "nothing came in between"
    )
    machine.kill()
    program, _, _ = machine.state.boot
    gate = switch.gate_text(simple(), switch.BOOT_SLOT, ISOLATE)
    machine.run(machine.firewall.apply(machine.state.programs[program] + gate))
    machine.start()
    assert machine.kernel() == ISOLATE
    assert isinstance(machine.give(level(machine, "cut", sender=early)), StaleError)
    assert machine.kernel() == ISOLATE
    assert machine.give(level(machine, "cut")).changed, "who sees it may open it"


# -- the lock


def test_whoever_is_urgent_has_the_lock_next_and_the_rest_in_order():
    async def work():
        writer, order = PriorityLock(), []

        async def one(name, urgent):
            async with writer.hold(urgent):
                order.append(name)
                await asyncio.sleep(0)

        async with writer.hold():
            tasks = [asyncio.ensure_future(one(n, never)) for n in "abc"]
            tasks += [asyncio.ensure_future(one(n, always)) for n in "XY"]
            await asyncio.sleep(0)
            assert writer.urgent_waiting.is_set()
            tasks[0].cancel()
            tasks[3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["Y", "b", "c"]
        assert not writer.urgent_waiting.is_set()
        assert not writer.locked()

    asyncio.run(work())


def test_a_lock_that_was_handed_to_somebody_who_is_cancelled_goes_on():
    async def work():
        writer = PriorityLock()
        await writer.acquire()
        waiting = [asyncio.ensure_future(writer.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        writer._hand_over()
        waiting[0].cancel()
        async with asyncio.timeout(2):
            await waiting[1]
        assert waiting[0].cancelled()
        assert writer.locked()

    asyncio.run(work())


# -- an opening that is taken back


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


def test_a_reload_does_not_starve_behind_closings_without_end(machine):
    """It gives way to each at every step, and begins again; after some times it goes through."""
    machine.controller._live.lock.urgent_waiting.is_set = lambda: True
    assert machine.reload(simple(("svc-0", "svc-1"))).changed


@pytest.mark.parametrize("order", ["level", "rollback"])
def test_a_closing_that_repeats_what_stands_is_not_undone_by_what_was_sent_before_it(
    machine, order
):
    machine.set("isolate")

    async def both():
        async with machine.controller._live.lock.hold():
            sent = {
                "level": lambda: level(machine, "open"),
                "rollback": lambda: machine.controller.rollback(
                    1, actor=WHO, reason="", authorised_by=""
                ),
            }[order]()
            opening = asyncio.ensure_future(sent)
            await asyncio.sleep(0.05)
            again = asyncio.ensure_future(level(machine, "isolate"))
            await asyncio.sleep(0.05)
        assert not (await again).changed
        with pytest.raises(StaleError):
            await opening

    machine.run(both())
    assert machine.kernel() == ISOLATE
