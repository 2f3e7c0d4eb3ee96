"""The one writer's lock: changes go one at a time, and a closing never stands behind somebody who waits for the disk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Writer:
    """Held by whoever changes the live state or the kernel's table.

    hurry: set while somebody who must not wait (a closing, a healing, the end) wants the lock. Whoever holds it then
    stops waiting for the disk (`Recorder`); an opening that is not on disk by then does not count and is taken back.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._urgent = 0
        self.hurry = asyncio.Event()

    def locked(self) -> bool:
        """Say whether a change is under way."""
        return self._lock.locked()

    async def seize(self) -> None:
        """Take the lock as soon as can be, and keep it."""
        self._urgent += 1
        if self.locked():
            self.hurry.set()
        try:
            await self._lock.acquire()
        finally:
            self._urgent -= 1
            if not self._urgent:
                self.hurry.clear()

    @asynccontextmanager
    async def turn(self, *, urgent: bool = False) -> AsyncIterator[None]:
        """Hold the lock for a block. urgent: whoever holds it now is to make haste."""
        await (self.seize() if urgent else self._lock.acquire())
        try:
            yield
        finally:
            self._lock.release()
