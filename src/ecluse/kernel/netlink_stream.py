"""Kernel events in the asyncio loop; the kernel's own buffer is the queue.

Events that the kernel dropped are an event, too.
"""

import asyncio
import errno
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Self, TypeVar

from ecluse.kernel.netlink import NetlinkSocket

# A transaction with 100,000 elements announces each of them: 17 MiB of socket memory, all at once.
# The kernel doubles what is asked for, and memory is used only while events wait in it.
EVENT_BUFFER = 32 << 20
# How long decoding may hold the loop before others get their turn, in seconds.
SLICE = 0.004
AFTER_FAULT = 0.1

T = TypeVar("T")


class NetlinkStream(Generic[T]):
    """The events of a subscribed netlink socket, from the moment this is made: an async iterator.

    It never ends by itself; close it at the end. Waiting for an item may be cancelled and begun
    again; nothing is lost by that.

    Args:
        netlink: the socket, which this owns from now on.
        decode: makes items of one datagram.
        lost: makes the item that says that events were lost (ENOBUFS: the kernel dropped some).
    """

    def __init__(
        self,
        netlink: NetlinkSocket,
        decode: Callable[[bytes], Iterable[T]],
        lost: Callable[[OSError], T],
    ) -> None:
        self._netlink = netlink
        self._decode = decode
        self._lost = lost
        self._ready: deque[T] = deque()
        self._closed: asyncio.Future[None] | None = None
        self._is_closed = False
        netlink.socket.setblocking(False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            if self._is_closed:
                raise StopAsyncIteration
            await self._readable()
            if not self._is_closed and self._drain():
                await asyncio.sleep(AFTER_FAULT)
        return self._ready.popleft()

    def close(self) -> None:
        """Close the socket and end the iteration, also for a reader that waits.

        In the loop's thread only.
        """
        self._is_closed = True
        if self._closed is not None:
            _wake(self._closed)
        self._netlink.close()

    async def _readable(self) -> None:
        """Wait until there is something to read, or until close()."""
        loop = asyncio.get_running_loop()
        handle = self._netlink.socket.fileno()
        self._closed = ready = loop.create_future()
        loop.add_reader(handle, _wake, ready)
        try:
            await ready
        finally:
            loop.remove_reader(handle)
            self._closed = None

    def _drain(self) -> bool:
        """Read what is there, for one slice of time; True when the kernel reported a fault."""
        until = time.monotonic() + SLICE
        while time.monotonic() < until:
            try:
                self._ready.extend(self._decode(self._netlink.receive()))
            except BlockingIOError:
                return False
            except OSError as error:
                self._ready.append(self._lost(error))
                return True
            except Exception as error:  # noqa: BLE001 - a datagram that can't be decoded is a loss
                self._ready.append(self._lost(OSError(errno.EBADMSG, f"unreadable: {error!r}")))
                return True
        return False


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
