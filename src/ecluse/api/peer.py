"""Who is at the other end of the socket, in the kernel's words, and what role that gives.

Sources: SO_PEERCRED in socket(7) and unix(7); SO_PEERGROUPS (Linux 4.13) and SO_PEERPIDFD (Linux
6.5) in linux/net/core/sock.c (`sk_getsockopt`); pidfd_open(2); /proc/PID/comm and
/proc/PID/loginuid in proc(5); passwd(5), group(5).

Accounts are read straight from /etc/passwd and /etc/group, never through NSS: with the network cut,
a directory server that does not answer would hang the daemon in the very minute it is needed.
/proc/PID/cmdline is not read either: that needs the memory map of the peer, which a hostile peer
can hold locked.
"""

import ctypes
import enum
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ecluse.records import Actor

SO_PEERGROUPS = 59  # asm-generic/socket.h; Python's socket module has no name for it
SO_PEERPIDFD = 77
_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid
_PYTHON_LIMIT = 1024  # socket.getsockopt takes no larger buffer: 256 groups
_NGROUPS_MAX = 65536  # linux/limits.h
_ACCOUNTS_LIMIT = 8 << 20  # bytes of /etc/passwd or /etc/group that are read
_NO_LOGIN = 0xFFFFFFFF  # loginuid of a process that no login started


class Role(enum.StrEnum):
    """What a peer may do. An operator may all that a reader may."""

    NONE = "none"
    READER = "reader"
    OPERATOR = "operator"

    def includes(self, needed: "Role") -> bool:
        """Say whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as it was at connect(2).

    groups: its own group and the supplementary ones.
    """

    uid: int
    pid: int
    groups: frozenset[int]


def peer_of(sock: socket.socket) -> Peer:
    """Ask the kernel who connected to this UNIX stream socket. OSError when it is none."""
    pid, uid, gid = _UCRED.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    return Peer(uid, pid, frozenset((gid, *_peer_groups(sock))))


def has_ended(sock: socket.socket) -> bool:
    """Say whether the process that connected has ended, whoever holds its end now; False where the
    kernel cannot tell.
    """
    try:
        pidfd = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        return error.errno != errno.ENOPROTOOPT  # ESRCH, EINVAL: nobody has that number any more
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(pidfd)


def _peer_groups(sock: socket.socket) -> tuple[int, ...]:
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _PYTHON_LIMIT)
    except OSError:
        # ERANGE: more than 256 groups, which happens with accounts of a large directory.
        data = _all_peer_groups(sock)
    return struct.unpack(f"{len(data) // 4}I", data)


def _all_peer_groups(sock: socket.socket) -> bytes:
    buffer = ctypes.create_string_buffer(_NGROUPS_MAX * 4)
    size = ctypes.c_uint32(len(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, buffer, ctypes.byref(size)):
        return b""  # the closed side: without its groups a peer has no role by group
    return buffer.raw[: size.value]


@dataclass(slots=True)
class _Cached:
    """One account file, parsed again only when it changed."""

    path: Path
    parse: Callable[[str], Mapping[str, str]]
    seen: tuple[int, int, int] = (0, 0, 0)
    entries: Mapping[str, str] = field(default_factory=dict)

    def get(self, key: str) -> str | None:
        try:
            stat = self.path.stat()
            now = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if now != self.seen:
                with self.path.open("rb") as file:
                    self.entries = self.parse(file.read(_ACCOUNTS_LIMIT).decode("utf-8", "replace"))
                self.seen = now
        except OSError:
            self.seen, self.entries = (0, 0, 0), {}
        return self.entries.get(key)


def _users(text: str) -> dict[str, str]:
    """Uid -> user name; the first line wins, as for getpwuid(3)."""
    users: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 3 and parts[0]:
            users.setdefault(parts[2], parts[0])
    return users


def _groups(text: str) -> dict[str, str]:
    """Group name -> gid; the first line wins, as for getgrnam(3)."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 3 and _is_number(parts[2]):
            groups.setdefault(parts[0], parts[2])
    return groups


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


class Accounts:
    """The machine's own account files, read when they change."""

    def __init__(
        self, passwd: Path = Path("/etc/passwd"), group: Path = Path("/etc/group")
    ) -> None:
        self._passwd = _Cached(passwd, _users)
        self._group = _Cached(group, _groups)

    def user(self, uid: int) -> str:
        """Give the name of a uid, `uid 1234` when the machine has none for it."""
        return printable(self._passwd.get(str(uid)) or f"uid {uid}", 64)

    def gid(self, group: str) -> int | None:
        """Give the gid of a group name or of a number in text; None when there is no such group."""
        if _is_number(group):
            return int(group)
        found = self._group.get(group) if group else None
        return int(found) if found is not None else None


@dataclass(frozen=True, slots=True)
class Roles:
    """Two UNIX groups (name or number) and who is in them by the groups of his process.

    Root is an operator.
    """

    readers: str
    operators: str
    accounts: Accounts

    def of(self, peer: Peer) -> Role:
        """Give the role of a peer. A group that does not exist gives nobody a role."""
        if peer.uid == 0 or self.accounts.gid(self.operators) in peer.groups:
            return Role.OPERATOR
        return Role.READER if self.accounts.gid(self.readers) in peer.groups else Role.NONE

    def warnings(self) -> tuple[str, ...]:
        """Name each group that does not exist on this machine."""
        named = (("readers", self.readers), ("operators", self.operators))
        return tuple(
            f"the group of {role}, '{group}', is not in /etc/group: nobody but root has that role"
            for role, group in named
            if self.accounts.gid(group) is None
        )


def actor_of(
    peer: Peer,
    accounts: Accounts,
    proc: Path = Path("/proc"),
    *,
    gone: Callable[[], bool] = lambda: False,
) -> Actor:
    """Describe a peer for the audit log.

    command: its name in the kernel (comm), empty when it is gone.

    gone: says whether the peer is. /proc goes by a number that another process may have by then:
    command and login of a peer that is gone are left out. It is asked after they were read, so that
    a peer which goes meanwhile counts as gone.
    """
    command = printable(_read(proc / str(peer.pid) / "comm").strip(), 64)
    login = _read(proc / str(peer.pid) / "loginuid").strip()
    if gone():
        return Actor(peer.uid, accounts.user(peer.uid), peer.pid, "")
    known = _is_number(login) and int(login) != _NO_LOGIN
    return Actor(
        peer.uid, accounts.user(peer.uid), peer.pid, command, int(login) if known else None
    )


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 256).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def printable(text: str, limit: int) -> str:
    """Give at most `limit` characters of text, with every control, format and unassigned character
    as `?`.
    """
    return "".join(c if c.isprintable() else "?" for c in text[:limit])
