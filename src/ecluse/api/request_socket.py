"""The first half of a question to the daemon: connect and send, with nothing but what the
interpreter has in itself.

Whatever is imported here a cut waits for: `socket` alone would cost 1.6 ms, `json` 4 ms (it pulls
in `re`). The answer is read by `client`, which may take its time.
"""

import posix
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from ecluse import __version__

PATIENCE = 3.0
"""Seconds without an answer after which a person wants to know why."""

_AGAIN = 0.02
"""Seconds between two tries at a socket whose queue is full."""


class RequestSocket:
    """A request on its way.

    What kept it from going is in `unreached` or `unsent`, for whoever reads the answer.

    timeout: seconds for the whole question and its answer; `deadline` is when they are over
    (time.monotonic). A BlockingIOError in `unreached`: the queue of connections stayed full for
    PATIENCE; `send` tries on.
    """

    __slots__ = ("_request", "_socket_path", "deadline", "method", "sock", "unreached", "unsent")

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
        self.unreached: OSError | None = None
        self.unsent: TimeoutError | None = None
        self.sock = socket(AF_UNIX, SOCK_STREAM)
        self._socket_path, self._request = socket_path, _request(method, path, body)
        self.send(min(timeout, PATIENCE))

    def send(self, seconds: float) -> None:
        """Connect and send. Where the queue of connections is full, try so long.

        Anybody may fill the queue of systemd's socket while the daemon is down. connect(2) then
        fails at once (EAGAIN), but there is room as soon as the daemon runs, or whoever filled it
        goes.
        """
        until = min(self.deadline, time.monotonic() + seconds)
        self.unreached = self._connected(until)
        if self.unreached is not None:
            return
        self.sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
        try:
            self.sock.sendall(self._request)
        except TimeoutError as error:
            self.unsent = error
        except OSError:
            # The daemon may refuse before it has read all; its reason is waiting to be read.
            return

    def _connected(self, until: float) -> "OSError | None":
        # Without a time-out connect(2) would wait in the kernel, past the deadline.
        self.sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
        while True:
            try:
                self.sock.connect(self._socket_path)
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    return error
                time.sleep(_AGAIN)
            except OSError as error:
                self.sock.close()
                return error
            else:
                return None


def _request(method: str, path: str, body: "bytes | None") -> bytes:
    # HTTP/1.0: one answer, ended by its length or by the end of the connection (RFC 1945).
    head = f"{method} {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: ecluse/{__version__} ({posix.getpid()})\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (head + "\r\n").encode("ascii") + (body or b"")


def json_text(text: str) -> str:
    """Write a text as JSON in ASCII, as `json.dumps` would."""
    return (
        '"'
        + "".join(c if " " <= c <= "~" and c not in '"\\' else _escaped(ord(c)) for c in text)
        + '"'
    )


def _escaped(code: int) -> str:
    if code > 0xFFFF:  # a pair of surrogates (RFC 8259, 7)
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"
