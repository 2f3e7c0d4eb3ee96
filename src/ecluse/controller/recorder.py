"""Durable records, in order, on one thread: a slow disk delays an answer, never a cut."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ecluse.errors import StateError

SECONDS = 5.0
"""How long an answer waits for the disk. A cut that the disk has not taken by then is answered as done, not recorded."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One durable write. label: what it records, in words; a newer job of the same label replaces a waiting one."""

    label: str
    write: Callable[[], None]


class Recorder:
    """Writes jobs in order; keeps what failed and tries it again before anything newer."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._waiting: dict[str, Job] = {}
        self._written: set[Job] = set()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Name what is not on disk yet."""
        self._settle()
        return tuple(self._waiting)

    def _settle(self) -> None:
        self._waiting = {label: job for label, job in self._waiting.items() if job not in self._written}
        self._written.clear()

    async def must(self, jobs: Sequence[Job]) -> None:
        """Write all or fail: StateError at the first that does not reach the disk in time; nothing is tried again."""
        loop = asyncio.get_running_loop()
        for job in jobs:
            future = loop.run_in_executor(self._thread, job.write)
            try:
                await asyncio.wait_for(asyncio.shield(future), self._seconds)
            except TimeoutError:
                future.add_done_callback(_swallow)
                message = f"the disk did not take '{job.label}' within {self._seconds:g} s"
                raise StateError(message, retry=True, hint="look at the state directory's disk") from None

    async def should(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """Write what can be; give the labels of what could not, which stays in memory to be tried again."""
        self._settle()
        for job in jobs:
            self._waiting.pop(job.label, None)
            self._waiting[job.label] = job
        future = asyncio.get_running_loop().run_in_executor(
            self._thread, self._drain, list(self._waiting.values())
        )
        try:
            failed = await asyncio.wait_for(asyncio.shield(future), self._seconds)
        except TimeoutError:
            # The thread goes on, and what it gets written is not written again.
            future.add_done_callback(_swallow)
            return tuple(f"{label} (the disk does not answer)" for label in self._waiting)
        self._settle()
        return tuple(f"{label} ({why})" for label, why in failed.items())

    def _drain(self, jobs: list[Job]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for job in jobs:
            try:
                job.write()
            except StateError as error:
                failed[job.label] = error.message
            else:
                self._written.add(job)
        return failed

    def close(self) -> None:
        """Let the thread end once it has written what it was given."""
        self._thread.shutdown(wait=False)


def _swallow(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
