"""Commands that wait for each other: a closing goes first, an opening not after a closing."""

import asyncio
import threading
from dataclasses import replace

import pytest

from ecluse.errors import (
    EcluseError,
    GivenUpError,
    NotFoundError,
    StaleError,
    StateError,
)
from ecluse.policy import (
    Policy,
)
from ecluse.records import Action, Sender
from ecluse.ruleset import switch
from tests.unit.controller.machine import CUT, OPEN, allowlist, command, simple
from tests.unit.ruleset.policies import SITE, ZONES

ISOLATE = dict.fromkeys(OPEN, "isolate")


def level(machine, name, *zones, expect=None, **more):
    return machine.controller.set_level(name, zones or None, command(**more), expect=expect)


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


GONE = Sender(gone=lambda: True)


@pytest.mark.parametrize("order", ["level", "rollback", "reload"])
def test_what_opens_is_left_out_when_nobody_waits_for_it(machine, order):
    machine.set("cut")
    work = {
        "level": lambda: level(machine, "open", sender=GONE),
        "rollback": lambda: machine.controller.rollback(1, command(Action.ROLLBACK, sender=GONE)),
        "reload": lambda: machine.controller.reload(command(Action.RELOAD, sender=GONE)),
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
        "rollback": lambda: machine.controller.rollback(2, command(Action.ROLLBACK, sender=GONE)),
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
        "rollback": lambda: machine.controller.rollback(1, command(Action.ROLLBACK), expect=shown),
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
    gate = switch.switch_text(simple(), switch.BOOT_SLOT, ISOLATE)
    machine.run(machine.firewall.apply(machine.state.programs[program] + gate))
    machine.start()
    assert machine.kernel() == ISOLATE
    assert isinstance(machine.give(level(machine, "cut", sender=early)), StaleError)
    assert machine.kernel() == ISOLATE
    assert machine.give(level(machine, "cut")).changed, "who sees it may open it"


@pytest.mark.parametrize("order", ["level", "rollback"])
def test_a_closing_that_repeats_what_stands_is_not_undone_by_what_was_sent_before_it(
    machine, order
):
    machine.set("isolate")

    async def both():
        async with machine.controller._live.lock.hold():
            sent = {
                "level": lambda: level(machine, "open"),
                "rollback": lambda: machine.controller.rollback(1, command(Action.ROLLBACK)),
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


def test_unknown_level_and_zone_are_said_and_change_nothing(machine):
    for answer in (machine.set("shut"), machine.set("cut", "cellar")):
        assert isinstance(answer, NotFoundError)
        assert answer.hint
    assert machine.kernel() == OPEN


def test_reload_with_another_zone_is_never_less_closed(machine):
    machine.set("cut")
    more = replace(
        SITE,
        zones=(*SITE.zones, replace(SITE.zones[0], name="new", interfaces=("new0",), subnets=())),
    )
    answer = machine.reload(Policy(more, simple().services))
    assert answer.generation.levels["new"] == "cut"


def test_rollback_to_an_older_allowlist_and_back(machine):
    machine.set("cut")
    machine.reload(simple(("svc-0", "svc-1")))
    assert [s.name for s in machine.status().services] == ["svc-0", "svc-1"]
    machine.rollback()
    assert [s.name for s in machine.status().services] == ["svc-0"]
    machine.rollback()
    assert [s.name for s in machine.status().services] == ["svc-0", "svc-1"]
    assert machine.kernel() == CUT


def test_a_rollback_that_a_cut_overtook_opens_nothing(machine):
    machine.reload(allowlist("lab", "treasury"))
    controller = machine.controller
    machine.run(controller._table.prune({controller._live.current.loaded.digest}))
    reading, go_on = threading.Event(), threading.Event()
    read = machine.state.read_policy

    def slowly(digest):
        reading.set()
        go_on.wait(5)
        return read(digest)

    machine.state.read_policy = slowly

    async def both():
        back = asyncio.ensure_future(controller.rollback(1, command(Action.ROLLBACK)))
        await asyncio.to_thread(reading.wait, 5)
        await controller.set_level("cut", None, command())
        go_on.set()
        with pytest.raises(StaleError, match="came first"):
            await back

    machine.run(both())
    machine.settle()
    assert machine.kernel() == CUT
