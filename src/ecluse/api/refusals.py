"""Writes down who tried what he may not, in bounded lines: a flood of attempts must not fill the disk."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from ecluse.api.commands import Commands
from ecluse.api.log import Log
from ecluse.records import Actor

LINES_PER_UID = 10
"""Attempts of one uid that are written in full in one window."""
MAX_UIDS = 32
"""Uids told apart in one window; user namespaces give one person thousands."""
WINDOW = 60.0
"""Seconds."""


@dataclass(slots=True)
class _Tally:
    actor: Actor
    what: str
    written: int = 0
    unwritten: int = 0


class Refusals:
    """Passes attempts on to the audit log: the first few of each uid as they are, the rest as one line at the end."""

    def __init__(self, commands: Commands, log: Log, window: float = WINDOW) -> None:
        self._commands = commands
        self._log = log
        self._window = window
        self._tallies: dict[tuple[int | None, bool], _Tally] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.total = 0

    async def record(self, actor: Callable[[], Actor], uid: int, what: str, *, page: bool = False) -> None:
        """Record one attempt. Never raises: a full disk must not turn a refusal into something else.

        page: it may be a web page's in the browser of `uid`; counted apart from what that person tries.
        """
        self.total += 1
        tally = self._tally(actor, (uid, page), what)
        if tally.written < LINES_PER_UID:
            tally.written += 1
            # Shielded: who hangs up at once does not escape the log.
            await asyncio.shield(self._spawn(actor(), what))
        else:
            tally.unwritten += 1
            tally.what = what

    def _tally(self, actor: Callable[[], Actor], who: tuple[int, bool], what: str) -> _Tally:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._window, self._end_window)
        known = who in self._tallies or len(self._tallies) < MAX_UIDS
        key = who if known else (None, who[1])
        if key not in self._tallies:
            self._tallies[key] = _Tally(actor(), what)
        return self._tallies[key]

    def _end_window(self) -> None:
        tallies, self._tallies, self._timer = self._tallies, {}, None
        for key, tally in tallies.items():
            if tally.unwritten:
                whose = "" if key[0] is not None else " by many users"
                summary = f"{tally.unwritten} more attempts within {self._window:.0f} s{whose}, the last: {tally.what}"
                self._spawn(replace(tally.actor, pid=0, command=""), summary)

    def _spawn(self, actor: Actor, what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._write(actor, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self, actor: Actor, what: str) -> None:
        try:
            await self._commands.forbidden(actor, what)
        except Exception as error:  # noqa: BLE001 - see record(): the refusal stands whatever the log says
            self._log.error("a forbidden attempt could not be recorded", what=what, error=str(error))

    async def close(self) -> None:
        """Write the summaries that are due and wait for what is being written."""
        if self._timer is not None:
            self._timer.cancel()
            self._end_window()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
