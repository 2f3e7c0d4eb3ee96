"""A disk that takes nothing for long: what waits is bounded, and what was left out is counted and
said.
"""

import asyncio
import threading
from collections import Counter

import pytest

from ecluse.controller.persist import change_records
from ecluse.controller.persist.writer_thread import MOST_LABELS, Write, WriteQueue
from ecluse.errors import StateError
from ecluse.policy import Policy
from ecluse.records import Actor
from tests.unit.controller.machine import Machine
from tests.unit.controller.test_rough import allowlist

MOST = 50
STRANGER = Actor(65_534, "nobody", 1, "curl")


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(change_records, "MOST_LINES", MOST)
    policy: Policy = allowlist("laboratory")
    machine = Machine(policy)
    machine.start()
    yield machine
    machine.close()


def flood(machine: Machine, times: int) -> None:
    async def attempts() -> None:
        for number in range(times):
            await machine.controller.forbidden(STRANGER, f"attempt {number}")

    machine.run(attempts())


def test_closings_alone_may_use_the_room_that_is_kept_for_lines(machine):
    machine.set("cut")
    machine.set("open")
    machine.firewall.tamper("delete table inet ecluse")
    machine.settle()
    machine.set("isolate")
    events = {record.event for record in machine.audit.records}
    assert {"start", "level", "intent", "tamper"} <= events
    assert [dict(record.levels)["care"] for record in machine.audit.spare] == ["cut", "isolate"]


def test_the_line_of_a_closing_passes_those_that_have_no_room_and_stays_the_newest_to_tell_levels(
    machine,
):
    append, full = machine.audit.append, [True]

    def on_a_full_disk(record, *, spare=False):
        if full[0] and not spare:
            raise StateError("the disk is full")
        append(record, spare=spare)

    machine.audit.append = on_a_full_disk
    machine.firewall.tamper("delete table inet ecluse")
    machine.settle()
    change = machine.set("cut")
    assert machine.audit.records[-1].event == "level"
    assert machine.audit.records[-1].levels == change.generation.levels
    full[0] = False
    machine.set("isolate", "care")
    late = [record for record in machine.audit.records if record.event == "tamper"]
    assert [record.levels for record in late] == [None]


def test_a_flood_of_attempts_on_a_full_disk_is_kept_to_a_number_and_counted(machine):
    machine.audit.fail["append"] = StateError("the disk is full")
    recorder = machine.controller._records.queue
    flood(machine, 3 * MOST)
    assert recorder.lines == MOST + 1
    change = machine.set("cut")
    assert any("audit line 'level'" in words or "more" in words for words in change.unrecorded)
    assert len(change.unrecorded) <= MOST_LABELS + 1
    flood(machine, MOST)
    assert recorder.lines == MOST + 2, "the line of a command is kept all the same"
    assert len(machine.status().warnings[0]) < 2000
    del machine.audit.fail["append"]
    flood(machine, 1)
    assert machine.status().recorded
    events = Counter(record.event for record in machine.audit.records)
    assert events["forbidden"] == MOST
    assert events["level"] == 1
    (left_out,) = [record.what for record in machine.audit.records if record.event == "left-out"]
    assert f"{3 * MOST + 1} lines could not be kept ({3 * MOST + 1} of 'forbidden')" in left_out
    assert not machine.controller._records._left_out
    flood(machine, 3)
    events = Counter(record.event for record in machine.audit.records)
    assert (events["forbidden"], events["left-out"]) == (MOST + 3, 1), "afterwards all is as before"


def test_even_commands_are_bounded(machine):
    machine.audit.fail["append"] = StateError("the disk is full")
    for _ in range(3 * MOST):
        machine.run(
            machine.controller.set_level(
                "cut", None, actor=STRANGER, reason="again", authorised_by=""
            )
        )
    assert machine.controller._records.queue.lines == 2 * MOST + 1


def test_a_disk_that_hangs_gathers_no_rounds():
    """Each round holds all that waits: a thousand of them for a thousand lines would be a million."""
    passes = threading.Event()
    written = []

    async def work() -> None:
        recorder = WriteQueue(0.001)
        jobs = [
            Write(
                f"line {number}",
                lambda number=number: (passes.wait(20), written.append(number)),
                in_order=True,
            )
            for number in range(500)
        ]
        for job in jobs:
            assert await recorder.write([job])
        waiting = recorder._thread._work_queue.qsize()
        passes.set()
        recorder._seconds = 10
        assert await recorder.write([]) == ()
        assert waiting <= 1
        recorder.close()

    asyncio.run(work())
    assert written == list(range(500)), "each once, in order"


def test_what_comes_after_what_must_be_written_is_not_written_before_it():
    passes = threading.Event()
    written = []

    def job(label: str, name: str) -> Write:
        return Write(label, lambda: (passes.wait(20), written.append(name)))

    async def work() -> None:
        recorder = WriteQueue(0.02)
        await recorder.write([job("first", "first")])  # under way
        await recorder.write([job("other", "other")])  # the round that waits
        must = asyncio.ensure_future(recorder.write_or_fail([job("boot", "boot open")]))
        await asyncio.sleep(0.06)
        recorder._seconds = 10
        later = asyncio.ensure_future(recorder.write([job("boot", "boot cut")]))
        await asyncio.sleep(0.01)
        passes.set()
        await asyncio.gather(must, later, return_exceptions=True)
        recorder.close()

    asyncio.run(work())
    assert written[-1] == "boot cut"


def test_lines_stay_in_order_and_one_try_a_round_is_enough():
    written, tries = [], []
    full = {"a", "c"}

    def job(name: str, **more) -> Write:
        def write() -> None:
            tries.append(name)
            if name in full:
                raise StateError("the disk is full")
            written.append(name)

        return Write(name, write, in_order=True, **more)

    async def work() -> None:
        recorder = WriteQueue(5)
        jobs = [job("a"), job("b"), job("c", ahead=True), job("d", ahead=True), job("e")]
        assert await recorder.write(jobs) == tuple(f"{name} (the disk is full)" for name in "abcde")
        assert tries == ["a", "c"]
        full.remove("c")
        assert await recorder.write([]) == tuple(f"{name} (the disk is full)" for name in "abe")
        assert written == ["c", "d"], (
            "a closing's line passes refused attempts, and no other closing's"
        )
        full.clear()
        assert await recorder.write([]) == ()
        recorder.close()

    asyncio.run(work())
    assert written == ["c", "d", "a", "b", "e"]
