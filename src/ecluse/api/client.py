"""Asks the daemon over its UNIX socket, with little of the standard library.

http.client alone would cost 29 ms of start (it imports email, ssl and more). So this module and
`request_socket` speak the small part of HTTP that is needed.
"""

from __future__ import annotations

import json
import time

from ecluse import errors
from ecluse.api.request_socket import PATIENCE, RequestSocket
from ecluse.errors import ConfigError, EcluseError, ForbiddenError, UnreachableError

TYPE_CHECKING = False  # as in cli/main.py
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, NoReturn

_MAX_ANSWER = 64 << 20  # bytes; the daemon never sends as many
_CHUNK = 1 << 16

LATE = "No answer yet: the daemon is starting, busy, or dead. Waiting for it."
FULL = (
    "The queue of the daemon's socket is full: the daemon is down or busy, "
    "and somebody asks over and over. Trying on."
)

_KINDS: Mapping[str, type[EcluseError]] = {
    kind.kind: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EcluseError) and kind is not ConfigError
}


class Client:
    """The client of one daemon's socket.

    systemd holds the socket open while the daemon is down, so a dead daemon looks like a slow one.

    Args:
        socket_path: the daemon's UNIX socket.
        timeout: seconds for a whole request and its answer.
        waiting: called once, with LATE or FULL, for a request without an answer after PATIENCE.

    Raises (every method):
        UnreachableError: no answer.
        ForbiddenError: the user may not use the socket.
        EcluseError: what the daemon reports.
    """

    def __init__(
        self, socket_path: str, timeout: float = 30.0, waiting: Callable[[str], None] | None = None
    ) -> None:
        self.socket_path = socket_path
        self.timeout = timeout
        self._waiting = waiting

    def get(self, path: str) -> Any:
        """Send a GET request and give the JSON of the answer."""
        return self.answer(RequestSocket(self.socket_path, self.timeout, "GET", path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a POST request and give the JSON of the answer."""
        data = json.dumps(body).encode("ascii")
        return self.answer(RequestSocket(self.socket_path, self.timeout, "POST", path, data))

    def lines(self, path: str) -> Iterator[Any]:
        """Follow a stream: give the JSON of each line, the daemon's heartbeats among them.

        A silence longer than `timeout` is an UnreachableError.
        """
        request = RequestSocket(self.socket_path, self.timeout, "GET", path)
        try:
            if isinstance(request.connect_error, BlockingIOError):
                self._retry(request, self._waiting)
            self._raise_unsent(request)
            reader = _Reader(request.sock, lambda: None)
            status, _length = self._head(reader)
            if status != 200:
                _raise_problem(status, reader.rest(_MAX_ANSWER))
            for line in reader.lines(_MAX_ANSWER):
                yield _json(line)
        except (OSError, EOFError) as error:
            raise self._unanswered("GET", error) from None
        finally:
            request.sock.close()

    def answer(self, request: RequestSocket) -> Any:
        """Give the JSON of the answer to a request that was sent."""
        waiting = self._waiting

        def set_timeout() -> None:
            left = max(request.deadline - time.monotonic(), 0.001)
            request.sock.settimeout(left if waiting is None else min(left, PATIENCE))

        def goes_on() -> bool:
            # The first time-out, after PATIENCE, tells the person; the next is the end.
            nonlocal waiting
            show, waiting = waiting, None
            if show is None or time.monotonic() >= request.deadline:
                return False
            show(LATE)
            return True

        try:
            if isinstance(request.connect_error, BlockingIOError):
                show, waiting = waiting, None
                self._retry(request, show)
            self._raise_unsent(request)
            reader = _Reader(request.sock, set_timeout, goes_on)
            status, length = self._head(reader)
            answer = reader.exactly(length) if length is not None else reader.rest(_MAX_ANSWER)
        except (OSError, EOFError) as error:
            raise self._unanswered(request.method, error) from None
        finally:
            request.sock.close()
        if status != 200:
            _raise_problem(status, answer)
        return _json(answer)

    def _unanswered(self, method: str, error: Exception) -> UnreachableError:
        slow = isinstance(error, TimeoutError)
        what = (
            f"did not answer within {self.timeout:g} s"
            if slow
            else "ended the connection without an answer"
        )
        doubt = "; it is not known whether the command was carried out" if method == "POST" else ""
        return UnreachableError(
            f"the daemon at {self.socket_path} {what}{doubt}",
            retry=True,
            hint="run 'ecluse status' to see where things stand",
        )

    def _retry(self, request: RequestSocket, show: Callable[[str], None] | None) -> None:
        if show is not None and time.monotonic() < request.deadline:
            show(FULL)
        request.send(self.timeout)

    def _raise_unsent(self, request: RequestSocket) -> None:
        if isinstance(request.connect_error, PermissionError):
            raise ForbiddenError(
                f"this user may not use {self.socket_path}",
                hint="run it as root (sudo), or as a member of the operators' group",
            )
        if request.connect_error is not None:
            if isinstance(request.connect_error, BlockingIOError):
                raise UnreachableError(
                    f"the queue of {self.socket_path} stayed full: the daemon is down or busy",
                    retry=True,
                )
            why = request.connect_error.strerror or str(request.connect_error) or "no answer"
            raise UnreachableError(f"no daemon answers at {self.socket_path} ({why.lower()})")
        if request.send_error is not None:
            raise self._unanswered(request.method, request.send_error)

    def _head(self, reader: _Reader) -> tuple[int, int | None]:
        """Read the status line and the headers; give the status and the body's length if known."""
        parts = reader.line().split(maxsplit=2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise UnreachableError(f"what answers at {self.socket_path} is not the daemon")
        length = None
        while line := reader.line():
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                length = int(value)
        return int(parts[1]), length


class _Reader:
    """Reads lines and counted bytes from a socket.

    Args:
        sock: a connected socket.
        set_timeout: called before each read.
        goes_on: called after a time-out; False ends the reading with a TimeoutError.
    """

    def __init__(
        self,
        sock: socket,
        set_timeout: Callable[[], None],
        goes_on: Callable[[], bool] = lambda: False,
    ) -> None:
        self._sock = sock
        self._set_timeout = set_timeout
        self._goes_on = goes_on
        self._buffer = b""

    def _receive(self, most: int) -> bytes:
        while True:
            self._set_timeout()
            try:
                return self._sock.recv(most)
            except TimeoutError:
                if not self._goes_on():
                    raise

    def _fill(self) -> bool:
        data = self._receive(_CHUNK)
        self._buffer += data
        return bool(data)

    def line(self) -> bytes:
        """Give a header line without its end. EOFError when there is none."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > _CHUNK or not self._fill():
                raise EOFError
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.rstrip(b"\r")

    def lines(self, limit: int) -> Iterator[bytes]:
        """Give every line until the connection ends; none may be longer than `limit` bytes."""
        while True:
            while b"\n" not in self._buffer:
                if len(self._buffer) > limit or not self._fill():
                    return
            line, self._buffer = self._buffer.split(b"\n", 1)
            yield line

    def exactly(self, length: int) -> bytes:
        """Give so many bytes. EOFError when the connection ends before."""
        if length > _MAX_ANSWER:
            raise EOFError
        parts, missing = [self._buffer], length - len(self._buffer)
        while missing > 0:
            data = self._receive(min(missing, _CHUNK))
            if not data:
                raise EOFError
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)[:length]

    def rest(self, limit: int) -> bytes:
        """Give everything until the connection ends, at most `limit` bytes."""
        while len(self._buffer) <= limit and self._fill():
            pass
        return self._buffer[:limit]


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise UnreachableError(
            "the daemon's answer cannot be read; is it of another version?"
        ) from None


def _raise_problem(status: int, data: bytes) -> NoReturn:
    """Raise the error that a problem document (RFC 9457) describes."""
    try:
        problem = json.loads(data)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        raise EcluseError(f"the daemon answered {status} without a word")
    detail = str(problem.get("detail") or problem.get("title") or f"the daemon answered {status}")
    kind, retry, hint = (
        str(problem.get("kind", "")),
        bool(problem.get("retry")),
        str(problem.get("hint", "")),
    )
    if kind == ConfigError.kind:
        from ecluse.faults import Fault  # noqa: PLC0415 - `dataclasses` takes long to import

        raise ConfigError(
            tuple(
                Fault(
                    str(one.get("file", "")),
                    int(one.get("line", 0)),
                    int(one.get("column", 0)),
                    str(one.get("wrong", "")),
                    str(one.get("expected", "")),
                )
                for one in problem.get("faults", ())
            )
        )
    error = _KINDS.get(kind, EcluseError)(detail, retry=retry, hint=hint)
    error.kind = kind or error.kind
    raise error
