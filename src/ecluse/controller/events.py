"""Events for every subscriber: each has a bounded queue, and one that does not read is dropped."""

import asyncio
from collections.abc import AsyncIterator, Callable

from ecluse.policy import Levels
from ecluse.ports import Clock
from ecluse.results import Event

QUEUE = 1000


class EventBroadcaster:
    """Gives every event to every subscriber, in order, without ever waiting for one.

    summary: gives the number and the levels of the generation that is live. log: takes every event;
    log_failure: why it could not take one, empty when it took all.
    """

    def __init__(
        self,
        clock: Clock,
        summary: Callable[[], tuple[int, Levels]],
        log: Callable[[Event], None],
    ) -> None:
        self._clock = clock
        self._summary = summary
        self._log = log
        self.log_failure = ""
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def emit(self, kind: str, message: str) -> None:
        """Give an event to the subscribers and to the daemon's log."""
        number, levels = self._summary()
        event = Event(self._clock(), kind, message, number, levels)
        self._publish(event)
        try:
            self._log(event)
        except Exception as error:  # noqa: BLE001 - a log that fails never undoes what was done
            self.log_failure = repr(error)

    def _publish(self, event: Event) -> None:
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    async def subscribe(self) -> AsyncIterator[Event]:
        """Give every event from now on, until the subscriber is too slow or the daemon stops."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE)
        self._queues.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """End every subscription."""
        for queue in list(self._queues):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
