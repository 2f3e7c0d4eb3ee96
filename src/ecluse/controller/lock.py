"""The one writer's lock: changes go one at a time, and what closes goes before all that waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

Urgent = Callable[[], int]
"""Says how urgent somebody is now, 0 for who waits his turn: what a command closes depends on what
stands when it is asked.
"""


def always() -> int:
    """Be as urgent as a closing whatever stands: a healing, the end."""
    return 2


def never() -> int:
    """Wait for whoever came before."""
    return 0


class PriorityLock:
    """Held by whoever changes the live state or the kernel's table.

    hurry: set while somebody who must not wait (a closing, a healing, the end) wants the lock.
    Whoever holds it then stops waiting for the disk (`Recorder`); an opening that is not on disk by
    then does not count and is taken back.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[tuple[Urgent, asyncio.Future[None]]] = []
        self.urgent_waiting = asyncio.Event()

    def locked(self) -> bool:
        """Say whether a change is under way."""
        return self._taken

    async def acquire(self, urgent: Urgent = always) -> None:
        """Take the lock, and keep it.

        Whoever is the most urgent by then is next; of these the first.
        """
        if not self._taken:
            self._taken = True
            return
        mine = urgent, asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if urgent():
            self.urgent_waiting.set()
        try:
            await mine[1]
        except asyncio.CancelledError:
            if mine[1].cancelled():
                self._waiting.remove(mine)
                self._tell()
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
        self._tell()

    def _tell(self) -> None:
        if any(urgent() for urgent, turn in self._waiting if not turn.done()):
            self.urgent_waiting.set()
        else:
            self.urgent_waiting.clear()

    @asynccontextmanager
    async def hold(self, urgent: Urgent = never) -> AsyncIterator[None]:
        """Hold the lock for a block. urgent: whoever holds it now is to make haste."""
        await self.acquire(urgent)
        try:
            yield
        finally:
            self._hand_over()
