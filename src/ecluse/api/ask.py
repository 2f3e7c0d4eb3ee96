"""The first half of a question to the daemon: connect and send, with nothing but what the interpreter has in itself.

Whatever is imported here a cut waits for: `socket` alone would cost 1.6 ms, `json` 4 ms (it pulls in `re`). The answer
is read by `client`, which may take its time.
"""

import posix
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from ecluse import __version__


class Question:
    """A request on its way. What kept it from going is in `unreached` or `unsent`, for whoever reads the answer.

    timeout: seconds for the whole question and its answer; `deadline` is when they are over (time.monotonic).
    """

    __slots__ = ("deadline", "method", "sock", "unreached", "unsent")

    def __init__(
        self, socket_path: "str | bytes", timeout: float, method: str, path: str, body: "bytes | None" = None
    ) -> None:
        self.method = method
        self.deadline = time.monotonic() + timeout
        self.unreached: OSError | None = None
        self.unsent: TimeoutError | None = None
        self.sock = socket(AF_UNIX, SOCK_STREAM)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(socket_path)
        except OSError as error:
            self.sock.close()
            self.unreached = error
            return
        try:
            self.sock.sendall(_request(method, path, body))
        except TimeoutError as error:
            self.unsent = error
        except OSError:
            # The daemon may refuse before it has read all; its reason is waiting to be read.
            return


def _request(method: str, path: str, body: "bytes | None") -> bytes:
    # HTTP/1.0: one answer, ended by its length or by the end of the connection (RFC 1945).
    head = f"{method} {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: ecluse/{__version__} ({posix.getpid()})\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (head + "\r\n").encode("ascii") + (body or b"")


def json_text(text: str) -> str:
    """Write a text as JSON in ASCII, as `json.dumps` would."""
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else _escaped(ord(c)) for c in text) + '"'


def _escaped(code: int) -> str:
    if code > 0xFFFF:  # a pair of surrogates (RFC 8259, 7)
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"
