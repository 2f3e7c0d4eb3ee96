"""Upkeep of the files: prepared ones follow the live state, old ones go, what waits is written."""

import time
from collections.abc import Callable
from dataclasses import replace

from ecluse.controller.live_state import LiveState
from ecluse.controller.persist.change_records import ChangeRecords

_UNTIDIED = 20
"""Records beyond the number that is kept, with which they are tidied away although somebody
commands just then.
"""
_BOOT_DELAY = 30.0
"""Seconds after which changed addresses reach the boot ruleset: it is a whole file each time."""


class RecordUpkeep:
    """Upkeep of the records. keep_generations: how many to keep."""

    def __init__(
        self,
        live: LiveState,
        records: ChangeRecords,
        keep_generations: int,
        emit: Callable[[str, str], None],
    ) -> None:
        self._live = live
        self._records = records
        self._keep_generations = keep_generations
        self._emit = emit
        self._tidying_due = True
        self._boot_due: float | None = None

    async def prepare_files(self) -> None:
        """Bring the prepared files to the live state, after a change of it."""
        self._tidying_due = True
        live = self._live.current
        writes = self._records.program_files(live.loaded), self._records.closed_ruleset(live.policy)
        await self._records.queue.write([replace(one, housekeeping=True) for one in writes])

    async def save_names(self) -> None:
        """Save the addresses that names have now."""
        await self._records.queue.write([self._records.known_names()])

    async def write_waiting(self) -> None:
        """Try what could not be written before, and say when all of it is on disk."""
        waiting = self._records.queue.waiting
        if waiting and not await self._records.queue.write([]):
            self._emit("warning", "what could not be recorded before is on disk now")

    async def tidy(self) -> None:
        """Delete old records, if something was recorded since the last time."""
        # Not right after a change: it reads every record, and the next command's record would wait
        # for it. But not never: where somebody commands all the time, they would fill the disk.
        many = len(self._records.generations) > self._keep_generations + _UNTIDIED
        if self._tidying_due and (many or not self._live.lock.locked()):
            self._tidying_due = False
            await self._records.queue.write([self._records.forget_old()])

    def renew_boot_soon(self) -> None:
        """Have the boot ruleset renewed, with the addresses of then."""
        if self._boot_due is None:
            self._boot_due = time.monotonic() + _BOOT_DELAY

    async def renew_boot_when_due(self) -> None:
        """Renew the boot ruleset if its time has come."""
        if self._boot_due is not None and time.monotonic() >= self._boot_due:
            await self.renew_boot()

    async def renew_boot(self) -> None:
        """Renew the boot ruleset now. The lock is waited for: a change writes it itself."""
        self._boot_due = None
        async with self._live.lock.hold():
            live = self._live.current
            writes = [
                self._records.program_files(live.loaded),
                self._records.boot_ruleset(live.loaded, live.generation),
            ]
        await self._records.queue.write(writes)
