"""The listening socket: made here, or passed by systemd (sd_listen_fds(3))."""

import errno
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ecluse.errors import StateError

BACKLOG = 1024  # cut by net.core.somaxconn
_LISTEN_FDS_START = 3  # sd-daemon.h: SD_LISTEN_FDS_START
_PATH_LIMIT = 107  # sockaddr_un.sun_path less its final NUL, unix(7)


@dataclass(slots=True)
class Listener:
    """A socket that listens.

    inode: (device, inode) of the socket file; None when it is not ours to remove.
    """

    sock: socket.socket
    path: Path | None = None
    inode: tuple[int, int] | None = None

    def close(self) -> None:
        """Stop listening, and remove the socket file if it is still ours."""
        if self.path is not None and self.inode is not None:
            with suppress(OSError):
                found = self.path.lstat()
                if (found.st_dev, found.st_ino) == self.inode:
                    self.path.unlink()
        self.sock.close()


def activated_fds(environ: Mapping[str, str], pid: int | None = None) -> tuple[int, ...]:
    """Give the descriptors that systemd passed to this process (sd_listen_fds(3)).

    Args:
        environ: where systemd tells of them.
        pid: that they must be meant for; None for this process.
    """
    try:
        meant = int(environ.get("LISTEN_PID", ""))
        count = int(environ.get("LISTEN_FDS", ""))
    except ValueError:
        return ()
    if meant != (os.getpid() if pid is None else pid) or not 0 < count < 64:
        return ()
    return tuple(range(_LISTEN_FDS_START, _LISTEN_FDS_START + count))


def adopt_socket(descriptor: int) -> Listener:
    """Take over a listening UNIX stream socket that was passed to this process.

    StateError when it is something else.
    """
    try:
        sock = socket.socket(fileno=descriptor)
        fits = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM
        fits = fits and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise StateError(
            f"descriptor {descriptor} from systemd is no socket: {error.strerror}"
        ) from None
    if not fits:
        sock.detach()
        raise StateError(
            f"descriptor {descriptor} from systemd is not a listening UNIX stream socket",
            hint="the socket unit needs ListenStream= with an absolute path, and Accept=no",
        )
    sock.setblocking(False)
    os.set_inheritable(descriptor, False)
    return Listener(sock)


def listen(path: Path, mode: int, gid: int | None) -> Listener:
    """Listen at `path`. A socket file of a dead daemon is replaced in one step.

    Args:
        path: of the socket file.
        mode: its permission bits.
        gid: its group; None for that of the process.

    Raises:
        StateError: a living daemon answers there, it is no socket, or it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    if len(os.fsencode(temporary)) > _PATH_LIMIT:
        raise StateError(
            f"the socket path is too long: {path}",
            hint=f"a UNIX socket path has at most {_PATH_LIMIT} bytes; "
            "choose a shorter one with --socket",
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        sock.bind(os.fspath(temporary))
        # Nobody can connect before listen(2): there is no moment with wrong permissions.
        temporary.chmod(mode)
        if gid is not None:
            os.chown(temporary, -1, gid)
        sock.listen(BACKLOG)
        _require_unused(path)
        temporary.replace(path)
        found = path.lstat()
    except OSError as error:
        _discard(sock, temporary)
        raise StateError(
            f"cannot listen at {path}: {error.strerror}",
            hint="run the daemon as root, or choose --socket",
        ) from None
    except StateError:
        _discard(sock, temporary)
        raise
    sock.setblocking(False)
    return Listener(sock, path, (found.st_dev, found.st_ino))


def _discard(sock: socket.socket, temporary: Path) -> None:
    sock.close()
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def _require_unused(path: Path) -> None:
    """Raise StateError unless the path is free, or its socket's daemon is dead."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise StateError(
            f"{path} is there and is no socket", hint="move it away, or choose another --socket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(os.fspath(path))
    if code in {errno.ECONNREFUSED, errno.ENOENT}:
        return
    raise StateError(
        f"another daemon is listening at {path}",
        hint="stop it first (systemctl stop ecluse), or choose another --socket",
    )
