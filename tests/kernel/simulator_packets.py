"""Packets as bytes, each with a number in it by which a witness knows it again, and what a witness
reads from them.
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from ecluse.policy import IPAddress
from tests.lab.inside.wire import crc32c, internet_checksum

ICMP, TCP, UDP, GRE, ESP, ICMPV6, OSPF, VRRP, L2TP, SCTP = 1, 6, 17, 47, 50, 58, 89, 112, 115, 132
SYN, RST, ACK = 0x02, 0x04, 0x10
# What a flow says in turn: its opening, the answer, what comes next, and the answer to that.
OPENING, ANSWER, NEXT, NEXT_ANSWER = range(4)
_MARK = b"ecluse#"
_TAG = re.compile(_MARK + b"(....)", re.DOTALL)


def tag(number: int) -> bytes:
    """Give the bytes that carry a packet's number (12: a multiple of 4, as SCTP wants it)."""
    return _MARK + struct.pack("!I", number) + b"."


@dataclass(frozen=True, slots=True)
class Ends:
    """Who sends to whom. For ICMP echo `source_port` is the identifier."""

    source: IPAddress
    destination: IPAddress
    source_port: int = 0
    destination_port: int = 0

    def turned(self) -> "Ends":
        return Ends(self.destination, self.source, self.destination_port, self.source_port)


def ip(protocol: int, ends: Ends, payload: bytes, hop_limit: int = 64) -> bytes:
    """Put an IP header before a payload (RFC 791, RFC 8200)."""
    source, destination = ends.source.packed, ends.destination.packed
    if ends.source.version == 6:
        return (
            struct.pack("!IHBB", 6 << 28, len(payload), protocol, hop_limit)
            + source
            + destination
            + payload
        )
    blank = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, hop_limit, protocol, 0)
    blank += source + destination
    return blank[:10] + struct.pack("!H", internet_checksum(blank)) + blank[12:] + payload


def _summed(protocol: int, ends: Ends, segment: bytes, at: int) -> bytes:
    """Write the checksum with pseudo header at an offset (RFC 9293, 3.1; RFC 8200, 8.1)."""
    pseudo = (
        ends.source.packed
        + ends.destination.packed
        + struct.pack("!IHBB", len(segment), 0, 0, protocol)
    )
    total = internet_checksum(pseudo + segment)
    if protocol == UDP:
        total = total or 0xFFFF  # 0 says that there is none (RFC 768)
    return segment[:at] + struct.pack("!H", total) + segment[at + 2 :]


def _tcp(ends: Ends, flags: int, payload: bytes) -> bytes:
    head = struct.pack(
        "!HHIIBBHHH", ends.source_port, ends.destination_port, 1000, 1000, 0x50, flags, 8192, 0, 0
    )
    return _summed(TCP, ends, head + payload, 16)


def _plain(protocol: int, ends: Ends, body: bytes) -> bytes:
    """Write a checksum over all of it: without one the kernel answers no refusal of a protocol that
    it does not know (nf_reject_verify_csum).
    """
    if ends.source.version == 6:
        return _summed(protocol, ends, body, 0)
    return struct.pack("!H", internet_checksum(body)) + body[2:]


def _udp(ends: Ends, payload: bytes) -> bytes:
    head = struct.pack("!HHHH", ends.source_port, ends.destination_port, 8 + len(payload), 0)
    return _summed(UDP, ends, head + payload, 6)


def _sctp(ends: Ends, turn: int, payload: bytes) -> bytes:
    """Say INIT, INIT ACK, COOKIE ECHO, COOKIE ACK in turn (RFC 9260); conntrack follows kinds and
    verification tags.
    """
    kind = (1, 2, 10, 11)[turn]
    ours, theirs = (0xAAAA, 0xBBBB) if turn in {OPENING, NEXT} else (0xBBBB, 0xAAAA)
    body = payload
    if turn in {OPENING, ANSWER}:
        body = (
            struct.pack("!IIHHI", ours, 65536, 1, 1, 1)
            + struct.pack("!HH", 0xC0DE, 4 + len(payload))
            + payload
        )
    chunk = struct.pack("!BBH", kind, 0, 4 + len(body)) + body
    head = struct.pack(
        "!HHI", ends.source_port, ends.destination_port, 0 if turn == OPENING else theirs
    )
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def icmp(ends: Ends, kind: int, code: int, rest: int, payload: bytes) -> tuple[int, bytes]:
    """Build an ICMP message of the family of `ends`: protocol number and bytes.

    rest: the header's last four bytes.
    """
    blank = struct.pack("!BBHI", kind, code, 0, rest) + payload
    if ends.source.version == 6:
        return ICMPV6, _summed(ICMPV6, ends, blank, 2)
    return ICMP, blank[:2] + struct.pack("!H", internet_checksum(blank)) + blank[4:]


def message(kind: str, ends: Ends, turn: int, number: int, hop_limit: int = 64) -> bytes:
    """Build what a flow of some kind says in its turn.

    kind: syn, ack (picked up in mid-stream), stray (an answer to nothing: invalid to conntrack),
    udp, echo, esp, gre, l2tp, sctp, ospf, vrrp, or `icmp6-TYPE` for a message of ICMPv6 that is no
    flow.
    """
    payload = tag(number)
    six = ends.source.version == 6
    match kind.partition("-")[0]:
        case "syn":
            protocol, body = TCP, _tcp(ends, (SYN, SYN | ACK, ACK, ACK)[turn], payload)
        case "ack":
            protocol, body = TCP, _tcp(ends, ACK, payload)
        case "stray":
            protocol, body = TCP, _tcp(ends, SYN | ACK, payload)
        case "udp":
            protocol, body = UDP, _udp(ends, payload)
        case "echo":
            asking = turn in {OPENING, NEXT}
            kinds = (128, 129) if six else (8, 0)
            ident = ends.source_port if asking else ends.destination_port
            protocol, body = icmp(ends, kinds[not asking], 0, ident << 16 | turn, payload)
        case "esp":
            protocol, body = ESP, struct.pack("!II", 0x1234, turn) + payload
        case "gre":
            protocol, body = GRE, struct.pack("!HH", 0, 0x6558) + payload
        case "sctp":
            protocol, body = SCTP, _sctp(ends, turn, payload)
        case "vrrp" | "ospf" | "l2tp":
            protocol = {"vrrp": VRRP, "ospf": OSPF, "l2tp": L2TP}[kind]
            body = _plain(protocol, ends, bytes(8) + payload)
        case _:
            protocol, body = icmp(ends, int(kind.removeprefix("icmp6-")), 0, 0, bytes(16) + payload)
    return ip(protocol, ends, body, hop_limit)


def error_about(packet: bytes, ends: Ends, number: int, *, too_big: bool) -> bytes:
    """Build an ICMP error about a packet: it can't be delivered (port unreachable), or is too big
    for a link (RFC 792, RFC 4443).
    """
    if ends.source.version == 4:
        kind, code, rest = (3, 4, 1400) if too_big else (3, 3, 0)
    else:
        kind, code, rest = (2, 0, 1400) if too_big else (1, 4, 0)
    protocol, body = icmp(ends, kind, code, rest, packet + tag(number))
    return ip(protocol, ends, body)


@dataclass(frozen=True, slots=True)
class Read:
    """A packet as a witness read it.

    numbers: of all tags in it, in order. kind, code: of ICMP. flags: of TCP.
    """

    protocol: int
    ends: Ends
    numbers: tuple[int, ...]
    flags: int = 0
    kind: int = -1
    code: int = -1

    @property
    def is_reset(self) -> bool:
        return self.protocol == TCP and bool(self.flags & RST) and not self.numbers

    @property
    def is_prohibition(self) -> bool:
        """Whether it says that a packet was administratively prohibited (RFC 1812, 5.2.7.1; RFC
        4443, 3.1).
        """
        return (self.protocol, self.kind, self.code) in {(ICMP, 3, 13), (ICMPV6, 1, 1)}


def read(packet: bytes) -> Read:
    """Read an IP packet without options or extension headers."""
    if packet[0] >> 4 == 4:
        protocol, at = packet[9], (packet[0] & 15) * 4
        source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    else:
        protocol, at = packet[6], 40
        source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    ports, flags, kind, code = (0, 0), 0, -1, -1
    if protocol in {TCP, UDP, SCTP}:
        ports = struct.unpack_from("!HH", packet, at)
        flags = packet[at + 13] if protocol == TCP else 0
    elif protocol in {ICMP, ICMPV6}:
        kind, code = packet[at], packet[at + 1]
        if kind in ({8, 0} if protocol == ICMP else {128, 129}):
            ident = struct.unpack_from("!H", packet, at + 4)[0]
            ports = (ident, 0) if kind in {8, 128} else (0, ident)
    numbers = tuple(struct.unpack("!I", found)[0] for found in _TAG.findall(packet))
    return Read(protocol, Ends(source, destination, *ports), numbers, flags, kind, code)


def address(text: str) -> IPAddress:
    return ip_address(text)
