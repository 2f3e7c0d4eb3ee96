"""Which stations of the outside a bridge of ours learned: two dumps of rtnetlink(7), no traffic.

The neighbour tables say what MAC the next hop of a default route has; the bridges' forwarding
tables say behind which port a MAC was seen. Source: linux/neighbour.h.
"""

import socket
from collections.abc import Iterator
from ipaddress import ip_address

from ecluse.host_reading import HostReading, SeenOnBridge
from ecluse.kernel.netlink import NetlinkSocket, attribute_map
from ecluse.kernel.rtnetlink_numbers import (
    NDA_DST,
    NDA_LLADDR,
    NDMSG,
    NUD_PERMANENT,
    RTM_GETNEIGH,
)


def read_seen_on_bridges(route: NetlinkSocket, host: HostReading) -> tuple[SeenOnBridge, ...]:
    """Find next hops, and outside interfaces themselves, that a bridge learned at a port.

    Only interfaces with a default route count, and no port of the bridge itself. OSError in the
    kernel's words.
    """
    bridges = {one.name for one in host.devices if one.kind == "bridge"}
    ports = {one.index: one for one in host.devices if one.master in bridges}
    if not ports:
        return ()
    stations = dict(_stations(route, host))
    if not stations:
        return ()
    found: set[tuple[str, str, str, str]] = set()
    for body in route.dump(RTM_GETNEIGH, NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0)):
        _, index, state, _, _ = NDMSG.unpack_from(body)
        if index not in ports or state & NUD_PERMANENT:  # permanent: the port's own address
            continue
        mac = _mac(attribute_map(body, NDMSG.size))
        if mac in stations:
            outside, address = stations[mac]
            port = ports[index]
            if outside not in {port.name, port.master}:
                found.add((port.master, port.name, outside, address))
    return tuple(SeenOnBridge(*one) for one in sorted(found))


def _stations(route: NetlinkSocket, host: HostReading) -> Iterator[tuple[int, tuple[str, str]]]:
    """Give the MACs of next hops and of the interfaces that lead to them.

    Each with the interface, and the next hop's address; of an interface itself it is empty.
    """
    yield from (
        (one.mac, (one.name, ""))
        for one in host.devices
        if one.mac and one.name in host.default_routes
    )
    names, routers = host.names(), {(name, ip_address(text)) for name, text in host.routers}
    if not routers:
        return
    for body in route.dump(RTM_GETNEIGH, NDMSG.pack(0, 0, 0, 0, 0)):
        name = names.get(NDMSG.unpack_from(body)[1], "")
        found = attribute_map(body, NDMSG.size)
        packed, mac = found.get(NDA_DST, b""), _mac(found)
        if mac and len(packed) in {4, 16} and (name, ip_address(packed)) in routers:
            yield mac, (name, str(ip_address(packed)))


def _mac(found: dict[int, bytes]) -> int:
    """Give a station's MAC as `Device` has it; 0 where it has none, as behind a tunnel."""
    packed = found.get(NDA_LLADDR, b"")
    return int.from_bytes(packed) if len(packed) == 6 else 0
