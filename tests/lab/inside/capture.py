"""A witness on one interface.

Every packet, by flow, with the kernel's time, from a memory-mapped ring.

The ring (packet(7), PACKET_RX_RING, TPACKET_V2) copies the head of each packet, so neither bulk
streams nor a held-up reader overflow it soon; what it drops, it counts.
"""

import array
import bisect
import itertools
import mmap
import select
import socket
import struct
import threading
from ipaddress import ip_address

SOL_PACKET, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, TPACKET_V2 = 263, 5, 6, 10, 1
ETH_P_ALL, PACKET_OUTGOING, TP_STATUS_USER = 3, 4, 1
FRAME, BLOCK, BLOCKS = 256, 1 << 16, 512  # 131,072 packets: over six seconds at 20,000 a second
HEAD = struct.Struct("=IIIHHII")  # struct tpacket2_hdr: status, len, snaplen, mac, net, sec, nsec
PKTTYPE = 32 + 10  # sll_pkttype of the struct sockaddr_ll behind the header
TCP, UDP, SCTP, ICMP, ICMPV6, HOP_BY_HOP = 6, 17, 132, 1, 58, 0


def flow_key(frame: bytes) -> bytes | None:
    """Give what tells flows apart.

    Family, protocol, TCP flags, addresses, ports (or ICMP type and code); None if not IP.
    """
    if frame[12:14] == b"\x08\x00":
        family, protocol, addresses = b"\x04", frame[23], frame[26:34]
        at = 14 + (frame[14] & 15) * 4
        later_fragment = (frame[20] & 0x1F) or frame[21]
    elif frame[12:14] == b"\x86\xdd":
        family, protocol, addresses, at, later_fragment = b"\x06", frame[20], frame[22:54], 54, 0
        if (
            protocol == HOP_BY_HOP and len(frame) > 55
        ):  # before every multicast listener report (RFC 3810, 5)
            protocol, at = frame[54], 62 + frame[55] * 8
    else:
        return None
    flags, ports = 0, bytes(4)
    if not later_fragment:
        if protocol in {TCP, UDP, SCTP}:
            ports = frame[at : at + 4]
            flags = frame[at + 13] if protocol == TCP else 0
        elif protocol in {ICMP, ICMPV6}:
            ports = bytes([0, frame[at], 0, frame[at + 1]])
    return family + bytes([protocol, flags]) + addresses + ports


class Capture:
    """The capture of one interface. Times are nanoseconds since the epoch (CLOCK_REALTIME)."""

    def __init__(self, interface: str) -> None:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        frames = BLOCKS * BLOCK // FRAME
        self._sock.setsockopt(
            SOL_PACKET, PACKET_RX_RING, struct.pack("=4I", BLOCK, BLOCKS, FRAME, frames)
        )
        self._ring = mmap.mmap(self._sock.fileno(), BLOCK * BLOCKS)
        self._frames, self._next = frames, 0
        self._flows: dict[tuple[bool, bytes], array.array] = {}
        self._lock = threading.Lock()
        self._drops = 0
        self._sock.bind((interface, ETH_P_ALL))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        while True:
            poller.poll()
            with self._lock:
                self._drain()

    def _drain(self) -> None:
        ring, flows = self._ring, self._flows
        while True:
            base = self._next * FRAME
            status, _, snaplen, mac, _, seconds, nanos = HEAD.unpack_from(ring, base)
            if not status & TP_STATUS_USER:
                return
            key = flow_key(ring[base + mac : base + mac + min(snaplen, FRAME - mac)])
            if key is not None:
                where = (ring[base + PKTTYPE] == PACKET_OUTGOING, key)
                if where not in flows:
                    flows[where] = array.array("Q")
                flows[where].append(seconds * 1_000_000_000 + nanos)
            struct.pack_into("=I", ring, base, 0)
            self._next = (self._next + 1) % self._frames

    def flows(self, since: int = 0, until: int = 0) -> list:
        """Give every flow with packets in the time asked for (0: no bound), counted in that time.

        Each is `[outgoing, protocol, flags, source, destination, source port, destination port,
        packets, first, last, longest gap]`; for ICMP the ports are type and code.
        """
        with self._lock:
            self._drain()
            result = []
            for (outgoing, key), times in self._flows.items():
                first = bisect.bisect_left(times, since)
                last = bisect.bisect_right(times, until) if until else len(times)
                if first < last:
                    some = times[first:last]
                    gap = max((b - a for a, b in itertools.pairwise(some)), default=0)
                    result.append([outgoing, *_words(key), len(some), some[0], some[-1], gap])
            return result

    def drops(self) -> int:
        """Give how many packets the capture itself lost since it began."""
        with self._lock:
            self._drops += struct.unpack(
                "=II", self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
            )[1]
            return self._drops

    def clear(self) -> None:
        """Forget every packet so far."""
        with self._lock:
            self._drain()
            self._flows.clear()


def _words(key: bytes) -> list:
    size = 4 if key[0] == 4 else 16
    source, destination, ports = (
        key[3 : 3 + size],
        key[3 + size : 3 + 2 * size],
        key[3 + 2 * size :],
    )
    return [
        key[1],
        key[2],
        str(ip_address(source)),
        str(ip_address(destination)),
        *struct.unpack("!HH", ports.ljust(4, b"\0")[:4]),
    ]
