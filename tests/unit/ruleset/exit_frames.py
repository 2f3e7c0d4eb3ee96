"""Frames as bytes, from packets of the simulator or from their parts."""

from ipaddress import ip_address

OURS = bytes.fromhex("020000000001")
PEER = bytes.fromhex("0200000000fe")


def ethernet(kind, body, source=OURS, to=PEER):
    return to + source + kind.to_bytes(2, "big") + body


def ip4(to, protocol, body, *, source="192.0.2.1", hops=64, offset=0, options=b""):
    length = 20 + len(options) + len(body)
    head = bytes([0x40 | (5 + len(options) // 4), 0]) + length.to_bytes(2, "big") + b"\0\1"
    head += offset.to_bytes(2, "big") + bytes([hops, protocol, 0, 0])
    return head + ip_address(source).packed + ip_address(to).packed + options + body


def ip6(to, protocol, body, *, source="2001:db8:1::1", hops=64):
    head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes([protocol, hops])
    return head + ip_address(source).packed + ip_address(to).packed + body


def ports(source, to, *, flags=0x10, more=16):
    """A transport header: what both TCP and UDP begin with, and TCP's flags at their place."""
    return (
        source.to_bytes(2, "big") + to.to_bytes(2, "big") + bytes(9) + bytes([flags]) + bytes(more)
    )


def ours(packet):
    """The frame of a simulator's packet, sent by us; its ICMP error or transport header with it."""
    if packet.icmp_type is not None:
        body = bytes([packet.icmp_type]) + bytes(packet.length - 1)
    else:
        body = ports(packet.source_port, packet.destination_port)
    make, kind = (ip4, 0x0800) if packet.source.version == 4 else (ip6, 0x86DD)
    return ethernet(
        kind,
        make(
            str(packet.destination), packet.protocol, body,
            source=str(packet.source), hops=packet.hop_limit,
        ),
    )  # fmt: skip
