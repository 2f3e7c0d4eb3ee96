"""The door: accepts connections, asks the kernel who comes, and turns away who has had his share.

asyncio's own accept loop makes a transport and a task before anybody can look at the peer, up to
`backlog` at once. Here a connection that is turned away costs two system calls, so that a local
flood cannot starve the loop.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence
from contextlib import suppress

from ecluse.api.http_connection import (
    REQUEST_SECONDS,
    STALL_SECONDS,
    ConnectionRegistry,
    HttpConnection,
)
from ecluse.api.listener import BACKLOG, Listener
from ecluse.api.log import Log
from ecluse.api.peer import Role, Roles, peer_of
from ecluse.api.problems import HttpRefusalError, problem_of, raw_response
from ecluse.api.quota import Quota, QuotaCounter, pool_of

_AT_ONCE = 32  # accepts before the loop may do something else
_PAUSE = 0.1  # seconds without accepting when the machine has no descriptors or memory left
_QUIET = 1.0  # seconds between two lines of the log about that
# seconds without a question after which a connection has to go where another needs its place
_IDLE = 0.1
_AT_A_TIME = 8  # connections that are ended so
_LATE_SECONDS = 1.0  # for a request of somebody who has no place left
_LATE = Quota(16, 16)
_OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # accept(2)


def no_place() -> HttpRefusalError:
    """Say that a peer has had his share of connections."""
    return HttpRefusalError(
        503,
        "too many connections of yours are open",
        kind="busy",
        hint="close some, or wait",
        close=True,
    )


TURNED_AWAY = raw_response(problem_of(no_place(), ""))


class Acceptor:
    """Accepts on all listeners into one manager."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        manager: ConnectionRegistry,
        roles: Roles,
        log: Log,
        *,
        request_seconds: float = REQUEST_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._listeners: tuple[Listener, ...] = tuple(listeners)
        self._manager = manager
        self._roles = roles
        self._log = log
        self._seconds = (request_seconds, stall_seconds)
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        self._pauses: set[asyncio.TimerHandle] = set()
        self._early = False
        self._said = -_QUIET
        self.admission = QuotaCounter()
        # One who has had his share may close all the same: these places are for the reading of what
        # he asks.
        self._late = QuotaCounter({Role.OPERATOR.value: _LATE, "root": _LATE})

    def open(self) -> None:
        """Begin to accept.

        What waits by now was sent to a socket that systemd held while no daemon ran.
        """
        self._early = True
        for listener in self._listeners:
            for _ in range(BACKLOG // _AT_ONCE):
                if not self._accept(listener):
                    break
        self._early = False
        for listener in self._listeners:
            self._loop.add_reader(listener.sock.fileno(), self._accept, listener)

    def close(self) -> None:
        """Accept no more, and remove what is ours of the sockets. A second time does nothing."""
        for pause in self._pauses:
            pause.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener.sock.fileno())
            listener.close()
        self._listeners = ()

    def _accept(self, listener: Listener) -> bool:
        """Accept what waits, some at once; say whether there may be more."""
        for _ in range(_AT_ONCE):
            try:
                sock, _address = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                if error.errno in _OUT_OF:
                    self._make_room(error)
                    self._pause(listener)
                return False
            self._welcome(sock)
        return True

    def _make_room(self, error: OSError) -> None:
        """End the connections that are idle for the longest, so that whoever has something to ask
        comes in.
        """
        idle = self._manager.idle(self._loop.time() - _IDLE)
        for connection in sorted(idle, key=lambda one: one.role is not Role.NONE)[:_AT_A_TIME]:
            connection.end_idle()
        if self._loop.time() - self._said >= _QUIET:
            self._said = self._loop.time()
            self._log.error(
                "no connection can be accepted",
                error=error.strerror,
                idle_ended=min(len(idle), _AT_A_TIME),
            )

    def _pause(self, listener: Listener) -> None:
        """Leave the listener alone for a while: it stays readable, and would be asked again at
        once.
        """
        self._loop.remove_reader(listener.sock.fileno())

        def again() -> None:
            self._pauses.discard(timer)
            self._loop.add_reader(listener.sock.fileno(), self._accept, listener)

        timer = self._loop.call_later(_PAUSE, again)
        self._pauses.add(timer)

    def _welcome(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            return
        role = self._roles.role_of(peer)
        pool = pool_of(peer.uid, role)
        early, late, admission = self._early, False, self.admission
        if not admission.enter(pool, peer.uid):
            late, admission = True, self._late
            if pool not in admission.rooms or not admission.enter(pool, peer.uid):
                with suppress(OSError):
                    sock.send(TURNED_AWAY)
                sock.close()
                return

        def connection() -> HttpConnection:
            return HttpConnection(
                self._manager,
                peer=peer,
                role=role,
                left=lambda: admission.leave(pool, peer.uid),
                early=early,
                late=late,
                request_seconds=_LATE_SECONDS if late else self._seconds[0],
                stall_seconds=self._seconds[1],
            )

        async def start() -> None:
            await self._loop.connect_accepted_socket(connection, sock)

        task = self._loop.create_task(start())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
