"""Packets by hand.

Frames, sockets in other namespaces, a witness that costs next to nothing while it watches.
"""

import ctypes
import ipaddress
import mmap
import os
import socket
import struct
import threading
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.inside.capture import (
    ETH_P_ALL,
    HEAD,
    PACKET_OUTGOING,
    PACKET_RX_RING,
    PACKET_STATISTICS,
    PACKET_VERSION,
    PKTTYPE,
    SOL_PACKET,
    TP_STATUS_USER,
    TPACKET_V2,
    flow_key,
)
from tests.lab.inside.wire import internet_checksum

FRAME, BLOCK, BLOCKS = 256, 1 << 16, 1024  # 262,144 packets: 26 seconds at 10,000 a second
CLONE_NEWNET = 0x40000000  # sched.h
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
_KINDS = {"tcp": TCP, "udp": UDP, "icmp4": ICMP, "icmp6": ICMPV6}
_PSH_ACK = 0x18


def in_namespace(namespace: str, make: Callable[[], Any]) -> Any:
    """Call `make` on a thread inside a namespace.

    A socket stays where it was made (network_namespaces(7)).
    """
    found: list[Any] = []
    problems: list[Exception] = []

    def work() -> None:
        handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            found.append(make())
        except Exception as error:
            problems.append(error)
        finally:
            os.close(handle)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found[0]


def mac(namespace: str, interface: str) -> bytes:
    """Give the hardware address of an interface of a namespace."""

    def read() -> bytes:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind((interface, 0))
            return sock.getsockname()[4]

    return in_namespace(namespace, read)


def _transport(kind: int, addresses: bytes, ports: tuple[int, int], body: bytes) -> bytes:
    if kind == TCP:
        head = struct.pack("!HHIIBBHHH", *ports, 1, 1, 0x50, _PSH_ACK, 512, 0, 0)
        at = 16
    elif kind == UDP:
        head = struct.pack("!HHHH", *ports, 8 + len(body), 0)
        at = 6
    else:
        # The echo identifier is what tells flows of ICMP apart, so the source port stands in for
        # it.
        head = struct.pack("!BBHHH", 8 if kind == ICMP else 128, 0, 0, ports[0], 1)
        at = 2
    if kind == UDP and len(addresses) == 8:
        return head + body  # no checksum is fine in IPv4 (RFC 768)
    pseudo = b"" if kind == ICMP else addresses + struct.pack("!II", len(head) + len(body), kind)
    total = internet_checksum(pseudo + head + body)
    return head[:at] + struct.pack("!H", total) + head[at + 2 :] + body


def frame(
    macs: tuple[bytes, bytes],
    kind: str,
    source: str,
    destination: str,
    source_port: int,
    destination_port: int,
    size: int = 64,
    body: bytes | None = None,
) -> bytes:
    """Build an Ethernet frame of `size` bytes (without its checksum) with a whole packet in it, or
    around a body.

    macs: destination, source. kind: `tcp` (a segment of a stream that is under way), `udp`, `icmp`
    (echo request).
    """
    one, other = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    protocol = _KINDS[kind if kind != "icmp" else f"icmp{one.version}"]
    addresses = one.packed + other.packed
    fixed = 14 + (20 if one.version == 4 else 40) + (20 if protocol == TCP else 8)
    if body is None:
        body = bytes(max(0, size - fixed))
    payload = _transport(protocol, addresses, (source_port, destination_port), body)
    if one.version == 6:
        head = struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64) + addresses
        return macs[0] + macs[1] + b"\x86\xdd" + head + payload
    blank = (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0) + addresses
    )
    head = blank[:10] + struct.pack("!H", internet_checksum(blank)) + blank[12:]
    return macs[0] + macs[1] + b"\x08\x00" + head + payload


def write_frames(path: Path, frames: list[bytes]) -> None:
    """Write frames for the sender (see `sender.py`)."""
    path.write_bytes(b"".join(struct.pack("!H", len(one)) + one for one in frames))


class Witness:
    """Every packet of one interface with the kernel's time, in a ring that is read only when asked.

    So nothing of it runs while something is timed, but a copy of each packet's head in the kernel.
    """

    def __init__(self, namespace: str, interface: str) -> None:
        self._sock = in_namespace(namespace, lambda: self._make(interface))
        self._ring = mmap.mmap(self._sock.fileno(), BLOCK * BLOCKS)
        self._count, self._next = BLOCK * BLOCKS // FRAME, 0

    @staticmethod
    def _make(interface: str) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        shape = struct.pack("=4I", BLOCK, BLOCKS, FRAME, BLOCK * BLOCKS // FRAME)
        sock.setsockopt(SOL_PACKET, PACKET_RX_RING, shape)
        sock.bind((interface, ETH_P_ALL))
        return sock

    def take(self, flows: dict[bytes, "array[int]"] | None = None) -> dict[bytes, "array[int]"]:
        """Give what came in since the last time: flow key -> times in nanoseconds since the epoch.

        The key is that of `capture.flow_key`. flows: add to these. RuntimeError when the ring
        overflowed.
        """
        flows = {} if flows is None else flows
        ring = self._ring
        while True:
            base = self._next * FRAME
            status, _, snaplen, start, _, seconds, nanos = HEAD.unpack_from(ring, base)
            if not status & TP_STATUS_USER:
                break
            if ring[base + PKTTYPE] != PACKET_OUTGOING:
                key = flow_key(ring[base + start : base + start + min(snaplen, FRAME - start)])
                if key is not None:
                    flows.setdefault(key, array("Q")).append(seconds * 1_000_000_000 + nanos)
            struct.pack_into("=I", ring, base, 0)
            self._next = (self._next + 1) % self._count
        lost = struct.unpack("=II", self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        if lost:
            raise RuntimeError(f"the witness lost {lost} packets: this measurement is void")
        return flows

    def close(self) -> None:
        self._ring.close()
        self._sock.close()


def destination(key: bytes) -> str:
    """Give the destination address of a flow key."""
    size = 4 if key[0] == 4 else 16
    return str(ipaddress.ip_address(key[3 + size : 3 + 2 * size]))


def source_port(key: bytes) -> int:
    """Give the source port of a flow key."""
    return int.from_bytes(key[-4:-2], "big")


def backlog_drops() -> int:
    """Give how many packets this machine's queues dropped (softnet_stat).

    The rig's fault, never the gate's.
    """
    lines = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def by_destination(flows: dict[bytes, "array[int]"]) -> Counter[str]:
    """Count packets by destination."""
    found: Counter[str] = Counter()
    for key, times in flows.items():
        found[destination(key)] += len(times)
    return found
