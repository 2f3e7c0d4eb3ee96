"""Paced, numbered streams that an echo server sends back.

They tell loss, reordering, gaps and retransmissions.
"""

import itertools
import os
import select
import socket
import struct
import threading
import time
from collections import Counter

from tests.lab.inside.probes import TAG, dial, echo, fault

HEADER = struct.Struct("!Q")
BURST = 64  # a sender that was held up catches up in bursts no longer than this
SO_MEMINFO, SK_MEMINFO_DROPS = 55, 8  # include/uapi/linux/sock_diag.h


def roomy(sock: socket.socket) -> None:
    """Give a socket buffers that a held-up reader does not overflow (the FORCE options of
    socket(7), root).
    """
    sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
    sock.setsockopt(socket.SOL_SOCKET, 32, 16 << 20)  # SO_SNDBUFFORCE


def own_drops(sock: socket.socket) -> int:
    """Give how many packets this socket itself dropped: the rig's fault, never the gateway's."""
    return struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[
        SK_MEMINFO_DROPS
    ]


def tcp_counts(sock: socket.socket) -> dict:
    """Read TCP_INFO (struct tcp_info, include/uapi/linux/tcp.h).

    retransmits: segments sent again. spurious: of those, needless ones, by the peer's word (DSACK).
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return {
        "retransmits": struct.unpack_from("=I", info, 100)[0],
        "spurious": struct.unpack_from("=I", info, 216)[0],
        "segments": struct.unpack_from("=I", info, 156)[0],
    }


class _Stream:
    def __init__(self, protocol, host, port, rate, size, source) -> None:
        self.protocol, self.rate, self.size = protocol, rate, max(size, HEADER.size)
        self.tag = os.urandom(TAG)
        self.sock = dial(protocol, host, port, source, 2.0)
        try:
            roomy(self.sock)
            if protocol == "tcp":
                echo(self.sock, self.tag)
        except BaseException:
            self.sock.close()
            raise
        self.sock.setblocking(False)
        self.padding = bytes(self.size - HEADER.size)
        self.sent = self.received = self.duplicates = self.reordered = 0
        self.highest, self.longest, self.last = -1, 0, 0
        self.seen = bytearray()
        self.errors: Counter = Counter()
        self.inbox, self.outbox = b"", b""
        self.dead = ""
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        start = self.last = time.monotonic_ns()
        while not self.stopping.is_set() and not self.dead:
            due = (time.monotonic_ns() - start) * self.rate // 1_000_000_000 + 1
            for _ in range(min(due - self.sent, BURST)):
                if not self._send():
                    break
            self._drain()
            select.select([self.sock], [], [], 0.001)

    def _send(self) -> bool:
        message = self.outbox or HEADER.pack(self.sent) + self.padding
        try:
            count = self.sock.send(message)
        except BlockingIOError:
            return False
        except PermissionError:
            self.errors["EPERM"] += 1  # an output hook dropped it: this packet is gone
            count = len(message)
        except OSError as error:
            self._failed(error)  # news of an earlier packet: this one was not sent
            return False
        if not self.outbox:
            self.sent += 1
            self.seen.append(0)
        self.outbox = message[count:]
        return not self.outbox

    def _failed(self, error: OSError) -> None:
        self.errors[fault(error)] += 1
        if self.protocol == "tcp":
            self.dead = fault(error)

    def _drain(self) -> None:
        while not self.dead:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)
                return
            if self.protocol == "udp":
                self._take(data)
                continue
            if not data:
                self.dead = "closed"
                return
            self.inbox += data
            whole = len(self.inbox) // self.size * self.size
            for at in range(0, whole, self.size):
                self._take(self.inbox[at : at + self.size])
            self.inbox = self.inbox[whole:]

    def _take(self, message: bytes) -> None:
        now = time.monotonic_ns()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        number = HEADER.unpack_from(message)[0]
        if number >= len(self.seen) or self.seen[number]:
            self.duplicates += 1
            return
        self.seen[number] = 1
        self.received += 1
        self.reordered += number < self.highest
        self.highest = max(self.highest, number)

    def report(self) -> dict:
        counts = {"retransmits": 0, "spurious": 0, "segments": 0}
        return {
            "sent": self.sent,
            "received": self.received,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "longest_gap_ms": self.longest / 1e6,
            "silent_ms": (time.monotonic_ns() - self.last) / 1e6,
            "errors": dict(self.errors),
            "ended": self.dead,
            "rig_drops": own_drops(self.sock),
            "tag": self.tag.hex() if self.protocol == "tcp" else "",
        } | (tcp_counts(self.sock) if self.protocol == "tcp" else counts)

    def stop(self, grace: float) -> dict:
        """Stop sending, wait at most `grace` seconds for what is under way, report and close."""
        self.stopping.set()
        self.thread.join()
        deadline = time.monotonic() + grace
        while self.received < self.sent and not self.dead and time.monotonic() < deadline:
            if self.outbox:
                self._send()
            select.select([self.sock], [], [], 0.01)
            self._drain()
        result = self.report()
        self.sock.close()
        return result


class Streams:
    """The running streams of one namespace, by number."""

    def __init__(self) -> None:
        self._running: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)

    def start(
        self, protocol: str, host: str, port: int, rate: int, size: int = 64, source: str = ""
    ) -> int:
        """Start `rate` messages of `size` bytes a second. OSError when it can't even connect."""
        number = next(self._numbers)
        self._running[number] = _Stream(protocol, host, port, rate, size, source)
        return number

    def report(self, number: int) -> dict:
        return self._running[number].report()

    def stop(self, number: int, grace: float = 1.0) -> dict:
        return self._running.pop(number).stop(grace)
