"""The project's only netlink socket: requests, dumps, batches, transactions, attributes.

Sources: linux/netlink.h, linux/netfilter/nfnetlink.h, netlink(7), netlink(3). Numbers in a header
are in host byte order; what netfilter puts into attributes is big endian (see `number`).
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from ecluse.errors import KernelError

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x001, 0x004, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800
NLM_F_DUMP_INTR = 0x010
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17

# The kernel fills a dump up to the reader's buffer, at most 32 KiB (netlink_dump in af_netlink.c).
DATAGRAM = 65536
RECEIVE_BUFFER = 4 << 20
TRIES = 20
SUBSYSTEM_BITS = 8

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_GENERIC = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource

Request = tuple[int, int, bytes]
"""One message of a transaction: kind and flags as in struct nlmsghdr, body from struct nfgenmsg on.
"""

T = TypeVar("T")


class Message(NamedTuple):
    """One netlink message. kind, flags, port: as in struct nlmsghdr; body: all that follows it."""

    kind: int
    flags: int
    sequence: int
    port: int
    body: bytes


class DumpInterruptedError(OSError):
    """The list changed while it was read (NLM_F_DUMP_INTR): the answer is a mix, ask again."""

    def __init__(self) -> None:
        super().__init__(errno.EINTR, "it changed while it was being read")


def attribute(kind: int, payload: bytes) -> bytes:
    """Build one attribute, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def text_attribute(kind: int, value: str) -> bytes:
    """Build an attribute that holds a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    """List the attributes of `data` from byte `start` on.

    Each is its type without flag bits, and its payload without padding.
    """
    found = []
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            raise OSError(errno.EBADMSG, "the kernel sent an attribute shorter than its header")
        found.append((kind & NLA_TYPE_MASK, data[start + 4 : start + length]))
        start += (length + 3) & ~3
    return found


def attribute_map(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Give the attributes of `data` by type; of several of one type the last."""
    return dict(attributes(data, start))


def text(payload: bytes) -> str:
    """Read a NUL-terminated string."""
    return payload.split(b"\0", 1)[0].decode(errors="replace")


def number(payload: bytes) -> int:
    """Read an unsigned number in network byte order, any length."""
    return int.from_bytes(payload, "big")


def netfilter_kind(subsystem: int, message: int) -> int:
    """Give the message type of a netfilter subsystem's message (linux/netfilter/nfnetlink.h)."""
    return subsystem << SUBSYSTEM_BITS | message


def netfilter_header(family: int) -> bytes:
    """Build struct nfgenmsg: what every netfilter message's body begins with (4 bytes)."""
    return _GENERIC.pack(family, 0, 0)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Build one netlink message."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(
    data: bytes, passed_over: Callable[[int, int], bool] | None = None
) -> Iterator[Message]:
    """Walk the messages of one datagram.

    passed_over: says by kind and port which are not worth making.
    """
    start, end = 0, len(data)
    while start + _HEADER.size <= end:
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, start)
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, "the kernel sent a message shorter than its header")
        if passed_over is None or not passed_over(kind, port):
            yield Message(kind, flags, sequence, port, data[start + _HEADER.size : start + length])
        start += (length + 3) & ~3


class NetlinkSocket:
    """One netlink socket in the network namespace of the thread that makes it.

    Not for two threads at once.

    Args:
        protocol: NETLINK_ROUTE or NETLINK_NETFILTER.
        groups: multicast groups, by number.
        receive_buffer: bytes; with CAP_NET_ADMIN it may be beyond net.core.rmem_max.
    """

    def __init__(
        self, protocol: int, groups: Sequence[int] = (), receive_buffer: int = RECEIVE_BUFFER
    ) -> None:
        self.socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._sequence = 0
        self._send_buffer = 65536
        try:
            self._set_receive_buffer(receive_buffer)
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
                self.socket.setsockopt(SOL_NETLINK, option, 1)
            self.socket.bind((0, sum(1 << (group - 1) for group in groups)))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        self.socket.close()

    def _set_receive_buffer(self, size: int) -> None:
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
        except PermissionError:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def receive(self) -> bytes:
        """Read one datagram.

        OSError: ENOBUFS when the kernel dropped some, EMSGSIZE when this one was cut off.
        """
        data, _, flags, _ = self.socket.recvmsg(DATAGRAM)
        if flags & socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "a netlink message was longer than the buffer")
        return data

    def _send(self, kind: int, flags: int, body: bytes) -> int:
        self._sequence += 1
        self.socket.send(message(kind, flags, self._sequence, body))
        return self._sequence

    def request(self, kind: int, body: bytes) -> bytes | None:
        """Ask one question; give the body of its one answer, None for a bare acknowledgement."""
        sequence = self._send(kind, NLM_F_REQUEST | NLM_F_ACK, body)
        answer = None
        while True:
            for reply in messages(self.receive()):
                if reply.sequence != sequence:
                    continue
                if reply.kind == NLMSG_ERROR:
                    raise_error(reply)
                    return answer
                answer = reply.body

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """List things; give each answer's body as it comes.

        Read it to its end, or close the socket: the kernel refuses the next dump while one is
        unread (EBUSY).

        Raises:
            DumpInterruptedError: at the end, when the list changed meanwhile.
        """
        sequence = self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
        interrupted = False
        while True:
            for reply in messages(self.receive()):
                if reply.sequence != sequence:
                    continue
                interrupted = interrupted or bool(reply.flags & NLM_F_DUMP_INTR)
                if reply.kind in {NLMSG_DONE, NLMSG_ERROR}:
                    raise_error(reply)
                    if interrupted:
                        raise DumpInterruptedError
                    return
                if not interrupted:
                    yield reply.body

    def batch(self, kind: int, flags: int, bodies: Sequence[bytes]) -> list[int]:
        """Send many requests in one datagram; give the errno of each that failed.

        The kernel carries out all of them, whatever fails. Only the last asks for an
        acknowledgement: the kernel answers in order, so that one ends the answers.
        """
        first, count = self._sequence + 1, len(bodies)
        self._sequence += count
        last = self._sequence
        self.socket.send(
            b"".join(
                message(
                    kind, NLM_F_REQUEST | flags | (NLM_F_ACK if number == last else 0), number, body
                )
                for number, body in enumerate(bodies, first)
            )
        )
        failed: list[int] = []
        while count:
            for reply in messages(self.receive()):
                code = -struct.unpack_from("=i", reply.body)[0]
                if code and first <= reply.sequence <= last:
                    failed.append(code)
                if reply.sequence == last:
                    return failed
        return failed

    def transaction(self, subsystem: int, requests: Sequence[Request]) -> None:
        """Carry out a netfilter transaction: whole, or not at all with the first fault as OSError.

        requests: one at least. The kernel acknowledges in order, after the commit. A fault of the
        commit itself names the batch's first message and comes before the acknowledgements
        (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
        """
        frame = _GENERIC.pack(0, 0, subsystem)
        first, last = self._sequence + 1, self._sequence + len(requests) + 2
        self._sequence = last
        parts = [message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, first, frame)]
        for number, (kind, flags, body) in enumerate(requests, first + 1):
            acknowledge = NLM_F_ACK if number == last - 1 else 0
            parts.append(message(kind, NLM_F_REQUEST | flags | acknowledge, number, body))
        parts.append(message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, last, frame))
        data = b"".join(parts)
        self._grow_send_buffer(len(data))
        self.socket.send(data)
        fault: OSError | None = None
        while True:
            for reply in messages(self.receive()):
                if not first <= reply.sequence <= last or reply.kind != NLMSG_ERROR:
                    continue
                try:
                    raise_error(reply)
                except OSError as error:
                    fault = fault or error
                    # A fault of the batch itself: no reply that follows can be relied on.
                    if reply.sequence == first:
                        raise
                if reply.sequence == last - 1:
                    if fault:
                        raise fault
                    return

    def _grow_send_buffer(self, size: int) -> None:
        """Let the socket take a datagram of this size: netlink_sendmsg charges it whole."""
        if size > self._send_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, size)
            self._send_buffer = size


class SocketPool:
    """Sockets of one protocol that stay open between uses.

    Closing one waits for nf_tables, 10 ms just after a transaction. Any thread may borrow one; all
    threads must be in one network namespace.
    """

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._idle: list[NetlinkSocket] = []

    @contextmanager
    def borrow(self) -> Iterator[NetlinkSocket]:
        """Lend a socket. One that an error leaves with answers unread is closed."""
        try:
            netlink = self._idle.pop()
        except IndexError:
            netlink = NetlinkSocket(self._protocol)
        clean = False
        try:
            yield netlink
            clean = True
        except DumpInterruptedError:
            clean = True
            raise
        finally:
            if clean:
                self._idle.append(netlink)
            else:
                netlink.close()

    def close(self) -> None:
        """Close the sockets that are not borrowed."""
        while self._idle:
            self._idle.pop().close()


def raise_error(reply: Message) -> None:
    """Raise the OSError that NLMSG_ERROR or NLMSG_DONE carries; with code 0 there is none.

    Its text has the kernel's own words (NLMSGERR_ATTR_MSG) where it sent some.
    """
    code = -struct.unpack_from("=i", reply.body)[0] if len(reply.body) >= 4 else 0
    if code <= 0:
        return
    words = os.strerror(code)
    if reply.kind == NLMSG_ERROR and reply.flags & NLM_F_ACK_TLVS:
        # struct nlmsgerr, capped: the error and the header of the request stand before the
        # attributes
        said = attribute_map(reply.body, 4 + _HEADER.size).get(NLMSGERR_ATTR_MSG)
        words = f"{words} ({text(said)})" if said else words
    raise OSError(code, words)


def retry_interrupted(read: Callable[[], T]) -> T:
    """Read again while DumpInterruptedError says that the answer was a mix; at most TRIES times."""
    for _ in range(TRIES - 1):
        try:
            return read()
        except DumpInterruptedError:
            continue
    return read()


@contextmanager
def kernel_errors(doing: str, hint: str = "") -> Iterator[None]:
    """Turn an OSError into a KernelError that says what was being done.

    doing: completes "could not ..." (`read the chains of inet ecluse`).
    """
    try:
        yield
    except OSError as error:
        raise KernelError(
            f"could not {doing}: {error.strerror or error}; nothing was changed by trying",
            retry=error.errno in {errno.EINTR, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN},
            hint=hint
            or ("run eclused as root" if error.errno in {errno.EPERM, errno.EACCES} else ""),
        ) from error


def netfilter_ports() -> frozenset[int]:
    """Give the ports of this process's netfilter sockets in this thread's network namespace.

    Empty if /proc hides them. Of each line of /proc/net/netlink (proc(5)) the second field is the
    protocol, the third the port, the last the inode.
    """
    try:
        handles = {
            str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_socket()
        }
        lines = Path("/proc/thread-self/net/netlink").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return frozenset()
    sockets = (line.split() for line in lines)
    return frozenset(
        int(found[2])
        for found in sockets
        if int(found[1]) == NETLINK_NETFILTER and f"socket:[{found[-1]}]" in handles
    )
