"""Writes down who tried what he may not, in bounded lines a minute and a day: a flood of attempts
must not fill the disk.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ecluse.api.commands import Commands
from ecluse.api.log import Log
from ecluse.records import Actor

LINES_PER_UID = 10
"""Attempts of one uid that are written in full in one window."""
MAX_UIDS = 32
"""Uids told apart in one window; user namespaces give one person thousands."""
WINDOW = 60.0
"""Seconds."""
LINES_PER_UID_A_DAY, LINES_A_DAY = 100, 1000
"""Lines of one uid and of all in one day; the first of each further uid is written beyond that, as
many again at the most.
"""
DAY = 86400.0
"""Seconds."""

_Whose = tuple[int | None, bool]
"""A uid (None: of many), and whether it may be a web page's in that person's browser."""


@dataclass(slots=True)
class _Tally:
    actor: Actor
    what: str
    written: int = 0
    unwritten: int = 0


@dataclass(slots=True)
class _Day:
    """The lines of one day.

    told: that some are left out. left_out: attempts that are only counted, and the last of them.
    """

    lines: Counter[_Whose] = field(default_factory=Counter)
    told: bool = False
    left_out: int = 0
    last: tuple[Actor, str] | None = None

    def may(self, key: _Whose) -> bool:
        """Say whether another line of this uid fits, and count it."""
        own, every = self.lines[key], self.lines.total()
        fits = own < LINES_PER_UID_A_DAY and every < (LINES_A_DAY if own else 2 * LINES_A_DAY)
        if fits:
            self.lines[key] += 1
        return fits


class DeniedAttempts:
    """Passes attempts on to the audit log: the first few of each uid as they are, the rest as one
    line at the end.
    """

    def __init__(
        self, commands: Commands, log: Log, window: float = WINDOW, day: float = DAY
    ) -> None:
        self._commands = commands
        self._log = log
        self._window, self._length = window, day
        self._tallies: dict[_Whose, _Tally] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._day = _Day()
        self._midnight: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.total = 0

    async def record(
        self, actor: Callable[[], Actor], uid: int, what: str, *, page: bool = False
    ) -> None:
        """Record one attempt.

        Never raises: a full disk must not turn a refusal into something else.

        page: it may be a web page's in the browser of `uid`; counted apart from what that person
        tries.
        """
        self.total += 1
        key, tally = self._tally(actor, (uid, page), what)
        if tally.written < LINES_PER_UID and self._day.may(key):
            tally.written += 1
            # Shielded: who hangs up at once does not escape the log.
            await asyncio.shield(self._spawn(actor(), what))
        else:
            tally.unwritten += 1
            tally.what = what

    def _end_day(self) -> None:
        day, self._day, self._midnight = self._day, _Day(), None
        if day.last is not None:
            actor, what = day.last
            summary = f"{day.left_out} more attempts were left out, beyond the lines that a day has for them; the last: {what}"
            self._spawn(replace(actor, pid=0, command=""), summary)

    def _tally(
        self, actor: Callable[[], Actor], who: tuple[int, bool], what: str
    ) -> tuple[_Whose, _Tally]:
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(self._window, self._end_window)
        if self._midnight is None:
            self._midnight = loop.call_later(self._length, self._end_day)
        known = who in self._tallies or len(self._tallies) < MAX_UIDS
        key: _Whose = who if known else (None, who[1])
        if key not in self._tallies:
            self._tallies[key] = _Tally(actor(), what)
        return key, self._tallies[key]

    def _end_window(self) -> None:
        tallies, self._tallies, self._timer = self._tallies, {}, None
        for key, tally in tallies.items():
            if not tally.unwritten:
                continue
            whose = "" if key[0] is not None else " by many users"
            summary = f"{tally.unwritten} more attempts within {self._window:.0f} s{whose}, the last: {tally.what}"
            if self._day.may(key):
                self._spawn(replace(tally.actor, pid=0, command=""), summary)
            elif not self._day.told:
                self._day.told = True
                told = f"{summary}; a day has no room for more: others are counted, and told when it is over"
                self._spawn(replace(tally.actor, pid=0, command=""), told)
            else:
                self._day.last = tally.actor, tally.what
                self._day.left_out += tally.unwritten

    def _spawn(self, actor: Actor, what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._write(actor, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self, actor: Actor, what: str) -> None:
        try:
            await self._commands.forbidden(actor, what)
        except Exception as error:  # noqa: BLE001 - see record(): the refusal stands whatever the log says
            self._log.error(
                "a forbidden attempt could not be recorded", what=what, error=str(error)
            )

    async def close(self) -> None:
        """Write the summaries that are due and wait for what is being written."""
        if self._timer is not None:
            self._timer.cancel()
            self._end_window()
        if self._midnight is not None:
            self._midnight.cancel()
            self._end_day()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
