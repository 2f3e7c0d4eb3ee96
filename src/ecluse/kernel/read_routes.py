"""What all routes of the machine say, by one dump of rtnetlink(7): 29,000 routes take 0.04 s.

The fixed header tells default routes and those that a routing protocol put there; they alone are
decoded, and pyroute2 decodes those whose form is manifold: the default routes (one hop, several, a
next hop object). Sources: linux/rtnetlink.h.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address

from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ecluse.host_reading import HostReading, LearnedRoutes
from ecluse.kernel.netlink import NetlinkSocket, attribute_map, message
from ecluse.kernel.read_links import host_number
from ecluse.kernel.rtnetlink_numbers import (
    RTA_DST,
    RTA_MULTIPATH,
    RTA_OIF,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
)
from ecluse.routing_protocols import ROUTING_PROTOCOLS

_NAT64_LENGTH = 96
_MOST_LEARNED = 10_000
"""Routes of one protocol that are counted: of a full table of the internet it is enough."""


def read_routes(route: NetlinkSocket, host: HostReading) -> HostReading:
    """Add to a reading of the links what the unicast routes of every table say.

    OSError in the kernel's words.
    """
    names = host.names()
    default_routes: set[str] = set()
    routers: dict[tuple[str, str], None] = {}
    learned: dict[tuple[int, int], list[int]] = {}
    decoded = dict.fromkeys(ROUTING_PROTOCOLS, 0)
    translations: set[tuple[str, str]] = set()
    for body in route.dump(RTM_GETROUTE, RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, length, _, _, _, protocol, _, kind, _ = RTMSG.unpack_from(body)
        if kind != RTN_UNICAST:
            continue
        if length == 0:
            for index, router in _hops(body):
                if index in names:
                    default_routes.add(names[index])
                    if router:
                        routers[names[index], router] = None
        if protocol in decoded and (length == 0 or decoded[protocol] < _MOST_LEARNED):
            decoded[protocol] += 1
            counted = learned.setdefault((protocol, _output(body)), [0, 0])
            counted[0] += 1
            counted[1] |= length == 0
        if length == _NAT64_LENGTH and (index := _output(body)) in names:
            to = attribute_map(body, RTMSG.size).get(RTA_DST, b"")
            if len(to) == 16:
                translations.add((names[index], f"{IPv6Address(to)}/{length}"))
    return replace(
        host,
        default_routes=tuple(sorted(default_routes)),
        routers=tuple(routers),
        learned_routes=tuple(
            LearnedRoutes(protocol, names[index], count, bool(default))
            for (protocol, index), (count, default) in sorted(learned.items())
            if index in names
        ),
        translations=tuple(sorted(translations)),
    )


def _output(body: bytes) -> int:
    """Give the number of the interface of a route; of several hops the first one's."""
    found = attribute_map(body, RTMSG.size)
    if RTA_MULTIPATH in found:  # struct rtnexthop: length, flags, hops, index
        return int(struct.unpack_from("=HBBi", found[RTA_MULTIPATH])[3])
    return host_number(found.get(RTA_OIF))


def _hops(body: bytes) -> Iterator[tuple[int, str]]:
    """Give the hops of a route: the number of the interface, and the router's address or empty."""
    decoded = rtmsg(message(RTM_NEWROUTE, 0, 0, body))
    decoded.decode()
    for hop in decoded.get_attr("RTA_MULTIPATH") or ():
        yield hop["oif"], hop.get_attr("RTA_GATEWAY") or ""
    if not decoded.get_attr("RTA_MULTIPATH"):
        yield decoded.get_attr("RTA_OIF"), decoded.get_attr("RTA_GATEWAY") or ""
