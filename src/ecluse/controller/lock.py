"""The lock of the live state: one change at a time, and a closing before all that waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

Urgency = Callable[[], int]
"""Says how urgent a waiting command is now: 2 closes something, 1 repeats a closing, 0 can wait.

It is asked again whenever the lock is handed over: whether a command closes anything depends on
the state that stands by then.
"""


def always() -> int:
    """Be as urgent as a closing."""
    return 2


def never() -> int:
    """Wait for those that came before."""
    return 0


class PriorityLock:
    """Held while the live state or the kernel's table is changed.

    urgent_waiting: set while somebody who must not wait (a closing, a restoration of the table, the
    daemon's end) wants the lock. Its holder then stops waiting for the disk (`WriteQueue`); an
    opening that is not on disk by then does not count and is taken back.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[tuple[Urgency, asyncio.Future[None]]] = []
        self.urgent_waiting = asyncio.Event()

    def locked(self) -> bool:
        """Say whether a change is under way."""
        return self._taken

    async def acquire(self, urgency: Urgency = always) -> None:
        """Take the lock, and keep it.

        The most urgent of those that wait is next; of equally urgent ones the first.
        """
        if not self._taken:
            self._taken = True
            return
        mine = urgency, asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if urgency():
            self.urgent_waiting.set()
        try:
            await mine[1]
        except asyncio.CancelledError:
            if mine[1].cancelled():
                self._waiting.remove(mine)
                self._update_urgent_waiting()
            else:  # it was handed over in this very moment
                self._hand_over()
            raise

    def _hand_over(self) -> None:
        waiting = [one for one in self._waiting if not one[1].done()]
        self._taken = bool(waiting)
        if waiting:
            next_one = max(waiting, key=lambda one: one[0]())
            self._waiting.remove(next_one)
            next_one[1].set_result(None)
        self._update_urgent_waiting()

    def _update_urgent_waiting(self) -> None:
        if any(urgency() for urgency, future in self._waiting if not future.done()):
            self.urgent_waiting.set()
        else:
            self.urgent_waiting.clear()

    @asynccontextmanager
    async def hold(self, urgency: Urgency = never) -> AsyncIterator[None]:
        """Hold the lock for a block. urgency: while it is not 0, the holder now must not linger."""
        await self.acquire(urgency)
        try:
            yield
        finally:
            self._hand_over()

    @asynccontextmanager
    async def hold_urgently(self) -> AsyncIterator[None]:
        """Hold the lock for a block, as urgent as a closing."""
        async with self.hold(always):
            yield
