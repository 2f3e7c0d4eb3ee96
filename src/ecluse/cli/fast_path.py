"""Entry point of the process `ecluse`: sends a cut before it loads what only the answer needs.

Python itself takes 6 ms to start. Packets leak while a module loads on the way to the request. So
this module, `fast_args` and `api.request_socket` import only what the interpreter has built in, and
write annotations as strings (`from __future__` is a module, too).
"""

import posix
import sys

from ecluse.api.request_socket import RequestSocket, request_level
from ecluse.cli import fast_args

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def run() -> "NoReturn":
    """Run the command line of this process, then end it."""
    request: RequestSocket | None = None
    trouble: BaseException | None = None
    try:
        request = send_closing(sys.argv[1:])
    except BaseException as error:  # noqa: BLE001 - main reports everything, Ctrl-C too
        trouble = error
    while True:
        try:
            from ecluse.cli import main  # noqa: PLC0415 - takes longer than the daemon's cut

            break
        except KeyboardInterrupt as error:
            trouble = error
    main.run(request, trouble)


def send_closing(words: "Sequence[str]") -> RequestSocket | None:
    """Send the request of a plainly typed `cut` or `isolate`; None for every other command line."""
    found = fast_args.parse_fast(words)
    if found is None or "level" not in found or found["no_daemon"]:
        return None
    zones = found["zone"] or ()
    # The same tests as in `session_warning`: where it would say nothing nobody should pay for that
    # import.
    remote = b"SSH_CONNECTION" in posix.environ or b"SUDO_UID" in posix.environ
    if remote and (not zones or "gateway" in zones):
        from ecluse.cli import session_warning  # noqa: PLC0415

        session_warning.warn_session(zones)
    socket_path = found.get(
        "socket", posix.environ.get(b"ECLUSE_SOCKET") or fast_args.DEFAULT_SOCKET
    )
    return request_level(
        socket_path, found["level"], zones, found["reason"] or "", found["authorised_by"] or ""
    )
