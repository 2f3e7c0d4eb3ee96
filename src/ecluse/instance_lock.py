"""One daemon per state directory, and one per network namespace.

Two would undo each other's work.
"""

import fcntl
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ecluse.errors import StateError

_NAME = b"eclused"
_SOCKETS = Path("/proc/self/net/unix")
_ACCEPTS = b"00010000"  # __SO_ACCEPTCON among the flags of proc_net_unix(5)
_CONNECT_SECONDS = 1.0
_MAX_PENDING = 64


def lock_state(state_dir: Path) -> int:
    """Lock the state directory for this process; give the descriptor that has the lock.

    The folder itself is locked (flock(2)): that needs no room on its disk, and works on a disk that
    is read-only.

    Raises:
        StateError: Another process has it, or it cannot be used.
    """
    try:
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        handle = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        message = f"the state directory {state_dir} can't be used: {error.strerror}"
        raise StateError(message, hint="look at its owner, its mode and its disk") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        message = f"another eclused uses the state directory {state_dir}"
        raise StateError(message, hint="'ecluse status' asks the one that runs") from error
    return handle


def guard_network() -> socket.socket:
    """Be the only eclused of this network namespace, whatever state directory another has.

    Each daemon listens at an abstract address (unix(7)), which belongs to the namespace and goes
    with the process, and then looks for those of others. Its name ends at random: nobody can take
    it first. Any process may listen at such a name; only those of root and of our own user count,
    by the kernel's word (SO_PEERCRED).

    Raises:
        StateError: There is another one, or the kernel does not tell.
    """
    guard = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mine = b"%s-%s" % (_NAME, secrets.token_hex(16).encode())
    try:
        guard.bind(b"\0" + mine)
        guard.listen()
        guard.setblocking(False)
        _refuse_second_daemon(mine)
    except OSError as error:
        guard.close()
        message = f"nobody can say whether another eclused runs here: {error.strerror}"
        raise StateError(message, hint="look at /proc and at this machine's limits") from error
    except StateError:
        guard.close()
        raise
    return guard


def _refuse_second_daemon(mine: bytes) -> None:
    for name in _listening_names():
        pid, uid = _peer(name) if name != mine else (0, -1)
        if uid in {0, os.getuid()}:
            raise StateError(
                f"another eclused (pid {pid}) guards this machine's network",
                hint="'ecluse status' asks the one that runs; "
                "two of them would undo each other's work",
            )


def drop_pending(guard: socket.socket) -> None:
    """Close the connections of daemons that looked for us.

    The queue is bounded, and the next one must find room in it.
    """
    for _ in range(_MAX_PENDING):
        with suppress(BlockingIOError):
            asked, _address = guard.accept()
            asked.close()
            continue
        return


def _listening_names() -> Iterator[bytes]:
    """Give the names of daemons' sockets in this namespace, a stranger's among them."""
    for line in _SOCKETS.read_bytes().split(b"\n"):
        parts = line.split(maxsplit=7)
        if len(parts) == 8 and parts[3] == _ACCEPTS and parts[7].startswith(b"@" + _NAME):
            yield parts[7][1:]


def _peer(name: bytes) -> tuple[int, int]:
    """Give the process and user that listen at an abstract name.

    uid is -1 where nobody listens any more, or the kernel does not tell.
    """
    until = time.monotonic() + _CONNECT_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.setblocking(False)
            try:
                other.connect(b"\0" + name)
            except BlockingIOError:  # its queue is full: a daemon empties it at once
                if time.monotonic() < until:
                    time.sleep(0.01)
                    continue
                return 0, -1
            except OSError:
                return 0, -1
            pid, uid, _ = struct.unpack(
                "3i", other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            )
            return pid, uid
