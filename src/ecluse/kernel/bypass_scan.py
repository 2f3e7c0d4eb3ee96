"""The port `Exits`: what on this machine may carry packets past the gate, by raw netlink dumps and
/proc/sys.

It changes nothing and needs CAP_NET_ADMIN for other tables' rules and for tcx
(`kernel/tcx_programs.py`) alone. Sources: linux/if_link.h, linux/rtnetlink.h, linux/pkt_sched.h,
linux/tc_act/tc_mirred.h, linux/net_namespace.h, linux/netfilter/nf_tables.h.
"""

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from ecluse.bypass import BESIDE, SWITCHES, Device, Filter, HostReading, Offload, Statement
from ecluse.kernel import nic_features, read_table, tcx_programs
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    SOL_NETLINK,
    Netlink,
    attribute,
    attributes,
    consistently,
    fields,
    kernel_errors,
    netfilter_header,
    netfilter_kind,
    number,
    text,
)

NETLINK_ROUTE = 0
GET_STRICT_CHK = 12  # NETLINK_GET_STRICT_CHK, linux/netlink.h
IFF_UP, IFF_RUNNING = 0x1, 0x40
GETLINK, GETADDR, GETROUTE, GETQDISC, GETTFILTER, GETNSID = 18, 22, 26, 38, 46, 90
IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_XDP, IFLA_TARGET_NETNSID = (
    3,
    5,
    10,
    18,
    43,
    46,
)
INFO_KIND, XDP_ATTACHED, NSID = 1, 2, 1
XDP_WORDS = {1: "in the driver", 2: "generic", 3: "in hardware", 4: "several"}
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_MULTIPATH, RTN_UNICAST = 1, 4, 9, 1
TCA_KIND, TCA_OPTIONS, MIRRED_PARMS = 1, 2, 2
MIRRED_WORDS = {1: "redirects to", 2: "copies to", 3: "redirects into", 4: "copies into"}
RUNS_BPF = -1  # an action of kind `bpf`, beside mirred's
# Where the filters of each kind of queue hang: TC_H_CLSACT's two sides; 0: those of the root queue,
# on the way out
INGRESS, EGRESS, ROOT = (0xFFFFFFF2, "ingress"), (0xFFFFFFF3, "egress"), (0, "egress")
PARENTS = {"clsact": (INGRESS, EGRESS), "ingress": (INGRESS,), "noqueue": ()}
FLOWTABLE_FLAGS, NFT_FLOWTABLE_HW_OFFLOAD = 7, 1
NOTHING_THERE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOENT})
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
NETDEV = 5

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_TC = struct.Struct("=BxxxiIII")  # struct tcmsg: family, index, handle, parent, info
_NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, index


class KernelBypassScan:
    """The network namespace that the process lives in; the port `Exits`."""

    async def look(self) -> HostReading:
        """Read everything, on a thread. KernelError."""
        with kernel_errors("look for ways past the gate"):
            return await asyncio.to_thread(consistently, look)


def look() -> HostReading:
    """Read everything. OSError in the kernel's words."""
    attached, unseen = _tcx()
    with Netlink(NETLINK_ROUTE) as route, Netlink(NETLINK_NETFILTER) as netfilter:
        names, links = _links_of(route)
        devices = (
            replace(one, tc_in_hardware=not one.kind and _offloads_tc(one.name))
            for one in links.devices
        )
        return HostReading(
            devices=(*devices, *_elsewhere(route, names)),
            filters=(*_filters(route, names), *attached),
            offloads=tuple(_offloads(netfilter)),
            statements=tuple(dict.fromkeys(_statements(netfilter))),
            addresses=links.addresses,
            default_routes=tuple(sorted(set(_default_routes(route, names)))),
            switches=dict(_switches()),
            unseen=unseen,
        )


def look_at_links() -> HostReading:
    """Read the interfaces and their addresses alone, a millisecond's work.

    OSError in the kernel's words.
    """
    with Netlink(NETLINK_ROUTE) as route:
        return _links_of(route)[1]


def _links_of(route: Netlink) -> tuple[dict[int, str], HostReading]:
    """Read the interfaces, each by its number and with what there is to say of it, and their
    addresses.
    """
    bodies = _links(route)
    names = {
        _LINK.unpack_from(body)[2]: text(fields(body, _LINK.size)[IFLA_IFNAME]) for body in bodies
    }
    addresses = tuple(_addresses(route, names))
    numbered = {name for name, one in addresses if not ip_interface(one).is_link_local}
    indexes = {name: index for index, name in names.items()}
    found = tuple(_devices(bodies, names))
    layer3 = {
        "",
        *(one.name for one in found if one.kind == "vrf"),
    }  # masters that leave a port its own IP

    def has_own_ip(one: Device) -> bool:
        return one.name in numbered or (
            one.running and one.master in layer3 and _has_route(indexes[one.name])
        )

    devices = tuple(replace(one, own_ip=has_own_ip(one)) for one in found)
    return names, HostReading(devices=devices, addresses=addresses)


def _has_route(index: int) -> bool:
    """Say whether a route beyond the link itself leads to an interface; the kernel looks through
    its tables (rtnetlink(7)).
    """
    with Netlink(NETLINK_ROUTE) as route:
        route.socket.setsockopt(SOL_NETLINK, GET_STRICT_CHK, 1)  # or it would send every route
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, RTN_UNICAST, 0)
            for body in route.dump(GETROUTE, wanted + attribute(RTA_OIF, struct.pack("=i", index))):
                to = fields(body, _ROUTE.size).get(RTA_DST)
                network = ip_network((to, body[1])) if to else None
                if network is None or not (network.is_link_local or network.is_multicast):
                    return True
    return False


def _links(route: Netlink, nsid: int | None = None) -> list[bytes]:
    """List the interfaces of this namespace, or of the one that this one knows by a number."""
    where = b"" if nsid is None else attribute(IFLA_TARGET_NETNSID, struct.pack("=i", nsid))
    return list(route.dump(GETLINK, _LINK.pack(0, 0, 0, 0, 0) + where))


def _devices(bodies: Iterable[bytes], names: dict[int, str]) -> Iterator[Device]:
    for body in bodies:
        flags = _LINK.unpack_from(body)[3]
        found = fields(body, _LINK.size)
        xdp = fields(found.get(IFLA_XDP, b"")).get(XDP_ATTACHED, b"\0")[0]
        yield Device(
            name=text(found[IFLA_IFNAME]),
            kind=_kind(found),
            master=names.get(_native(found.get(IFLA_MASTER)), ""),
            parent=names.get(_native(found.get(IFLA_LINK)), ""),
            xdp=XDP_WORDS.get(xdp, "somehow") if xdp else "",
            up=bool(flags & IFF_UP),
            running=bool(flags & IFF_RUNNING),
        )


def _offloads_tc(name: str) -> bool:
    with contextlib.suppress(OSError):  # a driver without features
        return nic_features.TC_OFFLOAD in nic_features.active(name)
    return False


def _elsewhere(route: Netlink, names: dict[int, str]) -> Iterator[Device]:
    """List what shares an interface of ours from another namespace, as far as ours knows it by a
    number.

    The kernel gives a namespace a number when an interface moves into it from here. One that may
    not be looked into, or is gone by now, is passed over.
    """
    for listed in list(route.dump(GETNSID, bytes(4))):
        nsid = _native(fields(listed, 4).get(NSID))
        if nsid < 0:
            continue
        with _passed_over(errno.EACCES):
            for body in _links(route, nsid):
                found = fields(body, _LINK.size)
                kind = _kind(found)
                if kind in BESIDE and _native(found.get(IFLA_LINK)) in names:
                    parent = names[_native(found.get(IFLA_LINK))]
                    yield Device(text(found[IFLA_IFNAME]), kind, parent=parent, elsewhere=True)


@contextmanager
def _passed_over(*more: int) -> Iterator[None]:
    """Take what the kernel refuses for nothing there.

    What changed while it was read is not: it is read again.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NOTHING_THERE.union(more):
            raise


def _kind(found: dict[int, bytes]) -> str:
    return text(fields(found.get(IFLA_LINKINFO, b"")).get(INFO_KIND, b""))


def _native(payload: bytes | None) -> int:
    """Read a number as rtnetlink writes it, in host byte order; -1 for none."""
    return int(struct.unpack_from("=i", payload)[0]) if payload else -1


def _filters(route: Netlink, names: dict[int, str]) -> Iterator[Filter]:
    """List the filters that send packets elsewhere, of every queue that can have some."""
    places: set[tuple[int, int, str]] = set()
    for body in route.dump(GETQDISC, _TC.pack(0, 0, 0, 0, 0)):
        index = _TC.unpack_from(body)[1]
        kind = text(fields(body, _TC.size).get(TCA_KIND, b""))
        places |= {(index, *place) for place in PARENTS.get(kind, (ROOT,)) if index in names}
    for index, parent, where in sorted(places):
        found: dict[Filter, None] = {}
        with _passed_over():  # a queue that has no filters: EOPNOTSUPP
            for body in route.dump(GETTFILTER, _TC.pack(0, index, 0, parent, 0)):
                found |= dict.fromkeys(_filter(names, index, where, body))
        yield from found


def _filter(names: dict[int, str], index: int, where: str, body: bytes) -> Iterator[Filter]:
    told = fields(body, _TC.size)
    kind, options = text(told.get(TCA_KIND, b"")), told.get(TCA_OPTIONS, b"")
    for action, target in actions(options):
        if action == RUNS_BPF:
            yield Filter(names[index], where, kind)
            continue
        does = f"{MIRRED_WORDS.get(action, 'sends to')} {names.get(target, f'interface number {target}')}"
        yield Filter(names[index], where, kind, does)
    if kind == "bpf" and options:
        yield Filter(names[index], where, kind)


def _tcx() -> tuple[list[Filter], tuple[str, ...]]:
    """List the sides of interfaces that have programs at their tcx hook; else say why they could
    not be looked for.
    """
    try:
        found = [
            Filter(os.fsencode(name).decode(errors="replace"), side, "tcx")
            for index, name in socket.if_nameindex()
            for side in tcx_programs.SIDES
            if tcx_programs.programs(index, side)
        ]
    except OSError as error:
        return [], (f"BPF programs at tcx hooks ({error.strerror})",)
    return found, ()


def actions(data: bytes) -> Iterator[tuple[int, int]]:
    """Find the actions that send packets on in a filter's options, wherever its kind keeps them.

    Gives what it does and to which index; RUNS_BPF for a BPF program, which may do that.
    """
    try:
        found = attributes(data)
    except OSError:  # no attributes but something else
        return
    inner = dict(found)
    if inner.get(TCA_KIND) == b"bpf\0" and len(inner.get(TCA_OPTIONS, b"")) > 4:
        yield RUNS_BPF, 0
        return
    if inner.get(TCA_KIND) == b"mirred\0":
        try:
            parameters = fields(inner.get(TCA_OPTIONS, b"")).get(MIRRED_PARMS, b"")
        except OSError:
            return
        if (
            len(parameters) >= 28
        ):  # struct tc_mirred: five words that all actions have, then these two
            action, target = struct.unpack_from("=iI", parameters, 20)
            yield action, target
        return
    for _, payload in found:
        if len(payload) > 8:
            yield from actions(payload)


def _all(netfilter: Netlink, what: int) -> Iterator[tuple[str, bytes]]:
    """Dump one kind of thing of every table; give each one's family in words, and its attributes."""
    for body in netfilter.dump(
        netfilter_kind(read_table.NFNL_SUBSYS_NFTABLES, what), netfilter_header(0)
    ):
        yield FAMILIES.get(body[0], str(body[0])), body[4:]


def _offloads(netfilter: Netlink) -> Iterator[Offload]:
    for family, body in _all(netfilter, read_table.GETFLOWTABLE):
        yield offload(family, body)


def offload(family: str, body: bytes) -> Offload:
    """Read one flowtable (NFTA_FLOWTABLE_*)."""
    found = fields(body)
    flags = number(found.get(FLOWTABLE_FLAGS, b""))
    table = f"{family} {text(found[read_table.FLOWTABLE_TABLE])}"
    return Offload(
        table, text(found[read_table.FLOWTABLE_NAME]), bool(flags & NFT_FLOWTABLE_HW_OFFLOAD)
    )


def _statements(netfilter: Netlink) -> Iterator[Statement]:
    for family, body in _all(netfilter, read_table.GETRULE):
        found = fields(body)
        if family == "inet" and text(found[read_table.RULE_TABLE]) == read_table.TABLE:
            continue
        wanted = {b"fwd\0", b"dup\0"} if family == "netdev" else {b"notrack\0"}
        for expression in attributes(found.get(read_table.RULE_EXPRESSIONS, b"")):
            name = fields(expression[1]).get(read_table.EXPR_NAME, b"")
            if name in wanted:
                table = f"{family} {text(found[read_table.RULE_TABLE])}"
                yield Statement(table, text(found[read_table.RULE_CHAIN]), text(name))


def _addresses(route: Netlink, names: dict[int, str]) -> Iterator[tuple[str, str]]:
    for body in route.dump(GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        _, length, _, _, index = _ADDRESS.unpack_from(body)
        found = fields(body, _ADDRESS.size)
        packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
        if packed and index in names:
            yield names[index], f"{ip_address(packed)}/{length}"


def _default_routes(route: Netlink, names: dict[int, str]) -> Iterator[str]:
    for body in route.dump(GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        told = _ROUTE.unpack_from(body)
        if told[1] or told[7] != RTN_UNICAST:
            continue
        found = fields(body, _ROUTE.size)
        for index in (_native(found.get(RTA_OIF)), *_hops(found.get(RTA_MULTIPATH, b""))):
            if index in names:
                yield names[index]


def _hops(data: bytes) -> Iterator[int]:
    start = 0
    while start + _NEXTHOP.size <= len(data):
        length, _, _, index = _NEXTHOP.unpack_from(data, start)
        yield index
        start += max((length + 3) & ~3, _NEXTHOP.size)


def _switches() -> Iterator[tuple[str, str]]:
    """Read the sysctls that matter; one that this kernel does not have is left out."""
    for name in SWITCHES:
        with contextlib.suppress(OSError):
            yield (
                name,
                Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip(),
            )
