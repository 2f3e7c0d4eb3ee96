"""Durable records, in order, on one thread: a slow disk delays an answer, never a cut."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from ecluse.errors import StateError

SECONDS = 5.0
"""How long an answer waits for the disk.

A cut that the disk has not taken by then is answered as done, not recorded.
"""

HASTE = 0.1
"""How long it still waits once somebody who must not wait wants the writer's lock, in seconds: a
sound disk is done by then.
"""

MOST_TOLD = 12
"""Labels that an answer names of what is not on disk; then it counts."""

SOON = 0.01
"""When that which no answer waits for is written, in seconds: an answer on its way shares the
processor with nobody.
"""


@dataclass(slots=True, eq=False)
class Write:
    """One durable write.

    label: what it records, in words; a newer job of the same label replaces a waiting one.

    in_order: nothing newer may be on disk before it (a line of the audit log).
    ahead: of these, one that may pass those which are not (the line of a closing, which has room
    kept for it).
    housekeeping: no record of what was done; worth telling only once it has failed.
    """

    label: str
    write: Callable[[], None]
    in_order: bool = False
    ahead: bool = False
    housekeeping: bool = False
    failed: bool = False
    written: bool = False


class _Pass:
    """One going through all that waits; `future` is its outcome.

    begun: what comes now is not in it any more.
    """

    def __init__(self) -> None:
        self.begun = False
        self.future: asyncio.Future[Any] | None = None


class WriteQueue:
    """Writes jobs in order; keeps what failed and tries it again before anything newer.

    hurry: while it is set, nobody waits for the disk longer than HASTE (`Writer`). While the disk
    hangs, at most one round is under way and one more waits, however many ask: memory goes with
    what waits alone, which the ledger bounds.
    """

    def __init__(self, seconds: float = SECONDS, hurry: asyncio.Event | None = None) -> None:
        self._seconds = seconds
        self._hurry = hurry or asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._waiting: dict[str, Write] = {}
        self._round: _Pass | None = None

    @property
    def waiting(self) -> tuple[str, ...]:
        """Name what is not on disk yet; a long list is cut short and counted."""
        return _told(self._labels())

    @property
    def lines(self) -> int:
        """Count the lines of the audit log that wait."""
        return sum(job.in_order and not job.written for job in self._waiting.values())

    def _labels(self, *, records_only: bool = False) -> list[str]:
        self._settle()
        return [
            label
            for label, job in self._waiting.items()
            if not job.housekeeping or (job.failed and not records_only)
        ]

    def _settle(self) -> None:
        self._waiting = {label: job for label, job in self._waiting.items() if not job.written}

    async def must(self, jobs: Sequence[Write]) -> None:
        """Write all or fail: StateError at the first that does not reach the disk in time; nothing
        is tried again.

        What failed before comes first: written later, it would undo what these say.
        """
        failed = await self.should(())
        if any(job.in_order for job in self._waiting.values()):
            raise StateError(
                f"what came before is not on disk yet: {'; '.join(failed[:3])}", retry=True
            )
        for job in jobs:
            self._waiting.pop(job.label, None)
        given_up = threading.Event()
        future = self._begin(partial(_write_all, jobs, given_up))
        self._round = None  # what comes from here on is not written before these
        if not await self._in_time(future):
            given_up.set()
            label = next((job.label for job in jobs if not job.written), jobs[-1].label)
            message = f"the disk did not take '{label}' in time"
            raise StateError(message, retry=True, hint="look at the state directory's disk")
        future.result()

    def later(self, jobs: Sequence[Write]) -> None:
        """Write what no answer waits for, out of its way; what could not be stays in memory to be
        tried again.
        """
        self._queue(jobs)
        asyncio.get_running_loop().call_later(SOON, self._write_waiting)

    def _write_waiting(self) -> None:
        self._settle()
        with contextlib.suppress(
            StateError
        ):  # the daemon is stopping, and has written all it could
            self._next_round()

    def _next_round(self) -> asyncio.Future[Any]:
        """Give the round that will write all that waits now: the one that has not begun, or a new
        one.
        """
        if self._round is None or self._round.begun or self._round.future is None:
            self._round = _Pass()
            self._round.future = self._begin(partial(self._drain, self._round))
        return self._round.future

    def _drain(self, round_: _Pass) -> dict[str, str]:
        """On the thread: write what waits by now."""
        round_.begun = True
        return _write_what_can_be(list(self._waiting.values()))

    def _queue(self, jobs: Sequence[Write]) -> None:
        self._settle()
        for job in jobs:
            self._waiting.pop(job.label, None)
            self._waiting[job.label] = job

    async def should(self, jobs: Sequence[Write], *, records_only: bool = False) -> tuple[str, ...]:
        """Write what can be; give the labels of what could not, which stays in memory to be tried
        again.

        records_only: tell nothing of housekeeping; it is no record of what was done.
        """
        self._queue(jobs)
        if not self._waiting:
            return ()
        try:
            future = self._next_round()
        except StateError as error:
            return _told([f"{label} ({error.message})" for label in self._waiting])
        if not await self._in_time(future):
            # The thread goes on, and what it gets written is not written again.
            labels = _told(self._labels(records_only=records_only))
            return tuple(f"{label} (the disk has not taken it yet)" for label in labels)
        failed: dict[str, str] = future.result()
        records = {label for label, job in self._waiting.items() if not job.housekeeping}
        told = [label for label in failed if label in records or not records_only]
        self._settle()
        return _told([f"{label} ({failed[label]})" for label in told])

    def _begin(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # after `close`
            raise StateError("the daemon is stopping", retry=True) from error
        future.add_done_callback(_swallow)
        return future

    async def _in_time(self, future: asyncio.Future[Any]) -> bool:
        """Wait for the disk, less patiently in a hurry; the thread goes on in either case."""
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            either: set[asyncio.Future[Any]] = {future, hurried}
            await asyncio.wait(either, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if hurried.done() and not future.done():
                await asyncio.wait({future}, timeout=HASTE)
        finally:
            hurried.cancel()
        return future.done()

    def close(self) -> None:
        """Let the thread end once it has written what it was given."""
        self._thread.shutdown(wait=False)


def _write_all(jobs: Sequence[Write], given_up: threading.Event) -> None:
    for job in jobs:
        if (
            given_up.is_set()
        ):  # what nobody waits for any more is taken back, and must not come after that
            return
        job.write()
        job.written = True


def _told(labels: Sequence[str]) -> tuple[str, ...]:
    more = len(labels) - MOST_TOLD
    return (*labels[:MOST_TOLD], f"and {more} more") if more > 0 else tuple(labels)


def _write_what_can_be(jobs: list[Write]) -> dict[str, str]:
    failed: dict[str, str] = {}
    held_up = {
        False: "",
        True: "",
    }  # why lines wait, by `ahead`: one try a round is enough, and they stay in order
    for job in jobs:
        # An earlier round that hung may have come to it meanwhile.
        if job.written:
            continue
        why = held_up[job.ahead] if job.in_order else ""
        if not why:
            why = _try(job)
        if why:
            job.failed, failed[job.label] = True, why
        if why and job.in_order:
            held_up |= {False: why} if not job.ahead else {False: why, True: why}
    return failed


def _try(job: Write) -> str:
    """Write one; give why that failed, in words."""
    try:
        job.write()
    except StateError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - a closing is done, whatever its record meets
        return repr(error)
    job.written = True
    return ""


def _swallow(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
