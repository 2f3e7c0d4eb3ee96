"""The port `Links`: interfaces, addresses and routes, read when the kernel announced a change.

Events come by our own socket: pyroute2's reader of events dies of ENOBUFS in a burst; ours says
that something was missed.
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
from typing import TypeVar

from ecluse.host_reading import MISSED, RENAMED, HostReading
from ecluse.kernel import read_links, table_use
from ecluse.kernel.netlink import (
    NETLINK_ROUTE,
    NetlinkSocket,
    attribute_map,
    kernel_errors,
    messages,
    retry_interrupted,
    text,
)
from ecluse.kernel.netlink_stream import EVENT_BUFFER, NetlinkStream
from ecluse.kernel.read_routes import read_routes
from ecluse.kernel.rtnetlink_numbers import (
    IFA_ADDRESS,
    IFA_LOCAL,
    IFADDRMSG,
    IFF_RUNNING,
    IFINFOMSG,
    IFLA_IFNAME,
    RTA_DST,
    RTA_OIF,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTMSG,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_LINK,
)
from ecluse.policy import IPAddress
from ecluse.results import TableUse

GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
)

T = TypeVar("T")

_TRUSTED = 120.0
"""Seconds after which links are read again although the kernel announced no change.

The regular look comes every 60.
"""
_ANNOUNCED_BUFFER = 1 << 16  # bytes; an announcement that does not fit counts as a change
_MOST_ANNOUNCED = 1000


class RtnlLinks:
    """Links of the network namespace that the process lives in; the port `Links`.

    One event costs one dump of the links, one of the addresses and one of the routes, however many
    ask: the links are read again only when the kernel announced a change since.
    """

    def __init__(self) -> None:
        self._streams: list[NetlinkStream[str]] = []
        # A thread of its own: where the kernel delays a reading (its rtnl lock), the next readings
        # wait here and take no other work's thread.
        self._thread = ThreadPoolExecutor(1, "links")
        self._announced: NetlinkSocket | None = None
        self._last: tuple[float, HostReading] | None = None
        self._reads = 0

    def close(self) -> None:
        """End the streams of changes."""
        if self._announced is not None:
            self._announced.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
        for stream in self._streams:
            stream.close()

    async def read_links(self) -> HostReading:
        """Read the interfaces and their addresses; the last reading while nothing has changed.

        A cut asks while somebody waits for its answer: it mostly pays nothing.
        """
        with kernel_errors("look at the interfaces"):
            now = time.monotonic()
            if not self._has_changed() and self._last and now - self._last[0] < _TRUSTED:
                return self._last[1]
            self._last, self._reads = None, self._reads + 1
            mine = self._reads
            host = await self._on_thread(_read_links)
            # Another caller may have heard of a change meanwhile: then its reading counts.
            if mine == self._reads:
                self._last = now, host
            return host

    def _has_changed(self) -> bool:
        """Say whether the kernel announced a change since this was last asked.

        An announcement that it had to drop counts as well.
        """
        if self._announced is None:
            self._announced = NetlinkSocket(NETLINK_ROUTE, GROUPS, _ANNOUNCED_BUFFER)
            self._announced.socket.setblocking(False)
            return True
        changed = False
        for _ in range(_MOST_ANNOUNCED):
            try:
                self._announced.receive()
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno not in {errno.ENOBUFS, errno.EMSGSIZE}:
                    raise
            changed = True
        return changed  # there may be more: the next call reads on

    async def read_host(self) -> HostReading:
        """Read links, addresses and routes. With thousands of routes it takes its time."""
        host = await self.read_links()
        with kernel_errors("list the routes"):
            # Not on the thread of the links: a cut's answer waits for that one.
            return await asyncio.to_thread(retry_interrupted, lambda: _read_routes(host))

    async def local_addresses(self) -> frozenset[str]:
        """Give every address of the machine itself, as text.

        Of a point-to-point link it is its own end, not the peer's.
        """
        host = await self.read_links()
        return frozenset(address.partition("/")[0] for _, address in host.addresses)

    async def table_uses(self) -> tuple[TableUse, ...]:
        """Read how full the kernel's bounded tables are (`table_use`)."""
        with kernel_errors("read how full the kernel's tables are"):
            return await self._on_thread(table_use.table_uses)

    async def reached_by(self, addresses: Iterable[IPAddress]) -> dict[IPAddress, str]:
        """Say by which interface the machine would reach each address; 10 µs an address.

        An address with no route is left out. KernelError.
        """
        wanted = list(addresses)
        if not wanted:
            return {}
        with kernel_errors("ask for routes"):
            found = await self._on_thread(lambda: read_links.read_outputs(wanted))
        return {address: _interface_name(index) for address, index in found.items()}

    def changes(self) -> NetlinkStream[str]:
        """Tell in words, from now on, whenever an interface, address or route comes or goes."""
        with kernel_errors("subscribe to changes of links"):
            netlink = NetlinkSocket(NETLINK_ROUTE, GROUPS, EVENT_BUFFER)
            words = _Words()
            stream = NetlinkStream(netlink, words.events, words.loss)
        self._streams.append(stream)
        return stream

    async def _on_thread(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, retry_interrupted, read
        )


def _read_links() -> HostReading:
    with NetlinkSocket(NETLINK_ROUTE) as route:
        return read_links.read_links(route)


def _read_routes(host: HostReading) -> HostReading:
    with NetlinkSocket(NETLINK_ROUTE) as route:
        return read_routes(route, host)


class _Words:
    """Puts events into words. An announced link has its name of now: what it was is remembered."""

    def __init__(self) -> None:
        self._names = _names()

    def loss(self, error: OSError) -> str:
        self._names = _names()
        return f"{MISSED} ({error.strerror})"

    def events(self, datagram: bytes) -> Iterator[str]:
        for kind, _, _, _, body in messages(datagram):
            if kind in {RTM_NEWLINK, RTM_DELLINK}:
                yield from self._renamed(body, gone=kind == RTM_DELLINK)
                yield _link_text(body, gone=kind == RTM_DELLINK)
            else:
                yield from _other_text(kind, body)

    def _renamed(self, body: bytes, *, gone: bool) -> Iterator[str]:
        family, _, index, _, _ = IFINFOMSG.unpack_from(body)
        name = _link_name(body, index)
        before = self._names.get(index, name)
        if before != name:
            yield f"interface {before}{RENAMED}{name}"
        if gone and family == socket.AF_UNSPEC:  # not a port that left its bridge
            self._names.pop(index, None)
        else:
            self._names[index] = name


def _names() -> dict[int, str]:
    return {index: _shown(name) for index, name in socket.if_nameindex()}


def _other_text(kind: int, body: bytes) -> Iterator[str]:
    if kind in {RTM_NEWADDR, RTM_DELADDR}:
        yield _address_text(body, gone=kind == RTM_DELADDR)
    elif kind in {RTM_NEWROUTE, RTM_DELROUTE}:
        yield _route_text(body, gone=kind == RTM_DELROUTE)


def _link_text(body: bytes, *, gone: bool) -> str:
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    state = "gone" if gone else "up" if flags & IFF_RUNNING else "down"
    return f"interface {_link_name(body, index)} is {state}"


def _link_name(body: bytes, index: int) -> str:
    found = attribute_map(body, IFINFOMSG.size)
    return text(found[IFLA_IFNAME]) if IFLA_IFNAME in found else _interface_name(index)


def _address_text(body: bytes, *, gone: bool) -> str:
    _, length, _, _, index = IFADDRMSG.unpack_from(body)
    found = attribute_map(body, IFADDRMSG.size)
    address = ip_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
    state = "is gone" if gone else "is there"
    return f"address {address}/{length} on {_interface_name(index)} {state}"


def _route_text(body: bytes, *, gone: bool) -> str:
    length = RTMSG.unpack_from(body)[1]
    found = attribute_map(body, RTMSG.size)
    destination = f"{ip_address(found[RTA_DST])}/{length}" if RTA_DST in found else "default"
    output = ""
    if RTA_OIF in found:
        output = f" by {_interface_name(struct.unpack('=I', found[RTA_OIF])[0])}"
    return f"route {destination}{output} " + ("is gone" if gone else "is there")


def _interface_name(index: int) -> str:
    """Name an interface; by number when it is gone already."""
    try:
        return _shown(socket.if_indextoname(index))
    except OSError:
        return f"interface number {index}"


def _shown(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")
