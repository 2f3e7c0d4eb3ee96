"""Who is at the other end of the socket, as the kernel says, and which role that process has.

Sources: SO_PEERCRED in socket(7) and unix(7); SO_PEERGROUPS (Linux 4.13) and SO_PEERPIDFD (Linux
6.5) in linux/net/core/sock.c (`sk_getsockopt`); pidfd_open(2); /proc/PID/comm and
/proc/PID/loginuid in proc(5).

/proc/PID/cmdline is not read: that needs the memory map of the peer, and a hostile peer can keep it
locked.
"""

import ctypes
import enum
import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ecluse.accounts import Accounts, is_number
from ecluse.records import Actor
from ecluse.safe_text import replace_unsafe

SO_PEERGROUPS = 59  # asm-generic/socket.h; Python's socket module has no name for it
SO_PEERPIDFD = 77
_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid
_PYTHON_LIMIT = 1024  # socket.getsockopt takes no larger buffer: 256 groups
_NGROUPS_MAX = 65536  # linux/limits.h
_NO_LOGIN = 0xFFFFFFFF  # loginuid of a process that no login started
_MAX_NAME = 64  # characters of a command's name


class Role(enum.StrEnum):
    """What a peer may do. An operator may do all that a reader may."""

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
    """Say whether the process that connected has ended, even if another one has its socket now.

    False where the kernel cannot tell.
    """
    try:
        pidfd = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        return error.errno != errno.ENOPROTOOPT  # ESRCH, EINVAL: no process has that number now
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
        return b""  # the safe side: without its groups a peer has no role by group
    return buffer.raw[: size.value]


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of two UNIX groups (name or number), by the groups of the peer's process.

    Root is an operator.
    """

    readers: str
    operators: str
    accounts: Accounts

    def role_of(self, peer: Peer) -> Role:
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

    Args:
        peer: the process that connected.
        accounts: names for uids.
        proc: where the kernel's process files are.
        gone: says whether the peer has ended. Another process may have its number by then, so the
            command and the login of such a peer are left out. It is called after they were read, so
            that a peer that ends meanwhile counts as ended.
    """
    command = replace_unsafe(_read_file(proc / str(peer.pid) / "comm").strip(), _MAX_NAME)
    login = _read_file(proc / str(peer.pid) / "loginuid").strip()
    user = accounts.user_name(peer.uid)
    if gone():
        return Actor(peer.uid, user, peer.pid, "")
    known = is_number(login) and int(login) != _NO_LOGIN
    return Actor(peer.uid, user, peer.pid, command, int(login) if known else None)


def _read_file(path: Path) -> str:
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
