"""Bytes on the wire: checksums, SCTP and DNS messages, built by hand."""

import ipaddress
import itertools
import struct

TXT = 16
BINDINGS = (64, 65)
_TURN = itertools.count()
SCTP_INIT, SCTP_INIT_ACK = 1, 2
QTYPES = {1: "a", 28: "aaaa", 5: "cname", 10: "null", 15: "mx", 16: "txt", 64: "svcb", 65: "https"}


def internet_checksum(data: bytes) -> int:
    """Give the ones' complement sum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def crc32c(data: bytes) -> int:
    """Give the Castagnoli checksum (RFC 9260, appendix A).

    Conntrack drops SCTP without a valid one.
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sctp(source_port: int, destination_port: int, kind: int, verification: int) -> bytes:
    """Build an SCTP packet with one INIT or INIT ACK chunk (RFC 9260, 3.3.2)."""
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20, 0xEC105E, 65536, 1, 1, 1)
    head = struct.pack("!HHI", source_port, destination_port, verification)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def echo_request(family: int, ident: int, sequence: int, payload: bytes) -> bytes:
    """Build an ICMP (4) or ICMPv6 (6) echo request; the kernel fills in the checksum of ICMPv6."""
    kind = 8 if family == 4 else 128
    blank = struct.pack("!BBHHH", kind, 0, 0, ident, sequence) + payload
    return (
        blank[:2] + struct.pack("!H", internet_checksum(blank)) + blank[4:]
        if family == 4
        else blank
    )


def encode_name(name: str) -> bytes:
    """Encode a host name as labels (RFC 1035, 3.1)."""
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def decode_name(message: bytes, at: int) -> tuple[str, int]:
    """Decode the name at an offset, pointers followed.

    Give it in lower case with the offset behind it.
    """
    labels, end = [], 0
    while message[at]:
        if message[at] >= 0xC0:
            end = end or at + 2
            at = struct.unpack_from("!H", message, at)[0] & 0x3FFF
            continue
        labels.append(message[at + 1 : at + 1 + message[at]].decode().lower())
        at += 1 + message[at]
    return ".".join(labels), end or at + 1


def dns_query(name: str, kind: str, ident: int, *, edns: bool = False) -> bytes:
    """Build a DNS query for records of a kind of QTYPES.

    edns: tell that 1,232 bytes may come back (RFC 6891).
    """
    qtype = next(number for number, text in QTYPES.items() if text == kind)
    more = struct.pack("!BHHIH", 0, 41, 1232, 0, 0) if edns else b""
    head = struct.pack("!6H", ident, 0x0100, 1, 0, 0, int(edns))
    return head + encode_name(name) + struct.pack("!HH", qtype, 1) + more


def _record(owner: str, qtype: int, ttl: int, data: bytes) -> bytes:
    return encode_name(owner) + struct.pack("!HHIH", qtype, 1, ttl, len(data)) + data


def dns_answer(query: bytes, zone: dict) -> bytes | None:
    """Answer a query from a zone; None when the zone wants silence.

    zone: name -> {"a": [...], "aaaa": [...], "cname": name, "ttl": seconds, "rcode": n, "silent":
    bool}. A CNAME is followed inside the zone, each link with its own TTL. An unknown name gives
    NXDOMAIN. `*.operator.example` answers for whatever has no entry below it; "rotate": one address
    of the list, another each time; "txt": texts; "https" and "svcb": the bytes of each record's
    data, in hex.
    """
    ident = struct.unpack_from("!H", query)[0]
    name, end = decode_name(query, 12)
    qtype = struct.unpack_from("!H", query, end)[0]
    answers: list[bytes] = []
    rcode = 0
    for _ in range(8):
        entry = zone.get(name) or zone.get("*." + name.partition(".")[2], {"rcode": 3})
        if entry.get("silent"):
            return None
        rcode = entry.get("rcode", 0)
        ttl = entry.get("ttl", 300)
        if "cname" in entry:
            answers.append(_record(name, 5, ttl, encode_name(entry["cname"])))
            name = entry["cname"]
            continue
        found = entry.get(QTYPES.get(qtype, ""), ())
        if entry.get("rotate") and found:
            found = [found[next(_TURN) % len(found)]]
        for text in found:
            answers.append(_record(name, qtype, ttl, _data(qtype, text)))
        break
    head = struct.pack("!6H", ident, 0x8580 | rcode, 1, len(answers), 0, 0)
    return head + query[12 : end + 4] + b"".join(answers)


def _data(qtype: int, text: str) -> bytes:
    if qtype in BINDINGS:
        return bytes.fromhex(text)
    return bytes([len(text)]) + text.encode() if qtype == TXT else ipaddress.ip_address(text).packed


def dns_addresses(reply: bytes) -> tuple[int, list[str]]:
    """Give the response code and the addresses of a DNS reply."""
    _, flags, _, count, _, _ = struct.unpack_from("!6H", reply)
    _, at = decode_name(reply, 12)
    at += 4
    found = []
    for _ in range(count):
        _, at = decode_name(reply, at)
        qtype, _, _, size = struct.unpack_from("!HHIH", reply, at)
        if qtype in {1, 28}:
            found.append(str(ipaddress.ip_address(reply[at + 10 : at + 10 + size])))
        at += 10 + size
    return flags & 15, found
