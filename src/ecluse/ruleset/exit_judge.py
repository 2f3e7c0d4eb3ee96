"""Judges a frame by the second lock, in Python; tests hold it against the kernel. Rates apart."""

from collections.abc import Iterator
from dataclasses import dataclass

from ecluse.policy import LinkProtocol, Preset, network_interval, parse_network
from ecluse.ruleset import program as p
from ecluse.ruleset.exit_values import Ends, ExitDevice, ExitLock
from ecluse.ruleset.lifeline import OSPF

KEPT4, KEPT6, LINK, LOST = "kept4", "kept6", "link", "lost"
_IP, _IP6, _ARP = 0x0800, 0x86DD, 0x0806
_EXTENSIONS = {0, 43, 44, 51, 60}
_ROUTING, _FRAGMENT, _AH, _NOTHING = 43, 44, 51, 59
_BESIDE = {LinkProtocol.LACP: 0x8809, LinkProtocol.LLDP: 0x88CC, LinkProtocol.EAPOL: 0x888E}


@dataclass(frozen=True, slots=True)
class _Ip:
    """An IP packet as nf_tables reads it. protocol: None where it is malformed."""

    version: int
    destination: int
    hops: int
    length: int
    protocol: int | None
    later: bool
    at: bytes
    """From the transport header on."""
    routed: bool

    def word(self, offset: int) -> int | None:
        """Give 16 bits of the transport header; None in a later fragment."""
        if self.protocol is None or self.later or len(self.at) < offset + 2:
            return None
        return int.from_bytes(self.at[offset : offset + 2], "big")

    def byte(self, offset: int) -> int | None:
        """Give 8 bits of the transport header; None in a later fragment."""
        if self.protocol is None or self.later or len(self.at) <= offset:
            return None
        return self.at[offset]


def judge(lock: ExitLock, device: ExitDevice, frame: bytes, says: int | None = None) -> str:
    """Give the counter that a frame is counted in: `kept4`, `kept6`, `link`; `lost` is dropped.

    frame: what leaves; without Ethernet header where the device has none.
    says: the ethertype that its sender's socket says; None: the frame's own.
    """
    if not device.ethernet:
        kind = says or (_IP if frame[:1] and frame[0] >> 4 == 4 else _IP6)
        return _rest(lock, device, kind, kind, frame, len(frame), ethernet=False)
    mac, kind = int.from_bytes(frame[6:12], "big"), int.from_bytes(frame[12:14], "big")
    said = kind if says is None else says
    tag = kind, int.from_bytes(frame[14:16], "big") & 0xFFF
    if mac in device.zone_macs or tag in device.zone_tags:
        return LINK
    virtual = Preset.VRRP in lock.presets and mac >> 8 in {0x00005E0001, 0x00005E0002}
    if mac not in device.macs and not virtual:
        return LOST
    if tag in device.outside_tags:
        # A VLAN's device keeps the tag beside the packet, which says what is inside it.
        inner = int.from_bytes(frame[16:18], "big")
        return _rest(lock, device, said, inner, frame[18:], len(frame), tagged=True)
    return _rest(lock, device, said, kind, frame[14:], len(frame), group=frame[:6])


def _rest(
    lock: ExitLock,
    device: ExitDevice,
    said: int,
    kind: int,
    body: bytes,
    length: int,
    *,
    ethernet: bool = True,
    tagged: bool = False,
    group: bytes = b"",
) -> str:
    if said in {_IP, _IP6} and kind == said:
        packet = _parse4(body) if said == _IP else _parse6(body)
        return LOST if packet is None or packet.routed else _judge_ip(lock, packet)
    if not ethernet or (said != kind and kind in {_IP, _IP6, _ARP}):
        return LOST
    if kind == _ARP:
        return LINK if _is_plain_arp(body) and length <= 64 else LOST
    return LINK if not tagged and kind in _others(lock, device, body, group, kind) else LOST


def _others(
    lock: ExitLock, device: ExitDevice, body: bytes, group: bytes, kind: int
) -> Iterator[int]:
    yield from (_BESIDE[one] for one in lock.link if one in _BESIDE)
    to_bridges = group == bytes.fromhex("0180c2000000") and body[:2] == b"BB"
    if LinkProtocol.STP in lock.link and kind <= 1500 and to_bridges:
        yield kind
    if device.dials or device.carries_ppp:
        yield 0x8863
    if device.carries_ppp:
        yield 0x8864


def _is_plain_arp(body: bytes) -> bool:
    return body[:6] == bytes.fromhex("000108000604") and body[6:8] in {b"\0\1", b"\0\2"}


def _parse4(body: bytes) -> _Ip | None:
    if len(body) < 20:
        return None
    length = int.from_bytes(body[2:4], "big")
    whole = body[0] == 0x45 and 20 <= length <= len(body)
    offset = int.from_bytes(body[6:8], "big") & 0x1FFF
    return _Ip(
        4,
        int.from_bytes(body[16:20], "big"),
        body[8],
        length,
        body[9] if whole else None,
        offset != 0,
        body[20:],
        body[0] != 0x45,
    )


def _parse6(body: bytes) -> _Ip | None:
    if len(body) < 40:
        return None
    length = int.from_bytes(body[4:6], "big")
    found: int | None = body[6]
    at, later, routed = 40, False, False
    while found in _EXTENSIONS and not later:
        if len(body) < at + 8:
            found = None
            break
        routed = routed or found == _ROUTING
        this, found = found, body[at]
        if this == _FRAGMENT:
            later = int.from_bytes(body[at + 2 : at + 4], "big") & 0xFFF8 != 0
            at += 8
        else:
            at += (body[at + 1] + 2) * 4 if this == _AH else (body[at + 1] + 1) * 8
    if body[0] >> 4 != 6 or length + 40 > len(body):
        found = None
    return _Ip(
        6, int.from_bytes(body[24:40], "big"), body[7], length, found, later, body[at:], routed
    )


def _judge_ip(lock: ExitLock, packet: _Ip) -> str:
    ends = lock.ends(packet.version)
    kept = KEPT4 if packet.version == 4 else KEPT6
    to = packet.destination
    if to in ends.singles or to in ends.learned:
        return kept
    if any(low <= to <= high for low, high in ends.ranges):
        return kept
    if packet.protocol is None:
        return LOST
    if _answers(ends, packet):
        return kept
    return LINK if _is_housekeeping(lock, packet) or _is_ospf(lock, packet) else LOST


def _answers(ends: Ends, packet: _Ip) -> bool:
    if not ends.answers:
        return False
    errors = {(p.ICMP, 4): {3, 11, 12}, (p.ICMPV6, 6): {1, 2, 3, 4}}
    if packet.byte(0) in errors.get((packet.protocol or 0, packet.version), set()):
        return True
    if packet.protocol not in {one[0] for one in ends.answers}:
        return False
    if packet.later:
        return True
    flags = packet.byte(13)
    if packet.protocol == p.TCP and (flags is None or flags & 0x12 == 0x02):
        return False
    port = packet.word(0)
    return any(
        (first, last) == (0, 65535) or (port is not None and first <= port <= last)
        for protocol, first, last in ends.answers
        if protocol == packet.protocol
    )


def _is_housekeeping(lock: ExitLock, packet: _Ip) -> bool:
    to, kind = packet.destination, packet.byte(0)
    ports = (packet.word(0), packet.word(2)) if packet.protocol == p.UDP else None
    if packet.version == 4:
        return (to == 0xFFFFFFFF and ports == (68, 67)) or (
            Preset.VRRP in lock.presets
            and (to, packet.hops, packet.protocol) == (0xE0000012, 255, 112)
        )
    said = kind if packet.protocol == p.ICMPV6 else None
    near = Preset.ND in lock.presets and (
        (packet.hops == 255 and said in {135, 136} and packet.length <= 40)
        or (packet.hops == 255 and said == 133 and _within(to, "ff02::/16"))
        or (packet.hops == 1 and said in {130, 131, 132, 143} and _within(to, "ff00::/8"))
    )
    leases = Preset.DHCP in lock.presets and ports == (546, 547)
    return (
        near
        or (leases and (_within(to, "fe80::/10") or _within(to, "ff02::1:2")))
        or (
            Preset.VRRP in lock.presets
            and (packet.hops, packet.protocol) == (255, 112)
            and _within(to, "ff02::12")
        )
    )


def _is_ospf(lock: ExitLock, packet: _Ip) -> bool:
    if Preset.OSPF not in lock.presets or packet.protocol != OSPF:
        return False
    if packet.version == 4:
        return packet.hops == 1
    return any(
        _within(packet.destination, one) for one in ("fe80::/10", "ff02::5/128", "ff02::6/128")
    )


def _within(address: int, network: str) -> bool:
    found = parse_network(network)
    if found is None:
        return False
    low, high = network_interval(found)
    return low <= address <= high
