"""Interfaces, addresses and default routes (rtnetlink(7)): readings by pyroute2, events by the raw
socket.

pyroute2's event reader dies of ENOBUFS in a burst; ours says that something was missed.
"""

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ecluse.bypass import HostReading
from ecluse.kernel import bypass_scan, table_use
from ecluse.kernel.netlink import (
    Netlink,
    attribute,
    consistently,
    fields,
    kernel_errors,
    messages,
    text,
)
from ecluse.kernel.netlink_stream import EVENT_BUFFER, NetlinkStream
from ecluse.policy import IPAddress
from ecluse.results import TableUse

NETLINK_ROUTE = 0
# RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE
GROUPS = (1, 5, 7, 9, 11)
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = (
    16,
    17,
    20,
    21,
    24,
    25,
)
RTM_GETADDR, RTM_GETROUTE = 22, 26
IFLA_IFNAME, IFA_ADDRESS, IFA_LOCAL, RTA_DST, RTA_OIF = 3, 1, 2, 1, 4
IFF_RUNNING = 0x40
RTN_UNICAST = 1
NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
"""What the kernel answers for no route, and for routes of type unreachable, prohibit and blackhole
(rtnetlink(7)).
"""

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # family, destination length, source length, tos, table, protocol, scope, type, flags

T = TypeVar("T")

_TRUSTED = 120.0
"""Seconds after which links are read again although the kernel announced no change; the regular
look comes every 60.
"""
_NEWS_BUFFER = 1 << 16  # bytes; what does not fit counts as a change
_MOST_NEWS = 1000


class RtnlLinks:
    """Links of the network namespace that the process lives in; the port `Links`."""

    def __init__(self) -> None:
        self._streams: list[NetlinkStream[str]] = []
        # One of its own: where the kernel holds a look up (its rtnl lock), the next ones wait here
        # and take no other's thread.
        self._thread = ThreadPoolExecutor(1, "links")
        self._news: Netlink | None = None
        self._seen: tuple[float, HostReading] | None = None
        self._reads = 0

    def close(self) -> None:
        """End the streams of changes."""
        if self._news is not None:
            self._news.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
        for stream in self._streams:
            stream.close()

    async def look(self) -> HostReading:
        """Read every interface and its addresses, by raw netlink: it is asked for while somebody
        waits for an answer.

        As long as the kernel has announced no change since, what was read last is how it is: a cut
        then pays nothing for it.
        """
        with kernel_errors("look at the interfaces"):
            now = time.monotonic()
            if not self._changed() and self._seen is not None and now - self._seen[0] < _TRUSTED:
                return self._seen[1]
            self._seen, self._reads = None, self._reads + 1
            mine = self._reads
            host = await asyncio.get_running_loop().run_in_executor(
                self._thread, consistently, bypass_scan.look_at_links
            )
            if mine == self._reads:  # or another heard of a change meanwhile, and reads as well
                self._seen = now, host
            return host

    def _changed(self) -> bool:
        """Say whether the kernel announced a change since this was last asked, one that it had to
        drop among them.
        """
        if self._news is None:
            self._news = Netlink(NETLINK_ROUTE, GROUPS, _NEWS_BUFFER)
            self._news.socket.setblocking(False)
            return True
        changed = False
        for _ in range(_MOST_NEWS):
            try:
                self._news.receive()
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno not in {errno.ENOBUFS, errno.EMSGSIZE}:
                    raise
            changed = True
        return changed  # there is more: the next one asks again

    async def tables(self) -> tuple[TableUse, ...]:
        """Read how full the kernel's tables are (`bounded`)."""
        with kernel_errors("read how full the kernel's tables are"):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, consistently, table_use.tables)

    async def local_addresses(self) -> frozenset[str]:
        """Give every address of the machine itself, as text; a point-to-point link's own end, not
        the peer's.
        """
        with kernel_errors("list the addresses"):
            # Not by pyroute2: this is asked after every change, and what that leaves behind is
            # garbage in cycles.
            return await asyncio.to_thread(consistently, _local_addresses)

    async def default_routes(self) -> tuple[str, ...]:
        """Name every interface with a unicast default route of either family, in any routing table,
        sorted.
        """
        links = await _read("list the interfaces", lambda route: route.link("dump"))
        names = {link["index"]: _named(link) for link in links}
        routes = await _read("list the routes", lambda route: route.route("dump"))
        indexes = {
            index
            for route in routes
            if route["dst_len"] == 0 and route["type"] == RTN_UNICAST
            for index in _outputs(route)
        }
        return tuple(sorted(names[index] for index in indexes if index in names))

    async def reached_by(self, addresses: Iterable[IPAddress]) -> dict[IPAddress, str]:
        """Say by which interface the machine would reach each address; one that it has no way to is
        left out. KernelError.

        10 us an address, on a thread.
        """
        wanted = list(addresses)
        if not wanted:
            return {}
        with kernel_errors("ask for routes"):
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, _reached_by, wanted
            )

    def changes(self) -> NetlinkStream[str]:
        """Tell in words, from now on, whenever an interface, an address or a route comes or goes."""
        with kernel_errors("subscribe to changes of links"):
            stream = NetlinkStream(Netlink(NETLINK_ROUTE, GROUPS, EVENT_BUFFER), told, _missed)
        self._streams.append(stream)
        return stream


async def _read(doing: str, ask: Callable[[Any], Any]) -> list[Any]:
    """Ask pyroute2 on a thread: it brings an event loop of its own, and decodes slowly."""

    def once() -> list[Any]:
        with IPRoute() as route:
            return list(ask(route))

    with kernel_errors(doing):
        try:
            return await asyncio.to_thread(once)
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error


def _named(link: Any) -> str:
    """Give an interface's name as text.

    The kernel takes any bytes but '/', ':' and spaces (dev_valid_name).
    """
    name = link.get_attr("IFLA_IFNAME")
    return name if isinstance(name, str) else text(name)


def _local_addresses() -> frozenset[str]:
    with Netlink(NETLINK_ROUTE) as route:
        found = [
            fields(body, _IFADDRMSG.size)
            for body in route.dump(RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0))
        ]
    packed = (one.get(IFA_LOCAL) or one.get(IFA_ADDRESS) for one in found)
    return frozenset(str(ip_address(one)) for one in packed if one)


def _outputs(route: Any) -> list[int]:
    """Give the interface indexes that a route sends to: of each hop where it is multipath, else its
    own.
    """
    hops = route.get_attr("RTA_MULTIPATH") or ()
    return [hop["oif"] for hop in hops] or [route.get_attr("RTA_OIF")]


def _reached_by(addresses: list[IPAddress]) -> dict[IPAddress, str]:
    found: dict[IPAddress, str] = {}
    with Netlink(NETLINK_ROUTE) as route:
        for address in addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            head = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
            try:
                answer = route.request(RTM_GETROUTE, head + attribute(RTA_DST, address.packed))
            except OSError as error:
                if error.errno not in NO_WAY:
                    raise
                continue
            output = fields(answer or b"", _RTMSG.size).get(RTA_OIF)
            if output:
                found[address] = _name(struct.unpack("=I", output)[0])
    return found


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
        return os.fsencode(socket.if_indextoname(index)).decode(errors="replace")
    except OSError:
        return f"interface number {index}"
