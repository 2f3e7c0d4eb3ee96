"""Interfaces, addresses and default routes by raw netlink (rtnetlink(7)).

Three dumps and three kinds of events need no library: pyroute2 costs 7 MiB, 0.1 s of every start and an event loop for
each question, and its event reader dies of ENOBUFS in a burst; ours says that something was missed.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import TypeVar

from ecluse.kernel.events import EVENT_BUFFER, Events
from ecluse.kernel.netlink import Netlink, consistently, fields, kernel_errors, messages, text

NETLINK_ROUTE = 0
# RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE
GROUPS = (1, 5, 7, 9, 11)
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = 16, 17, 20, 21, 24, 25
RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 18, 22, 26
IFLA_IFNAME, IFA_ADDRESS, IFA_LOCAL, RTA_DST, RTA_OIF, RTA_MULTIPATH = 3, 1, 2, 1, 4, 9
IFF_RUNNING = 0x40
RTN_UNICAST = 1

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # family, destination length, source length, tos, table, protocol, scope, type, flags
_RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index

T = TypeVar("T")


class RtnlLinks:
    """Links of the network namespace that the process lives in; the port `Links`."""

    def __init__(self) -> None:
        self._streams: list[Events[str]] = []

    def close(self) -> None:
        """End the streams of changes."""
        for stream in self._streams:
            stream.close()

    async def interfaces(self) -> tuple[str, ...]:
        """Name every interface, sorted."""
        return tuple(sorted((await _read("list the interfaces", _interfaces)).values()))

    async def local_addresses(self) -> frozenset[str]:
        """Give every address of the machine itself, as text; a point-to-point link's own end, not the peer's."""
        return await _read("list the addresses", _addresses)

    async def default_routes(self) -> tuple[str, ...]:
        """Name every interface with a unicast default route of either family, in any routing table, sorted."""
        names = await _read("list the interfaces", _interfaces)
        indexes = await _read("list the routes", _outputs_of_default_routes)
        return tuple(sorted(names[index] for index in indexes if index in names))

    def changes(self) -> Events[str]:
        """Tell in words, from now on, whenever an interface, an address or a route comes or goes."""
        with kernel_errors("subscribe to changes of links"):
            stream = Events(Netlink(NETLINK_ROUTE, GROUPS, EVENT_BUFFER), told, _missed)
        self._streams.append(stream)
        return stream


async def _read(doing: str, read: Callable[[Netlink], T]) -> T:
    """Read on a thread: a gateway may have a hundred thousand routes. Again from the start when they changed meanwhile."""

    def once() -> T:
        with Netlink(NETLINK_ROUTE) as netlink:
            return read(netlink)

    with kernel_errors(doing):
        return await asyncio.to_thread(consistently, once)


def _interfaces(netlink: Netlink) -> dict[int, str]:
    """Give each interface's index and name."""
    return {
        _IFINFOMSG.unpack_from(body)[2]: text(fields(body, _IFINFOMSG.size)[IFLA_IFNAME])
        for body in netlink.dump(RTM_GETLINK, bytes(_IFINFOMSG.size))
    }


def _addresses(netlink: Netlink) -> frozenset[str]:
    dumped = netlink.dump(RTM_GETADDR, bytes(_IFADDRMSG.size))
    found = (fields(body, _IFADDRMSG.size) for body in dumped)
    return frozenset(str(ip_address(one.get(IFA_LOCAL) or one[IFA_ADDRESS])) for one in found)


def _outputs_of_default_routes(netlink: Netlink) -> set[int]:
    """Give the indexes of the interfaces that unicast default routes send to."""
    indexes: set[int] = set()
    for body in netlink.dump(RTM_GETROUTE, bytes(_RTMSG.size)):
        route = _RTMSG.unpack_from(body)
        if route[1] == 0 and route[7] == RTN_UNICAST:
            indexes |= set(_outputs(fields(body, _RTMSG.size)))
    return indexes


def _outputs(route: dict[int, bytes]) -> Iterator[int]:
    """Give the interface indexes that a route sends to: of each hop where it is multipath, else its own."""
    hops, at = route.get(RTA_MULTIPATH, b""), 0
    while at + _RTNEXTHOP.size <= len(hops):
        length, _, _, index = _RTNEXTHOP.unpack_from(hops, at)
        yield index
        at += max(_RTNEXTHOP.size, (length + 3) & ~3)
    if not hops and RTA_OIF in route:
        yield struct.unpack("=i", route[RTA_OIF])[0]


def _missed(error: OSError) -> str:
    return f"changes of links were missed ({error.strerror})"


def told(datagram: bytes) -> Iterator[str]:
    """Put each event of one datagram into words."""
    for kind, _, _, _, body in messages(datagram):
        if kind in {RTM_NEWLINK, RTM_DELLINK}:
            yield _link_words(body, gone=kind == RTM_DELLINK)
        elif kind in {RTM_NEWADDR, RTM_DELADDR}:
            yield _address_words(body, gone=kind == RTM_DELADDR)
        elif kind in {RTM_NEWROUTE, RTM_DELROUTE}:
            yield _route_words(body, gone=kind == RTM_DELROUTE)


def _link_words(body: bytes, *, gone: bool) -> str:
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    found = fields(body, _IFINFOMSG.size)
    name = text(found[IFLA_IFNAME]) if IFLA_IFNAME in found else _name(index)
    return f"interface {name} is " + ("gone" if gone else "up" if flags & IFF_RUNNING else "down")


def _address_words(body: bytes, *, gone: bool) -> str:
    _, length, _, _, index = _IFADDRMSG.unpack_from(body)
    found = fields(body, _IFADDRMSG.size)
    address = ip_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
    return f"address {address}/{length} on {_name(index)} " + ("is gone" if gone else "is there")


def _route_words(body: bytes, *, gone: bool) -> str:
    length = _RTMSG.unpack_from(body)[1]
    found = fields(body, _RTMSG.size)
    destination = f"{ip_address(found[RTA_DST])}/{length}" if RTA_DST in found else "default"
    output = f" by {_name(struct.unpack('=I', found[RTA_OIF])[0])}" if RTA_OIF in found else ""
    return f"route {destination}{output} " + ("is gone" if gone else "is there")


def _name(index: int) -> str:
    """Name an interface; by number when it is gone already."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface number {index}"
