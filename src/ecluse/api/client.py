"""Asks the daemon over its UNIX socket. Standard library only, and little of it.

http.client alone would cost 29 ms of start (it pulls in email, ssl and more), so this and `ask`
speak the small part of HTTP that is needed.
"""

from __future__ import annotations

import json
import time

from ecluse import errors
from ecluse.api.request_socket import PATIENCE, RequestSocket
from ecluse.errors import ConfigError, EcluseError, Fault, ForbiddenError, UnreachableError

TYPE_CHECKING = (
    False  # for type checkers alone: importing typing takes as long as asking the daemon
)
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, NoReturn

_MAX_ANSWER = 64 << 20  # bytes; an answer beyond it is not ours
_CHUNK = 1 << 16

LATE = "No answer yet: the daemon is starting, busy, or dead. Waiting for it."
FULL = "The queue of the daemon's socket is full: the daemon is down or busy, and somebody asks over and over. Trying on."

_KINDS: Mapping[str, type[EcluseError]] = {
    kind.kind: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EcluseError) and kind is not ConfigError
}


class Client:
    """One daemon's socket. timeout: seconds for a whole question and its answer.

    waiting: called once, with LATE or FULL, for a question that is not answered within PATIENCE.
    systemd holds the socket while the daemon is down, so that a daemon which is gone for good looks
    like one that is slow. Every method may raise UnreachableError (no answer), ForbiddenError, or
    the error that the daemon reports.
    """

    def __init__(
        self, socket_path: str, timeout: float = 30.0, waiting: Callable[[str], None] | None = None
    ) -> None:
        self.socket_path = socket_path
        self.timeout = timeout
        self._waiting = waiting

    def get(self, path: str) -> Any:
        """Ask; give the JSON of the answer."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask for something to be done; give the JSON of the answer."""
        return self._ask("POST", path, json.dumps(body).encode("ascii"))

    def lines(self, path: str) -> Iterator[Any]:
        """Follow a stream: give the JSON of each line, for as long as the daemon sends.

        The daemon's heartbeats are among them; a silence longer than `timeout` is an
        UnreachableError.
        """
        question = self._question("GET", path, None)
        try:
            if isinstance(question.unreached, BlockingIOError):
                self._try_on(question, self._waiting)
            self._check_sent(question)
            reader = _Reader(question.sock, lambda: None)
            status, _length = self._head(reader)
            if status != 200:
                _raise_problem(status, reader.rest(_MAX_ANSWER))
            for line in reader.lines(_MAX_ANSWER):
                yield _json(line)
        except (OSError, EOFError) as error:
            raise self._lost("GET", error) from None
        finally:
            question.sock.close()

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        return self.answer(self._question(method, path, body))

    def _question(self, method: str, path: str, body: bytes | None) -> RequestSocket:
        return RequestSocket(self.socket_path, self.timeout, method, path, body)

    def answer(self, question: RequestSocket) -> Any:
        """Give the JSON of the answer to what was sent to this socket."""
        waiting = self._waiting

        def tick() -> None:
            left = max(question.deadline - time.monotonic(), 0.001)
            question.sock.settimeout(left if waiting is None else min(left, PATIENCE))

        def late() -> bool:
            nonlocal waiting
            told, waiting = waiting, None
            if told is None or time.monotonic() >= question.deadline:
                return False
            told(LATE)
            return True

        try:
            if isinstance(question.unreached, BlockingIOError):
                told, waiting = waiting, None
                self._try_on(question, told)
            self._check_sent(question)
            reader = _Reader(question.sock, tick, late)
            status, length = self._head(reader)
            answer = reader.exactly(length) if length is not None else reader.rest(_MAX_ANSWER)
        except (OSError, EOFError) as error:
            raise self._lost(question.method, error) from None
        finally:
            question.sock.close()
        if status != 200:
            _raise_problem(status, answer)
        return _json(answer)

    def _lost(self, method: str, error: Exception) -> UnreachableError:
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

    def _try_on(self, question: RequestSocket, told: Callable[[str], None] | None) -> None:
        if told is not None and time.monotonic() < question.deadline:
            told(FULL)
        question.send(self.timeout)

    def _check_sent(self, question: RequestSocket) -> None:
        if isinstance(question.unreached, PermissionError):
            raise ForbiddenError(
                f"this user may not use {self.socket_path}",
                hint="run it as root (sudo), or as a member of the operators' group",
            )
        if question.unreached is not None:
            if isinstance(question.unreached, BlockingIOError):
                raise UnreachableError(
                    f"the queue of {self.socket_path} stayed full: the daemon is down or busy",
                    retry=True,
                )
            why = question.unreached.strerror or str(question.unreached) or "no answer"
            raise UnreachableError(f"no daemon answers at {self.socket_path} ({why.lower()})")
        if question.unsent is not None:
            raise self._lost(question.method, question.unsent)

    def _head(self, reader: _Reader) -> tuple[int, int | None]:
        """Read the status line and the headers; give the status and the length of what follows."""
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

    tick: called before each read, to set what time is left. late: called when that is over; says
    whether there is more.
    """

    def __init__(
        self, sock: socket, tick: Callable[[], None], late: Callable[[], bool] = lambda: False
    ) -> None:
        self._sock = sock
        self._tick = tick
        self._late = late
        self._buffer = b""

    def _receive(self, most: int) -> bytes:
        while True:
            self._tick()
            try:
                return self._sock.recv(most)
            except TimeoutError:
                if not self._late():
                    raise

    def _more(self) -> bool:
        data = self._receive(_CHUNK)
        self._buffer += data
        return bool(data)

    def line(self) -> bytes:
        """Give a header line without its end. EOFError when there is none."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > _CHUNK or not self._more():
                raise EOFError
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.rstrip(b"\r")

    def lines(self, limit: int) -> Iterator[bytes]:
        """Give every line until the connection ends."""
        while True:
            while b"\n" not in self._buffer:
                if len(self._buffer) > limit or not self._more():
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
        while len(self._buffer) <= limit and self._more():
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
    """Turn a problem document (RFC 9457) into the error that it tells of."""
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
        raise ConfigError(tuple(_fault(one) for one in problem.get("faults", ())))
    error = _KINDS.get(kind, EcluseError)(detail, retry=retry, hint=hint)
    error.kind = kind or error.kind
    raise error


def _fault(one: Mapping[str, Any]) -> Fault:
    return Fault(
        str(one.get("file", "")),
        int(one.get("line", 0)),
        int(one.get("column", 0)),
        str(one.get("wrong", "")),
        str(one.get("expected", "")),
    )
