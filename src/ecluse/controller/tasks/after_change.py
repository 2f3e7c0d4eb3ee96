"""The work that may wait until a change was answered."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager

from ecluse.errors import EcluseError
from ecluse.records import Generation

_AFTER_ANSWER = 0.003
"""Seconds that the work after a change leaves to its answer: both want the same processor."""


class AfterChange:
    """Does the work after each change of the live state.

    Args:
        hold_lock: holds the lock of the live state for a block.
        run_aside: runs something beside everything else.
        on_change: called at once, for each change: who follows the levels or the policy.
        announce_purge: takes the generation after which connections will be ended.
        purge: ends connections that are no longer kept.
        prune: takes old policies out of the kernel; the lock is held meanwhile. KernelError.
        prepare_files: brings the prepared files to the live state.
        keep_previous_ready: loads the policy that a rollback would go back to.
        emit: takes the kind and the text of an event.
        at_last: called when all of it is done.
    """

    def __init__(
        self,
        *,
        hold_lock: Callable[[], AbstractAsyncContextManager[None]],
        run_aside: Callable[[Coroutine[object, object, object]], object],
        on_change: Sequence[Callable[[], None]],
        announce_purge: Callable[[Generation], None],
        purge: Callable[[Generation], Awaitable[None]],
        prune: Callable[[], Awaitable[None]],
        prepare_files: Callable[[], Awaitable[None]],
        keep_previous_ready: Callable[[], Coroutine[object, object, None]],
        emit: Callable[[str, str], None],
        at_last: Callable[[], None] = lambda: None,
    ) -> None:
        self._hold_lock = hold_lock
        self._run_aside = run_aside
        self._on_change = on_change
        self._announce_purge = announce_purge
        self._purge = purge
        self._prune = prune
        self._prepare_files = prepare_files
        self._keep_previous_ready = keep_previous_ready
        self._emit = emit
        self._at_last = at_last

    def begin(self, generation: Generation) -> None:
        """Begin the work after the change that made this generation."""
        for changed in self._on_change:
            changed()
        self._announce_purge(generation)
        self._run_aside(self._after_change(generation))

    async def _after_change(self, generation: Generation) -> None:
        await asyncio.sleep(_AFTER_ANSWER)
        await self._purge(generation)
        async with self._hold_lock():
            try:
                await self._prune()
            except EcluseError as error:
                self._emit(
                    "warning",
                    f"old allowlists could not be taken out of the kernel yet: {error.message}",
                )
        await self._prepare_files()
        await self._keep_previous_ready()
        self._at_last()
