"""One client's connection: aiohttp's HTTP protocol with the deadlines that it lacks.

aiohttp 3.14 (web_protocol.py) limits an idle connection only. Here a request has REQUEST_SECONDS
from its first byte to its last, and the client STALL_SECONDS to take an answer; then the connection
ends.
"""

import asyncio
import select
from collections.abc import Callable
from types import MappingProxyType

from aiohttp.web import BaseRequest, RequestHandler, Response, Server, StreamResponse

from ecluse import __version__
from ecluse.api.peer import Peer, Role, has_ended
from ecluse.api.problems import MEDIA, HttpRefusalError, problem_of, raw_response
from ecluse.api.wire import Problem, to_json
from ecluse.records import Sender

REQUEST_SECONDS = 10.0
STALL_SECONDS = 10.0
IDLE_SECONDS = 15.0
HEADERS = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "Server": f"ecluse/{__version__}",
        # no browser may take an answer for a script or a style (Fetch, WHATWG)
        "X-Content-Type-Options": "nosniff",
    }
)
MAX_HEADER = 4096  # bytes of a header line
MAX_HEADERS = 64


class HttpConnection(RequestHandler):
    """The protocol of one accepted socket, with the peer that the kernel named at accept.

    gone: a future that is done when the client has left, or the server wants a stream to end.
    early: the client connected before the daemon ran, to the socket that systemd holds.
    late: the client had used its quota, so only requests that close are accepted.
    """

    __slots__ = (
        "_answered",
        "_busy",
        "_due",
        "_on_end",
        "_request_seconds",
        "_since",
        "_stall",
        "_stall_seconds",
        "early",
        "gone",
        "idle_since",
        "late",
        "peer",
        "role",
    )

    def __init__(
        self,
        manager: Server,
        *,
        peer: Peer,
        role: Role,
        on_end: Callable[[], None],
        early: bool = False,
        late: bool = False,
        request_seconds: float = REQUEST_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=IDLE_SECONDS,
            tcp_keepalive=False,
            access_log=None,  # type: ignore[arg-type]  # None is aiohttp's own way to say: no access log
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
            max_headers=MAX_HEADERS,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self.peer = peer
        self.role = role
        self.early = early
        self.late = late
        self.idle_since: float | None = loop.time()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._on_end = on_end
        self._request_seconds = request_seconds
        self._stall_seconds = stall_seconds
        self._due: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._busy = self._answered = False
        self._since = loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start. Any byte that the client does not take counts as a stall."""
        # So no client can make the daemon keep an answer in memory.
        super().connection_made(transport)
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=0)
        if self.late:  # another client may need the place
            self._due = self._loop.call_later(self._request_seconds, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first of a request starts its deadline."""
        if data and self._due is None and not self._busy:
            self._due = self._loop.call_later(self._request_seconds, self._too_slow)
            self._since = self._loop.time() if self._answered else self._since
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # as in asyncio.Protocol
        """Answer a client that only stopped sending (shutdown(2)) before ending; True then."""
        if self.hung_up() or (self._due is None and not self._busy):
            return False
        self.close()  # aiohttp: once what is being handled is answered
        return True

    def begin(self) -> float:
        """Mark the start of a request's handler; give the loop time when its body is due."""
        self._busy, self.idle_since = True, None
        due = (
            self._due.when() if self._due is not None else self._loop.time() + self._request_seconds
        )
        self._cancel_due()
        return due

    def end(self) -> None:
        """Mark the end of the handler."""
        self._busy, self._answered, self.idle_since = False, True, self._loop.time()

    def sender(self) -> Sender:
        """Describe who sent the request that is being handled."""
        return Sender(self.hung_up, self.early and not self._answered, self._since)

    def end_idle(self) -> None:
        """End the connection if no request runs on it: another client needs its place."""
        if self.idle_since is not None and self.transport is not None:
            self.transport.abort()

    def end_stream(self) -> None:
        """End a stream that runs on it."""
        if not self.gone.done():
            self.gone.set_result(None)

    def hung_up(self) -> bool:
        """Ask the kernel whether the client has closed its end for good (poll(2)).

        A client that only stopped sending has not.
        """
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def sender_gone(self) -> bool:
        """Say whether the process that connected may have ended, so that its pid is another's.

        True when it hung up, or when the kernel says that it ended.
        """
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        return self.hung_up() or sock is None or has_ended(sock)

    def _cancel_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _too_slow(self) -> None:
        self._due = None
        if self._busy or self.transport is None:
            return  # the idle time-out ends what follows a running command
        detail = f"the request did not arrive within {self._request_seconds:g} s"
        self.transport.write(raw_response(problem_of(HttpRefusalError(408, detail), "")))
        self.force_close()

    def pause_writing(self) -> None:
        """Start the stall's deadline: the client leaves bytes untaken."""
        super().pause_writing()
        self._stall = self._loop.call_later(self._stall_seconds, self._drop, self.transport)

    def resume_writing(self) -> None:
        """Cancel the stall's deadline: the client has taken everything."""
        super().resume_writing()
        self._cancel_stall()

    def _cancel_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    @staticmethod
    def _drop(transport: asyncio.Transport | None) -> None:
        # The transport as it was at the stall: by now aiohttp may have dropped its own reference,
        # and wait for the flush.
        if transport is not None:
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the deadlines and free the place in the quota."""
        self._cancel_due()
        self._cancel_stall()
        self.end_stream()
        super().connection_lost(exc)
        self._on_end()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Answer what is not HTTP by a problem document, without a line in the log for each."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        detail = "this is not an HTTP request that can be read" + (
            f": {type(exc).__name__}" if exc else ""
        )
        problem = problem_of(HttpRefusalError(status, detail), "")
        response = Response(
            status=status, body=to_json(problem, Problem), headers=HEADERS, content_type=MEDIA
        )
        response.force_close()
        return response


class ConnectionRegistry(Server):
    """aiohttp's record of connections; the acceptor makes them."""

    def idle_connections(self, since: float) -> list[HttpConnection]:
        """Give the connections without a request since then (loop time), the longest idle first."""
        found = [
            (one.idle_since, one)
            for one in self.connections
            if isinstance(one, HttpConnection)
            and one.idle_since is not None
            and one.idle_since < since
        ]
        return [one for _, one in sorted(found, key=lambda pair: pair[0])]

    def end_streams(self) -> None:
        """End every open stream."""
        for connection in self.connections:
            if isinstance(connection, HttpConnection):
                connection.end_stream()
