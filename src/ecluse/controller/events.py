"""Events to whoever listens: each subscriber has a bounded queue, and one that does not read is let
go.
"""

import asyncio
from collections.abc import AsyncIterator

from ecluse.results import Event

QUEUE = 1000


class EventBroadcaster:
    """Gives every event to every subscriber, in order, without ever waiting for one."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def publish(self, event: Event) -> None:
        """Give an event to all; a subscriber whose queue is full is ended rather than waited for."""
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    async def subscribe(self) -> AsyncIterator[Event]:
        """Give every event from now on; ends when the subscriber was too slow or the daemon stops."""
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
