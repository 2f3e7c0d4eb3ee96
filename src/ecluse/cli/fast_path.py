"""Where the process `ecluse` begins: a closing is on the socket before anything is loaded that only
its answer needs.

Python itself takes 6 ms to start. Each module that is imported on the way to the request is time in
which packets leave, so this, `quick` and `api.ask` import none but those of the interpreter itself
(and write annotations as texts: `from __future__` is a module, too).
"""

import posix
import sys

from ecluse.api.request_socket import RequestSocket, json_text
from ecluse.cli import fast_args

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

CHANGE_SECONDS = 60.0
"""How long the daemon may take for a change."""

_MOST_REASON = 1000  # characters that the daemon takes


def run() -> "NoReturn":
    """Be the process `ecluse`: one command line, then the end."""
    question: RequestSocket | None = None
    trouble: BaseException | None = None
    try:
        question = ask_closing(sys.argv[1:])
    except BaseException as error:  # noqa: BLE001 - Ctrl-C too is told where everything else is
        trouble = error
    while True:
        try:
            from ecluse.cli import main  # noqa: PLC0415 - what takes longer than the daemon needs to cut

            break
        except KeyboardInterrupt as error:
            trouble = error
    main.run(question, trouble)


def ask_closing(words: "Sequence[str]") -> RequestSocket | None:
    """Send what the command line asks for, if it closes and is of a form that `quick` reads; else
    leave it to `main`.
    """
    found = fast_args.parse_fast(words)
    if found is None or "level" not in found or found["no_daemon"]:
        return None
    if not (found["zone"] and "gateway" not in found["zone"]):
        tell_session()
    socket_path = found.get(
        "socket", posix.environ.get(b"ECLUSE_SOCKET") or fast_args.DEFAULT_SOCKET
    )
    return ask_level(
        socket_path,
        found["level"],
        found["zone"] or (),
        found["reason"] or "",
        found["authorised_by"] or "",
    )


def tell_session() -> None:
    """Say beforehand where what is about to be sent may end the session in which it is typed."""
    if b"SSH_CONNECTION" in posix.environ or b"SUDO_UID" in posix.environ:
        from ecluse.cli import session_warning  # noqa: PLC0415 - at the console nobody should pay for it

        session_warning.tell()


def ask_level(
    socket_path: "str | bytes",
    level: str,
    zones: "Iterable[str]",
    reason: str,
    authorised_by: str,
    expect: "int | None" = None,
) -> RequestSocket:
    """Ask for a level; in every zone when none is named. expect: the generation that was shown."""
    parts = {"level": level, "reason": sendable(reason), "authorised_by": sendable(authorised_by)}
    body = ", ".join(f"{json_text(key)}: {json_text(value)}" for key, value in parts.items())
    if zones:
        body += f', "zones": [{", ".join(map(json_text, zones))}]'
    if expect is not None:
        body += f', "expect_generation": {expect}'
    return RequestSocket(
        socket_path, CHANGE_SECONDS, "POST", "/v1/level", f"{{{body}}}".encode("ascii")
    )


def sendable(text: str) -> str:
    """Give what the daemon takes: arguments may hold bytes that are no UTF-8, and no cut may fail
    on its reason.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:_MOST_REASON]
