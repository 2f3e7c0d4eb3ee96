"""Records denied attempts in the audit log, in a bounded number of lines a minute and a day.

A flood of attempts must not fill the disk.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from structlog.typing import FilteringBoundLogger

from ecluse.records import Actor

LINES_PER_UID = 10
"""Attempts of one uid that are written in full in one window."""
MAX_UIDS = 32
"""Uids that are counted apart in one window; user namespaces give one person thousands."""
WINDOW = 60.0
"""Seconds."""
LINES_PER_UID_A_DAY, LINES_A_DAY = 100, 1000
"""Lines of one uid and of all in one day.

Beyond LINES_A_DAY only the first line of each further uid is written, and at most as many again.
"""
DAY = 86400.0
"""Seconds."""

_Source = tuple[int | None, bool]
"""A uid (None: of many), and whether it may be a web page in that person's browser."""


@dataclass(slots=True)
class _WindowCount:
    """The attempts of one source in one window. last: what the last one tried."""

    actor: Actor
    last: str
    written: int = 0
    unwritten: int = 0


@dataclass(slots=True)
class _Day:
    """The lines of one day.

    limit_logged: a line says that the day's limit was reached.
    left_out: attempts that are only counted since, and the last of them.
    """

    lines: Counter[_Source] = field(default_factory=Counter)
    limit_logged: bool = False
    left_out: int = 0
    last: tuple[Actor, str] | None = None

    def take_line(self, source: _Source) -> bool:
        """Count one more line of this source; False when the day has none left for it."""
        own, every = self.lines[source], self.lines.total()
        fits = own < LINES_PER_UID_A_DAY and every < (LINES_A_DAY if own else 2 * LINES_A_DAY)
        if fits:
            self.lines[source] += 1
        return fits


class DeniedAttempts:
    """Writes the first attempts of each uid as they are, the others as one line for each window.

    Args:
        append: writes one attempt to the audit log.
        log: where a failure of that is reported.
        window: seconds.
        day: seconds.
    """

    def __init__(
        self,
        append: Callable[[Actor, str], Awaitable[None]],
        log: FilteringBoundLogger,
        window: float = WINDOW,
        day: float = DAY,
    ) -> None:
        self._append = append
        self._log = log
        self._window_seconds, self._day_seconds = window, day
        self._counts: dict[_Source, _WindowCount] = {}
        self._window_timer: asyncio.TimerHandle | None = None
        self._day = _Day()
        self._day_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.total = 0

    async def record_attempt(
        self, actor: Callable[[], Actor], uid: int, what: str, *, page: bool = False
    ) -> None:
        """Record one attempt. It never raises: a full disk must not change the answer.

        Args:
            actor: describes the peer; called only when a line needs it.
            uid: of the peer.
            what: the request.
            page: it may come from a web page in the browser of `uid`. Such attempts are counted
                apart from what that person tries.
        """
        self.total += 1
        source, count = self._count_of(actor, (uid, page), what)
        if count.written < LINES_PER_UID and self._day.take_line(source):
            count.written += 1
            # Shielded: a peer that hangs up at once does not escape the log.
            await asyncio.shield(self._start_writing(actor(), what))
        else:
            count.unwritten += 1
            count.last = what

    def _count_of(
        self, actor: Callable[[], Actor], wanted: tuple[int, bool], what: str
    ) -> tuple[_Source, _WindowCount]:
        loop = asyncio.get_running_loop()
        if self._window_timer is None:
            self._window_timer = loop.call_later(self._window_seconds, self._end_window)
        if self._day_timer is None:
            self._day_timer = loop.call_later(self._day_seconds, self._end_day)
        known = wanted in self._counts or len(self._counts) < MAX_UIDS
        source: _Source = wanted if known else (None, wanted[1])
        if source not in self._counts:
            self._counts[source] = _WindowCount(actor(), what)
        return source, self._counts[source]

    def _end_window(self) -> None:
        counts, self._counts, self._window_timer = self._counts, {}, None
        for source, count in counts.items():
            if not count.unwritten:
                continue
            whose = "" if source[0] is not None else " by many users"
            summary = (
                f"{count.unwritten} more attempts within {self._window_seconds:.0f} s{whose}, "
                f"the last: {count.last}"
            )
            if self._day.take_line(source):
                self._write_summary(count.actor, summary)
            elif not self._day.limit_logged:
                self._day.limit_logged = True
                self._write_summary(
                    count.actor,
                    f"{summary}; a day has no room for more: "
                    "others are counted, and told when it is over",
                )
            else:
                self._day.last = count.actor, count.last
                self._day.left_out += count.unwritten

    def _end_day(self) -> None:
        day, self._day, self._day_timer = self._day, _Day(), None
        if day.last is not None:
            actor, what = day.last
            self._write_summary(
                actor,
                f"{day.left_out} more attempts were left out, "
                f"beyond the lines that a day has for them; the last: {what}",
            )

    def _write_summary(self, actor: Actor, summary: str) -> None:
        # Several processes may be behind one line.
        self._start_writing(replace(actor, pid=0, command=""), summary)

    def _start_writing(self, actor: Actor, what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._write(actor, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self, actor: Actor, what: str) -> None:
        try:
            await self._append(actor, what)
        except Exception as error:  # noqa: BLE001 - see record_attempt: the answer stays the same
            self._log.error("a denied attempt could not be recorded", what=what, error=str(error))

    async def close(self) -> None:
        """Write the summaries that are due and wait for what is being written."""
        if self._window_timer is not None:
            self._window_timer.cancel()
            self._end_window()
        if self._day_timer is not None:
            self._day_timer.cancel()
            self._end_day()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
