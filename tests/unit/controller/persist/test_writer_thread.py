"""The write queue: in order, nothing twice, and no answer waits for long."""

import asyncio
import threading
import time

import pytest

from ecluse.controller.lock import PriorityLock, always
from ecluse.controller.persist.writer_thread import Write, WriteQueue
from ecluse.errors import StateError


def test_a_disk_that_hangs_gathers_no_rounds():
    """Each pass has all that waits: a thousand of them for a thousand lines would be a million."""
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


class Disk:
    """Jobs that append their name, in the order in which they reach the disk; `open` lets them
    through.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.open = threading.Event()
        self.full = False

    def job(self, label: str, name: str = "", **named) -> Write:
        def write() -> None:
            self.open.wait(5)
            if self.full:
                raise StateError("the disk is full")
            self.written.append(name or label)

        return Write(label, write, **named)


def record(work, seconds=20):
    """Run with a queue that waits for the disk so long: shortly only where it hangs."""

    async def run():
        recorder = WriteQueue(seconds)
        try:
            return await work(recorder)
        finally:
            recorder.close()

    return asyncio.run(run())


def test_what_hung_is_written_once_however_often_it_was_tried():
    disk = Disk()

    async def work(recorder):
        for number in range(4):
            assert await recorder.write([disk.job(f"line {number}", in_order=True)])
        disk.open.set()
        recorder._seconds = 20
        assert await recorder.write([]) == ()
        assert recorder.waiting == ()

    record(work, seconds=0.05)
    assert disk.written == [f"line {number}" for number in range(4)]


def test_what_failed_before_is_not_written_over_what_must_be_newer():
    disk = Disk()
    disk.open.set()
    disk.full = True

    async def work(recorder):
        await recorder.write(
            [disk.job("boot", "boot cut"), disk.job("line", "line cut", in_order=True)]
        )
        with pytest.raises(StateError, match="came before"):
            await recorder.write_or_fail([disk.job("boot", "boot open")])
        disk.full = False
        await recorder.write_or_fail(
            [disk.job("boot", "boot open"), disk.job("line 2", "line open", in_order=True)]
        )
        assert await recorder.write([]) == ()

    record(work)
    assert disk.written == ["boot cut", "line cut", "boot open", "line open"]


def test_an_opening_that_was_given_up_writes_nothing_more_once_the_disk_is_back():
    disk = Disk()

    async def work(recorder):
        with pytest.raises(StateError, match="did not take 'boot'"):
            await recorder.write_or_fail(
                [disk.job("boot", "boot open"), disk.job("line", "line open", in_order=True)]
            )
        disk.open.set()
        recorder._seconds = 20
        assert await recorder.write([disk.job("boot", "boot cut")]) == ()

    record(work, seconds=0.05)
    assert disk.written == ["boot open", "boot cut"], (
        "its first step hung and came through; it was taken back"
    )


def test_what_must_be_written_stops_at_the_first_that_fails():
    disk = Disk()
    disk.open.set()

    def full() -> None:
        raise StateError("the disk is full")

    async def work(recorder):
        with pytest.raises(StateError, match="full"):
            await recorder.write_or_fail([disk.job("one"), Write("two", full), disk.job("three")])
        assert recorder.waiting == ()

    record(work)
    assert disk.written == ["one"]


def test_what_no_answer_waits_for_is_written_soon_and_kept_when_it_fails():
    disk = Disk()
    disk.open.set()
    disk.full = True

    async def work(recorder):
        recorder.write_later([disk.job("filed", housekeeping=True)])
        assert recorder.waiting == ()
        await asyncio.sleep(0.1)
        assert recorder.waiting == ("filed",), "worth telling once it has failed"
        disk.full = False
        recorder.write_later([disk.job("second", housekeeping=True)])
        await asyncio.sleep(0.1)
        assert recorder.waiting == ()

    record(work)
    assert disk.written == ["filed", "second"]


def test_a_record_that_goes_wrong_in_an_unforeseen_way_is_said_and_stops_nothing():
    async def work(recorder):
        def wrong() -> None:
            raise ValueError("unforeseen")

        return await recorder.write([Write("odd", wrong), Write("fine", lambda: None)])

    (told,) = record(work)
    assert "odd" in told
    assert "unforeseen" in told


def test_after_its_end_nothing_is_recorded_and_that_is_a_state_error():
    async def work():
        recorder = WriteQueue(1)
        recorder.close()
        assert await recorder.write([Write("late", lambda: None)]) == (
            "late (the daemon is stopping)",
        )
        with pytest.raises(StateError):
            await WriteQueue.write_or_fail(recorder, [Write("late", lambda: None)])

    asyncio.run(work())


def test_whoever_waits_for_the_disk_makes_haste_when_a_closing_wants_the_lock():
    disk = Disk()

    async def work():
        writer = PriorityLock()
        recorder = WriteQueue(30, writer.urgent_waiting)

        async def opening():
            async with writer.hold():
                with pytest.raises(StateError):
                    await recorder.write_or_fail([disk.job("intent")])

        held = asyncio.ensure_future(opening())
        await asyncio.sleep(0.02)
        async with asyncio.timeout(2):
            async with writer.hold(always):
                assert not writer.urgent_waiting.is_set(), "nobody hurries the closing itself"
        await held
        disk.open.set()
        recorder.close()

    asyncio.run(work())


def test_a_line_that_comes_meanwhile_on_a_sound_disk_refuses_nothing():
    written = []

    async def work():
        recorder, loop = WriteQueue(10), asyncio.get_running_loop()
        queued = threading.Event()

        def other_line() -> None:
            time.sleep(0.05)
            written.append("other line")

        async def append() -> None:
            queued.set()
            await recorder.write([Write("other line", other_line, in_order=True)])

        def first() -> None:
            asyncio.run_coroutine_threadsafe(append(), loop)
            queued.wait(10)
            written.append("first")

        recorder.write_later([Write("first", first, in_order=True)])
        await recorder.write_or_fail([Write("boot", lambda: written.append("boot open"))])
        recorder.close()

    asyncio.run(work())
    assert written == ["first", "other line", "boot open"]
