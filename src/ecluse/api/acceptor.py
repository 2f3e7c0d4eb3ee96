"""Accept loop: identifies each peer by SO_PEERCRED and enforces connection quotas by role.

asyncio's own accept loop makes a transport and a task before anything can look at the peer, up to
`backlog` at once. Here a connection that is turned away costs two system calls, so that a local
flood cannot starve the event loop.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from ecluse.api.http_connection import (
    REQUEST_SECONDS,
    STALL_SECONDS,
    ConnectionRegistry,
    HttpConnection,
)
from ecluse.api.listener import BACKLOG, Listener
from ecluse.api.peer import Role, Roles, peer_of
from ecluse.api.problems import HttpRefusalError, problem_of, raw_response
from ecluse.api.quota import Quota, QuotaCounter, pool_of

_BATCH = 32  # accepts before the loop may do something else
_PAUSE_SECONDS = 0.1  # without accepting, when the machine has no descriptors or memory left
_LOG_SECONDS = 1.0  # between two lines of the log about that
_IDLE_SECONDS = 0.1  # without a request, after which a connection may be ended for another
_IDLE_BATCH = 8  # connections that are ended at once
_LATE_SECONDS = 1.0  # for the request of a peer that has used its quota
_LATE_QUOTA = Quota(16, 16)
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # accept(2)


def over_quota() -> HttpRefusalError:
    """Make the refusal of a peer that has used its quota of connections."""
    return HttpRefusalError(
        503,
        "too many connections of yours are open",
        kind="busy",
        hint="close some, or wait",
        close=True,
    )


TURNED_AWAY = raw_response(problem_of(over_quota(), ""))


class Acceptor:
    """Accepts on all listeners into one registry of connections.

    quotas: who has how many connections.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        registry: ConnectionRegistry,
        roles: Roles,
        log: FilteringBoundLogger,
        *,
        request_seconds: float = REQUEST_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._listeners: tuple[Listener, ...] = tuple(listeners)
        self._registry = registry
        self._roles = roles
        self._log = log
        self._request_seconds = request_seconds
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        self._pauses: set[asyncio.TimerHandle] = set()
        self._early = False
        self._logged = -_LOG_SECONDS
        self.quotas = QuotaCounter()
        # A peer over its quota may still close the gate. So these places are for reading what it
        # asks; anything else is refused then.
        self._late_quotas = QuotaCounter({Role.OPERATOR.value: _LATE_QUOTA, "root": _LATE_QUOTA})

    def open(self) -> None:
        """Begin to accept; connections that wait now were made before the daemon ran."""
        # systemd holds the socket open while there is no daemon.
        self._early = True
        for listener in self._listeners:
            for _ in range(BACKLOG // _BATCH):
                if not self._accept_batch(listener):
                    break
        self._early = False
        for listener in self._listeners:
            self._loop.add_reader(listener.sock.fileno(), self._accept_batch, listener)

    def close(self) -> None:
        """Stop accepting, and remove the socket files that are ours. Closing again does nothing."""
        for pause in self._pauses:
            pause.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener.sock.fileno())
            listener.close()
        self._listeners = ()

    def _accept_batch(self, listener: Listener) -> bool:
        """Accept some of the waiting connections; say whether there may be more."""
        for _ in range(_BATCH):
            try:
                sock, _address = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._end_idle_connections(error)
                    self._pause(listener)
                return False
            self._start_connection(sock)
        return True

    def _end_idle_connections(self, error: OSError) -> None:
        """End the connections that are idle for longest, those without a role first."""
        idle = self._registry.idle_connections(self._loop.time() - _IDLE_SECONDS)
        for connection in sorted(idle, key=lambda one: one.role is not Role.NONE)[:_IDLE_BATCH]:
            connection.end_idle()
        if self._loop.time() - self._logged >= _LOG_SECONDS:
            self._logged = self._loop.time()
            self._log.error(
                "no connection can be accepted",
                error=error.strerror,
                idle_ended=min(len(idle), _IDLE_BATCH),
            )

    def _pause(self, listener: Listener) -> None:
        """Stop watching the listener for a while: it stays readable, so the loop would spin."""
        self._loop.remove_reader(listener.sock.fileno())

        def resume() -> None:
            self._pauses.discard(timer)
            self._loop.add_reader(listener.sock.fileno(), self._accept_batch, listener)

        timer = self._loop.call_later(_PAUSE_SECONDS, resume)
        self._pauses.add(timer)

    def _start_connection(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            return
        role = self._roles.role_of(peer)
        pool = pool_of(peer.uid, role)
        early, late, quotas = self._early, False, self.quotas
        if not quotas.enter(pool, peer.uid):
            late, quotas = True, self._late_quotas
            if pool not in quotas.quotas or not quotas.enter(pool, peer.uid):
                with suppress(OSError):
                    sock.send(TURNED_AWAY)
                sock.close()
                return

        def connection() -> HttpConnection:
            return HttpConnection(
                self._registry,
                peer=peer,
                role=role,
                on_end=lambda: quotas.leave(pool, peer.uid),
                early=early,
                late=late,
                request_seconds=_LATE_SECONDS if late else self._request_seconds,
                stall_seconds=self._stall_seconds,
            )

        async def start() -> None:
            await self._loop.connect_accepted_socket(connection, sock)

        task = self._loop.create_task(start())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
