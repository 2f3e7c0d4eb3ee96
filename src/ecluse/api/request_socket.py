"""Connects to the daemon and sends one request, importing only what the interpreter has built in.

A cut waits for every import here: `socket` alone would cost 1.6 ms, `json` 4 ms (it pulls in `re`).
`api.client` reads the answer, and may take its time.
"""

import posix
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from ecluse import __version__

TYPE_CHECKING = False  # `typing` is slow to import; see cli/main.py
if TYPE_CHECKING:
    from collections.abc import Iterable

CHANGE_SECONDS = 60.0
"""Seconds that the daemon may take for a change."""
PATIENCE = 3.0
"""Seconds without an answer after which a person wants to know why."""

_RETRY_SECONDS = 0.02  # between two tries at a socket whose queue is full
_MAX_REASON = 1000  # characters that the daemon takes


class RequestSocket:
    """A request that was sent, or the error that prevented it.

    Nothing is raised here: the reader of the answer raises what is in `connect_error` or
    `send_error`. A BlockingIOError in `connect_error` means that the queue of connections stayed
    full for PATIENCE seconds; `send` tries again.

    Args:
        socket_path: the daemon's UNIX socket.
        timeout: seconds for the request and its answer; `deadline` is their end
            (time.monotonic).
        method: of HTTP.
        path: of HTTP.
        body: JSON, or None.
    """

    __slots__ = (
        "_request",
        "_socket_path",
        "connect_error",
        "deadline",
        "method",
        "send_error",
        "sock",
    )

    def __init__(
        self,
        socket_path: "str | bytes",
        timeout: float,
        method: str,
        path: str,
        body: "bytes | None" = None,
    ) -> None:
        self.method = method
        self.deadline = time.monotonic() + timeout
        self.connect_error: OSError | None = None
        self.send_error: TimeoutError | None = None
        self.sock = socket(AF_UNIX, SOCK_STREAM)
        self._socket_path, self._request = socket_path, _http_request(method, path, body)
        self.send(min(timeout, PATIENCE))

    def send(self, seconds: float) -> None:
        """Connect and send; where the queue of connections is full, try for so many seconds.

        Anybody may fill the queue of systemd's socket while the daemon is down. connect(2) then
        fails at once (EAGAIN), but succeeds as soon as the daemon runs or the crowd leaves.
        """
        until = min(self.deadline, time.monotonic() + seconds)
        self.connect_error = self._connect(until)
        if self.connect_error is not None:
            return
        self.sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
        try:
            self.sock.sendall(self._request)
        except TimeoutError as error:
            self.send_error = error
        except OSError:
            # The daemon may refuse before it has read all; its reason is waiting to be read.
            return

    def _connect(self, until: float) -> "OSError | None":
        # Without a time-out connect(2) would wait in the kernel, past the deadline.
        self.sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
        while True:
            try:
                self.sock.connect(self._socket_path)
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    return error
                time.sleep(_RETRY_SECONDS)
            except OSError as error:
                self.sock.close()
                return error
            else:
                return None


def request_level(
    socket_path: "str | bytes",
    level: str,
    zones: "Iterable[str]",
    reason: str,
    authorised_by: str,
    expect: "int | None" = None,
) -> RequestSocket:
    """Send a request for a level.

    Args:
        socket_path: the daemon's UNIX socket.
        level: its name.
        zones: where; every zone when there is none.
        reason: why, for the record.
        authorised_by: on whose word, for the record.
        expect: the generation that the person was shown.
    """
    parts = {
        "level": level,
        "reason": sendable_text(reason),
        "authorised_by": sendable_text(authorised_by),
    }
    body = ", ".join([f"{json_text(key)}: {json_text(value)}" for key, value in parts.items()])
    if zones:
        body += f', "zones": [{", ".join(map(json_text, zones))}]'
    if expect is not None:
        body += f', "expect_generation": {expect}'
    return RequestSocket(
        socket_path, CHANGE_SECONDS, "POST", "/v1/level", f"{{{body}}}".encode("ascii")
    )


def _http_request(method: str, path: str, body: "bytes | None") -> bytes:
    # HTTP/1.0: one answer, ended by its length or by the end of the connection (RFC 1945).
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: localhost\r\n"
        f"User-Agent: ecluse/{__version__} ({posix.getpid()})\r\n"
    )
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (head + "\r\n").encode("ascii") + (body or b"")


def sendable_text(text: str) -> str:
    """Replace what is not UTF-8 in an argument, and cut it: no cut may fail on its reason."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:_MAX_REASON]


def json_text(text: str) -> str:
    """Write a text as JSON in ASCII, as `json.dumps` does."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    escaped = [c if " " <= c <= "~" and c not in '"\\' else _json_escape(ord(c)) for c in text]
    return f'"{"".join(escaped)}"'


def _json_escape(code: int) -> str:
    if code > 0xFFFF:  # a pair of surrogates (RFC 8259, 7)
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"
