"""The API server: HTTP/1.1 with JSON on a UNIX socket, with roles by the peer's credentials."""

import asyncio
import traceback
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import BaseRequest, RequestPayloadError, Response, StreamResponse
from pydantic import BaseModel
from structlog.typing import FilteringBoundLogger

from ecluse.accounts import Accounts
from ecluse.api import metrics, openapi
from ecluse.api.acceptor import Acceptor, over_quota
from ecluse.api.browser_guard import HINT, browser_sign
from ecluse.api.denied_attempts import DeniedAttempts
from ecluse.api.event_stream import HEARTBEAT_SECONDS, stream_events
from ecluse.api.http_connection import (
    HEADERS,
    REQUEST_SECONDS,
    STALL_SECONDS,
    ConnectionRegistry,
    HttpConnection,
)
from ecluse.api.listener import Listener, adopt_socket, listen
from ecluse.api.peer import Role, Roles, actor_of
from ecluse.api.problems import MEDIA, HttpRefusalError, problem_of
from ecluse.api.quota import Quota, QuotaCounter, pool_of
from ecluse.api.routes import JSON, METRICS, NDJSON, Call, find_route
from ecluse.api.wire import (
    MAX_BODY,
    LevelRequest,
    Problem,
    parse_body,
    parse_query,
    to_json,
    to_json_in_pieces,
)
from ecluse.controller import Controller
from ecluse.errors import EcluseError
from ecluse.safe_text import replace_unsafe

_STREAM_QUOTAS: Mapping[str, Quota] = MappingProxyType(
    {
        Role.READER.value: Quota(32, 8),
        Role.OPERATOR.value: Quota(32, 8),
        "root": Quota(32, 32),
        Role.NONE.value: Quota(0, 0),
    }
)


class ApiServer:
    """A running server, made by `serve`."""

    def __init__(
        self,
        controller: Controller,
        roles: Roles,
        log: FilteringBoundLogger,
        *,
        request_seconds: float = REQUEST_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._controller = controller
        self._roles = roles
        self._log = log
        self._denied = DeniedAttempts(controller.forbidden, log)
        self._streams = QuotaCounter(_STREAM_QUOTAS)
        self._registry = ConnectionRegistry(self._handle)
        self._make_acceptor = partial(
            Acceptor,
            registry=self._registry,
            roles=roles,
            log=log,
            request_seconds=request_seconds,
            stall_seconds=stall_seconds,
        )
        self._acceptor: Acceptor | None = None
        self._heartbeat = heartbeat_seconds
        self._running: set[asyncio.Future[Any]] = set()
        # Queries of one role wait for each other here, so that a command never waits for more than
        # these few in the controller.
        self._query_slots = {Role.READER: asyncio.Semaphore(1), Role.OPERATOR: asyncio.Semaphore(2)}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Give a sentence for each role group that does not exist on this machine now."""
        return self._roles.warnings()

    def open(self, listeners: Sequence[Listener]) -> None:
        """Begin to accept on these listeners."""
        self._acceptor = self._make_acceptor(listeners)
        self._acceptor.open()

    async def close(self, grace: float = 10.0) -> None:
        """Stop accepting, let running commands end, and end every connection.

        grace: seconds for the commands.
        """
        if self._acceptor is not None:
            self._acceptor.close()
        self._registry.pre_shutdown()
        self._registry.end_streams()
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        await self._registry.shutdown(1.0)
        await self._denied.close()

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        connection = cast(HttpConnection, request.protocol)
        due = connection.begin()
        try:
            return await self._answer(request, connection, due)
        except Exception as error:  # noqa: BLE001 - the client gets a problem document
            return self._refuse(request, error)
        finally:
            connection.end()

    def _refuse(self, request: BaseRequest, error: Exception) -> Response:
        hung_up = isinstance(error, ConnectionError) and request.transport is None
        if not hung_up and not isinstance(error, (HttpRefusalError, EcluseError)):
            self._log.error(
                "a request failed unexpectedly",
                request=_request_text(request),
                error=repr(error),
                at=_traceback_lines(error),
            )
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already") from error
        problem = problem_of(error, replace_unsafe(request.path, 200))
        response = _response(to_json(problem, Problem), MEDIA, problem.status)
        if isinstance(error, HttpRefusalError):
            if error.allow:
                response.headers["Allow"] = error.allow
            if error.close:
                response.force_close()
        return response

    async def _answer(
        self, request: BaseRequest, connection: HttpConnection, due: float
    ) -> StreamResponse:
        more = self._controller.extension_routes()
        route, number, methods = find_route(request.method, request.path, more)
        needed = route.needs if route is not None else Role.READER
        page = browser_sign(request.headers.items())
        if not connection.role.includes(needed) or page:
            raise await self._deny(request, connection, needed, page)
        if route is None:
            raise _no_route(request, methods)
        if route.body is not None and request.content_type != JSON:
            hint = f"send it with Content-Type: {JSON}"
            raise HttpRefusalError(415, "every POST says that it is JSON", hint=hint, close=True)
        try:
            query = parse_query(request.rel_url.query, route.query)
            body = (
                parse_body(await _receive_body(request, due), route.body)
                if route.body is not None
                else None
            )
        except ValueError as error:
            raise HttpRefusalError(
                400, str(error), hint="GET /v1/openapi.json describes every request"
            ) from None
        if connection.late and not self._closes(body):
            raise over_quota()
        actor = actor_of(connection.peer, self._roles.accounts, gone=connection.sender_gone)
        call = Call(self._controller, actor, connection.sender(), body, query, number)
        if route.media == NDJSON:
            return await self._stream(request, connection)
        if route.media == METRICS:
            return await self._metrics(connection)
        if route.act is None:
            return _response(await asyncio.to_thread(openapi.document_text, more), JSON)
        if route.changes:
            return _response(to_json(await self._run_to_end(route.act(call)), route.answer), JSON)
        async with self._query_slots[connection.role]:
            answer = await route.act(call)
            return _response(await asyncio.to_thread(to_json_in_pieces, answer, route.answer), JSON)

    def _closes(self, body: BaseModel | None) -> bool:
        return isinstance(body, LevelRequest) and self._controller.closes(body.level, body.zones)

    async def _run_to_end(self, command: Awaitable[Any]) -> Any:
        """Run a command to its end, even when its client hangs up."""
        task = asyncio.ensure_future(command)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here: its client may have gone

    async def _deny(
        self, request: BaseRequest, connection: HttpConnection, needed: Role, page: str
    ) -> Exception:
        peer, accounts = connection.peer, self._roles.accounts
        await self._denied.record_attempt(
            lambda: actor_of(peer, accounts, gone=connection.sender_gone),
            peer.uid,
            _request_text(request) + (f" from a web page, as it seems: {page}" if page else ""),
            page=bool(page),
        )
        if page:
            sign = replace_unsafe(page, 80)
            detail = f"requests of web pages are refused, and this may be one: {sign}"
            return HttpRefusalError(403, detail, kind="forbidden", hint=HINT, close=True)
        user = accounts.user_name(peer.uid)
        group = self._roles.operators if needed is Role.OPERATOR else self._roles.readers
        may = "command" if needed is Role.OPERATOR else "look"
        return HttpRefusalError(
            403,
            f"user {user} may not {may} here; nothing was changed, "
            "and the attempt is in the audit log",
            kind="forbidden",
            hint=f"run it as root (sudo), or as a member of the group '{group}' "
            "(log in again after being added)",
        )

    async def _metrics(self, connection: HttpConnection) -> Response:
        async with self._query_slots[connection.role]:
            status = await self._controller.status()
        quotas = self._acceptor.quotas if self._acceptor is not None else QuotaCounter()
        counts = metrics.SocketCounts(quotas.taken(), quotas.turned_away, self._denied.total)
        return Response(
            body=await asyncio.to_thread(metrics.metrics_text, status, counts),
            headers={**HEADERS, "Content-Type": metrics.MEDIA},
        )

    async def _stream(self, request: BaseRequest, connection: HttpConnection) -> StreamResponse:
        uid = connection.peer.uid
        pool = pool_of(uid, connection.role)
        if not self._streams.enter(pool, uid):
            raise HttpRefusalError(
                503, "too many event streams are open", kind="busy", hint="close some of them"
            )
        try:
            return await stream_events(
                request, connection, self._controller.events(), self._heartbeat
            )
        finally:
            self._streams.leave(pool, uid)


def _no_route(request: BaseRequest, methods: tuple[str, ...]) -> HttpRefusalError:
    if methods:
        allow = ", ".join(methods)
        return HttpRefusalError(
            405,
            f"{replace_unsafe(request.method, 20)} is not for this path",
            hint=allow,
            allow=allow,
        )
    return HttpRefusalError(
        404,
        f"nothing is at {replace_unsafe(request.path, 200)}",
        hint="GET /v1/openapi.json lists every path",
    )


async def _receive_body(request: BaseRequest, due: float) -> bytes:
    """Read a body of at most MAX_BODY bytes. due: the loop time by which it must have come."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise HttpRefusalError(415, "a compressed body is not taken", close=True)
    too_large = HttpRefusalError(413, f"a body has at most {MAX_BODY} bytes", close=True)
    if (request.content_length or 0) > MAX_BODY:
        raise too_large
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no answer: an error document may still follow
    body = bytearray()
    try:
        async with asyncio.timeout_at(due):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    raise too_large
    except TimeoutError:
        raise HttpRefusalError(408, "the body did not arrive in time", close=True) from None
    except (RequestPayloadError, HttpProcessingError) as error:
        raise HttpRefusalError(
            400, f"the body cannot be read: {type(error).__name__}", close=True
        ) from None
    return bytes(body)


def _response(body: bytes, media: str, status: int = 200) -> Response:
    return Response(status=status, body=body, headers={**HEADERS, "Content-Type": media})


def _request_text(request: BaseRequest) -> str:
    return replace_unsafe(f"{request.method} {request.path}", 200)


def _traceback_lines(error: Exception) -> list[str]:
    """Give the last lines of a traceback, for the log alone."""
    return [
        f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-6:]
    ]


async def serve(
    controller: Controller,
    *,
    socket_path: Path | None,
    listen_fds: Sequence[int] = (),
    mode: int = 0o660,
    group: str = "",
    readers: str,
    operators: str,
    log: FilteringBoundLogger,
    accounts: Accounts | None = None,
    request_seconds: float = REQUEST_SECONDS,
    stall_seconds: float = STALL_SECONDS,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> ApiServer:
    """Start to serve the controller. End it by the server's `close()`.

    Args:
        controller: carries out the requests.
        socket_path: where to listen, unless systemd passed a socket.
        listen_fds: the sockets that systemd passed.
        mode: permission bits of the socket file that is made.
        group: its group (name or number); empty for the daemon's.
        readers: the group (name or number) that may look.
        operators: the group (name or number) that may command.
        log: for warnings and errors.
        accounts: the machine's own; others in tests.
        request_seconds: for a request to arrive.
        stall_seconds: for a client to take its answer.
        heartbeat_seconds: between two lines of an event stream.

    Raises:
        StateError: it cannot listen.
    """
    accounts = accounts or Accounts()
    roles = Roles(readers, operators, accounts)
    gid = accounts.gid(group) if group else None
    if group and gid is None:
        log.warning("the socket's group does not exist, so it keeps the daemon's own", group=group)
    if listen_fds:
        listeners = [adopt_socket(descriptor) for descriptor in listen_fds]
    elif socket_path is not None:
        listeners = [listen(socket_path, mode, gid)]
    else:
        raise EcluseError(
            "there is no socket to listen on", hint="give --socket, or start it by its socket unit"
        )
    server = ApiServer(
        controller,
        roles,
        log,
        request_seconds=request_seconds,
        stall_seconds=stall_seconds,
        heartbeat_seconds=heartbeat_seconds,
    )
    for warning in server.warnings:
        log.warning(warning)
    server.open(listeners)
    return server
