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

URGENT_SECONDS = 0.1
"""How long it still waits once somebody urgent wants the lock: a sound disk is done by then."""

MOST_LABELS = 12
"""Labels that an answer names of what is not on disk; then it counts."""

LATER_SECONDS = 0.01
"""When that which no answer waits for is written.

An answer on its way then has the processor for itself.
"""


@dataclass(slots=True, eq=False)
class Write:
    """One durable write.

    label: what it records, in words; a newer write of the same label replaces a waiting one.
    in_order: nothing newer may be on disk before it (a line of the audit log).
    ahead: of these, one that may pass those which are not (the line of a closing, for which disk
    space is reserved).
    housekeeping: no record of what was done; worth naming only once it has failed.
    """

    label: str
    run: Callable[[], None]
    in_order: bool = False
    ahead: bool = False
    housekeeping: bool = False
    failed: bool = False
    written: bool = False


class _Pass:
    """One pass over the pending writes.

    begun: its snapshot is taken; later writes need another pass. future: the reasons of what could
    not be written, by label.
    """

    def __init__(self) -> None:
        self.begun = False
        self.future: asyncio.Future[Any] | None = None


class WriteQueue:
    """Writes in order; keeps what failed and tries it again before anything newer.

    urgent: while it is set, nobody waits for the disk longer than URGENT_SECONDS. While the disk
    hangs, at most one pass is under way and one more waits, however many ask: memory goes with the
    pending writes alone, which `ChangeRecords` bounds.
    """

    def __init__(self, seconds: float = SECONDS, urgent: asyncio.Event | None = None) -> None:
        self._seconds = seconds
        self._urgent = urgent or asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: dict[str, Write] = {}
        self._pass: _Pass | None = None

    @property
    def waiting(self) -> tuple[str, ...]:
        """Name what is not on disk yet; a long list is cut short and counted."""
        return _shortened(self._labels())

    @property
    def lines(self) -> int:
        """Count the lines of the audit log that wait."""
        return sum(one.in_order and not one.written for one in self._pending.values())

    def _labels(self, *, records_only: bool = False) -> list[str]:
        self._drop_written()
        return [
            label
            for label, one in self._pending.items()
            if not one.housekeeping or (one.failed and not records_only)
        ]

    def _drop_written(self) -> None:
        self._pending = {label: one for label, one in self._pending.items() if not one.written}

    async def write_or_fail(self, writes: Sequence[Write]) -> None:
        """Write all or fail: StateError at the first that does not reach the disk in time.

        Nothing is tried again. What failed before comes first: written later, it would undo what
        these say.
        """
        failed = await self.write(())
        # A line that came since is with the thread already, and so written before these.
        if failed and any(one.in_order for one in self._pending.values()):
            raise StateError(
                f"what came before is not on disk yet: {'; '.join(failed[:3])}", retry=True
            )
        for one in writes:
            self._pending.pop(one.label, None)
        given_up = threading.Event()
        future = self._begin(partial(_write_all, writes, given_up))
        self._pass = None  # what comes from here on is not written before these
        if not await self._in_time(future):
            given_up.set()
            label = next((one.label for one in writes if not one.written), writes[-1].label)
            message = f"the disk did not take '{label}' in time"
            raise StateError(message, retry=True, hint="look at the state directory's disk")
        future.result()

    def write_later(self, writes: Sequence[Write]) -> None:
        """Write what no answer waits for, after the answer; what fails is kept and tried again."""
        self._queue(writes)
        asyncio.get_running_loop().call_later(LATER_SECONDS, self._write_pending)

    def _write_pending(self) -> None:
        self._drop_written()
        # StateError: the daemon is stopping, and has written all it could.
        with contextlib.suppress(StateError):
            self._next_pass()

    def _next_pass(self) -> asyncio.Future[Any]:
        """Give a pass that will write all that waits now: one that has not begun, or a new one."""
        if self._pass is None or self._pass.begun or self._pass.future is None:
            self._pass = _Pass()
            self._pass.future = self._begin(partial(self._drain, self._pass))
        return self._pass.future

    def _drain(self, pass_: _Pass) -> dict[str, str]:
        """On the thread: write what waits by now."""
        pass_.begun = True
        return _write_each(list(self._pending.values()))

    def _queue(self, writes: Sequence[Write]) -> None:
        self._drop_written()
        for one in writes:
            self._pending.pop(one.label, None)
            self._pending[one.label] = one

    async def write(
        self, writes: Sequence[Write], *, records_only: bool = False
    ) -> tuple[str, ...]:
        """Write what can be written; the rest stays in memory to be tried again.

        Gives the labels of the rest with the reasons. records_only: without housekeeping.
        """
        self._queue(writes)
        if not self._pending:
            return ()
        try:
            future = self._next_pass()
        except StateError as error:
            return _shortened([f"{label} ({error.message})" for label in self._pending])
        if not await self._in_time(future):
            # The thread goes on, and what it gets written is not written again.
            labels = _shortened(self._labels(records_only=records_only))
            return tuple(f"{label} (the disk has not taken it yet)" for label in labels)
        failed: dict[str, str] = future.result()
        records = {label for label, one in self._pending.items() if not one.housekeeping}
        named = [label for label in failed if label in records or not records_only]
        self._drop_written()
        return _shortened([f"{label} ({failed[label]})" for label in named])

    def _begin(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # after `close`
            raise StateError("the daemon is stopping", retry=True) from error
        future.add_done_callback(_retrieve_exception)
        return future

    async def _in_time(self, future: asyncio.Future[Any]) -> bool:
        """Wait for the disk, less while somebody urgent waits; the thread goes on either way."""
        urgent = asyncio.ensure_future(self._urgent.wait())
        try:
            either: set[asyncio.Future[Any]] = {future, urgent}
            await asyncio.wait(either, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if urgent.done() and not future.done():
                await asyncio.wait({future}, timeout=URGENT_SECONDS)
        finally:
            urgent.cancel()
        return future.done()

    def close(self) -> None:
        """Let the thread end once it has written what it was given."""
        self._thread.shutdown(wait=False)


def _write_all(writes: Sequence[Write], given_up: threading.Event) -> None:
    for one in writes:
        # Given up: the change is being taken back, and its records must not come after that.
        if given_up.is_set():
            return
        one.run()
        one.written = True


def _shortened(labels: Sequence[str]) -> tuple[str, ...]:
    more = len(labels) - MOST_LABELS
    return (*labels[:MOST_LABELS], f"and {more} more") if more > 0 else tuple(labels)


def _write_each(writes: list[Write]) -> dict[str, str]:
    """Write what can be written; give why not, by label, for the rest."""
    failed: dict[str, str] = {}
    # Why lines wait, by `ahead`: one try a pass is enough, and they stay in order.
    blocked = {False: "", True: ""}
    for one in writes:
        # An earlier pass that hung may have come to it meanwhile.
        if one.written:
            continue
        why = blocked[one.ahead] if one.in_order else ""
        if not why:
            why = _try_write(one)
        if why:
            one.failed, failed[one.label] = True, why
        if why and one.in_order:
            blocked |= {False: why} if not one.ahead else {False: why, True: why}
    return failed


def _try_write(one: Write) -> str:
    """Write one; give why that failed, in words."""
    try:
        one.run()
    except StateError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - a closing is done, whatever its record meets
        return repr(error)
    one.written = True
    return ""


def _retrieve_exception(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
