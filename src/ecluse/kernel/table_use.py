"""Reads how full the kernel's bounded tables are; where one is full, new kept flows fail.

What can be read where (tried on 6.18; net/netfilter/nf_conntrack_standalone.c,
net/core/neighbour.c): connections are counted for each network namespace, and the bound is the
whole machine's: every namespace reads it, the first alone may set it. Neighbours are counted for
the whole machine, all namespaces together, and so is their bound; sysctl shows it in the first
namespace alone, rtnetlink in all. What is permanent is in the neighbours' count, too.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from ecluse.kernel.netlink import NETLINK_ROUTE, NetlinkSocket, attribute_map, text
from ecluse.kernel.rtnetlink_numbers import (
    NDTA_CONFIG,
    NDTA_NAME,
    NDTA_THRESH3,
    RTM_GETNEIGHTBL,
)
from ecluse.results import TableUse

NDTC_ENTRIES = 4  # offset in struct ndt_config, linux/neighbour.h
CONNTRACK = Path("/proc/sys/net/netfilter")
ROUTES = Path("/proc/sys/net/ipv6/route/max_size"), Path("/proc/self/net/rt6_stats")
RT6_DST_ENTRIES = 5  # the column of rt6_stats (net/ipv6/route.c, rt6_stats_seq_show)

_FAMILY = struct.Struct("=Bxxx")  # struct ndtmsg
_NEIGHBOURS = {
    "arp_cache": ("IPv4 neighbours", "net.ipv4.neigh.default.gc_thresh3"),
    "ndisc_cache": ("IPv6 neighbours", "net.ipv6.neigh.default.gc_thresh3"),
}


def table_uses() -> tuple[TableUse, ...]:
    """Read how full each table is, in entries; one that this kernel does not have is left out.

    OSError in the kernel's words.
    """
    return (*_connections(), *_neighbours(), *_routes())


def _connections() -> Iterator[TableUse]:
    try:
        used, most = (
            int((CONNTRACK / f"nf_conntrack_{name}").read_text("ascii"))
            for name in ("count", "max")
        )
    except FileNotFoundError:  # nobody tracks connections yet
        return
    if most:  # 0: no bound
        yield TableUse("connections", used, most, "net.netfilter.nf_conntrack_max")


def _neighbours() -> Iterator[TableUse]:
    with NetlinkSocket(NETLINK_ROUTE) as route:
        for body in route.dump(RTM_GETNEIGHTBL, _FAMILY.pack(0)):
            found = attribute_map(body, _FAMILY.size)
            name = text(found.get(NDTA_NAME, b""))
            # Each table comes first by itself, then for each interface, without a threshold.
            if name in _NEIGHBOURS and NDTA_THRESH3 in found:
                (used,) = struct.unpack_from("=I", found[NDTA_CONFIG], NDTC_ENTRIES)
                (most,) = struct.unpack("=I", found[NDTA_THRESH3])
                words, knob = _NEIGHBOURS[name]
                yield TableUse(words, used, most, knob)


def _routes() -> Iterator[TableUse]:
    """IPv6 routes that packets made, which Linux before 6.3 bounds (Debian 12: 4096)."""
    try:
        most, stats = int(ROUTES[0].read_text("ascii")), ROUTES[1].read_text("ascii").split()
    except FileNotFoundError:
        return
    yield TableUse(
        "IPv6 routes in use", int(stats[RT6_DST_ENTRIES], 16), most, "net.ipv6.route.max_size"
    )
