"""The port `BypassScanPort`: what on this machine may carry packets past the gate.

Dumps by our own netlink socket, and /proc/sys. pyroute2 knows tc's filters by their kinds; here
any kind is searched for actions that send packets on, so the attributes are walked as they come.
It changes nothing. It needs CAP_NET_ADMIN only for the rules of other tables and for tcx
(`kernel/tcx_programs.py`). Sources: linux/pkt_sched.h, linux/tc_act/tc_mirred.h,
linux/net_namespace.h, linux/netfilter/nf_tables.h.
"""

import asyncio
import contextlib
import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ecluse.host_reading import (
    BESIDE,
    SYSCTLS,
    Device,
    Filter,
    HostReading,
    Offload,
    Statement,
)
from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel import nic_features, read_links, tcx_programs
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NetlinkSocket,
    attribute_map,
    attributes,
    kernel_errors,
    netfilter_header,
    netfilter_kind,
    number,
    retry_interrupted,
    text,
)
from ecluse.kernel.nft_messages import TABLE
from ecluse.kernel.read_links import host_number, ipvlan_mode, link_kind
from ecluse.kernel.read_neighbours import read_seen_on_bridges
from ecluse.kernel.read_routes import read_routes
from ecluse.kernel.rtnetlink_numbers import (
    IFLA_IFNAME,
    IFLA_LINK,
    NETNSA_NSID,
    RTM_GETNSID,
    RTM_GETQDISC,
    RTM_GETTFILTER,
    TCA_KIND,
    TCA_MIRRED_PARMS,
    TCA_OPTIONS,
    TCMSG,
)

MIRRED_WORDS = {1: "redirects to", 2: "copies to", 3: "redirects into", 4: "copies into"}
RUNS_BPF = -1  # an action of kind `bpf`, beside mirred's
# Where the filters of each kind of queue hang: TC_H_CLSACT's two sides; 0: those of the root queue,
# on the way out
INGRESS, EGRESS, ROOT = (0xFFFFFFF2, "ingress"), (0xFFFFFFF3, "egress"), (0, "egress")
PARENTS = {"clsact": (INGRESS, EGRESS), "ingress": (INGRESS,), "noqueue": ()}
NOTHING_THERE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOENT})
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


class KernelBypassScan:
    """The network namespace that the process lives in; the port `BypassScanPort`."""

    async def scan(self, host: HostReading) -> HostReading:
        """Add to a reading of links and routes all that may carry packets past the gate.

        On a thread. KernelError.
        """
        with kernel_errors("look for ways past the gate"):
            return await asyncio.to_thread(retry_interrupted, lambda: scan(host))


def read_everything() -> HostReading:
    """Read links, addresses, routes and all that a scan finds. OSError in the kernel's words."""
    with NetlinkSocket(NETLINK_ROUTE) as route:
        host = read_routes(route, read_links.read_links(route))
    return scan(host)


def scan(host: HostReading) -> HostReading:
    """Add to a reading of links and routes what else there is. OSError in the kernel's words."""
    names = host.names()
    attached, unseen = _read_tcx(names)
    with (
        NetlinkSocket(NETLINK_ROUTE) as route,
        NetlinkSocket(NETLINK_NETFILTER) as netfilter,
    ):
        devices = (
            replace(one, tc_in_hardware=not one.kind and _offloads_tc(one.name))
            for one in host.devices
        )
        return replace(
            host,
            devices=(*devices, *_read_other_namespaces(route, names)),
            filters=(*_read_filters(route, names), *attached),
            offloads=tuple(_read_flowtables(netfilter)),
            statements=tuple(dict.fromkeys(_read_statements(netfilter))),
            sysctls=dict(_read_sysctls()),
            unseen=unseen,
            seen_on_bridges=read_seen_on_bridges(route, host),
        )


def _offloads_tc(name: str) -> bool:
    with contextlib.suppress(OSError):  # a driver without features
        return nic_features.TC_OFFLOAD in nic_features.active_features(name)
    return False


def _read_other_namespaces(route: NetlinkSocket, names: dict[int, str]) -> Iterator[Device]:
    """List interfaces of other namespaces that share one of ours (a container's macvlan).

    Only namespaces that ours knows by a number: the kernel gives one when an interface moves there
    from here. A namespace that may not be read, or is gone by now, is passed over.
    """
    for listed in list(route.dump(RTM_GETNSID, bytes(4))):
        nsid = host_number(attribute_map(listed, 4).get(NETNSA_NSID))
        if nsid < 0:
            continue
        with _absent_is_nothing(errno.EACCES):
            for _, _, found in read_links.dump_links(route, nsid):
                kind, parent = link_kind(found), host_number(found.get(IFLA_LINK))
                if kind in BESIDE and parent in names:
                    name = text(found[IFLA_IFNAME])
                    mode = ipvlan_mode(found)
                    yield Device(name, kind, parent=names[parent], elsewhere=True, mode=mode)


@contextmanager
def _absent_is_nothing(*more: int) -> Iterator[None]:
    """Treat the kernel's errors for a thing that is not there as an empty answer.

    more: further errno values. An interrupted dump is none of them: it has to be read again.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NOTHING_THERE.union(more):
            raise


def _read_filters(route: NetlinkSocket, names: dict[int, str]) -> Iterator[Filter]:
    """List the filters that send packets elsewhere, of every queue that can have some."""
    places: set[tuple[int, int, str]] = set()
    for body in route.dump(RTM_GETQDISC, TCMSG.pack(0, 0, 0, 0, 0)):
        index = TCMSG.unpack_from(body)[1]
        kind = text(attribute_map(body, TCMSG.size).get(TCA_KIND, b""))
        places |= {(index, *place) for place in PARENTS.get(kind, (ROOT,)) if index in names}
    for index, parent, where in sorted(places):
        found: dict[Filter, None] = {}
        with _absent_is_nothing():  # a queue that has no filters: EOPNOTSUPP
            for body in route.dump(RTM_GETTFILTER, TCMSG.pack(0, index, 0, parent, 0)):
                found |= dict.fromkeys(_filter(names, index, where, body))
        yield from found


def _filter(names: dict[int, str], index: int, where: str, body: bytes) -> Iterator[Filter]:
    found = attribute_map(body, TCMSG.size)
    kind, options = text(found.get(TCA_KIND, b"")), found.get(TCA_OPTIONS, b"")
    for action, target in find_actions(options):
        if action == RUNS_BPF:
            yield Filter(names[index], where, kind)
            continue
        to = names.get(target, f"interface number {target}")
        yield Filter(names[index], where, kind, f"{MIRRED_WORDS.get(action, 'sends to')} {to}")
    if kind == "bpf" and options:
        yield Filter(names[index], where, kind)


def _read_tcx(names: dict[int, str]) -> tuple[list[Filter], tuple[str, ...]]:
    """List the sides of interfaces with programs at their tcx hook.

    The second part says in words why they could not be looked for; empty when they could.
    """
    try:
        found = [
            Filter(name, side, "tcx")
            for index, name in names.items()
            for side in tcx_programs.SIDES
            if tcx_programs.count_programs(index, side)
        ]
    except OSError as error:
        return [], (f"BPF programs at tcx hooks ({error.strerror})",)
    return found, ()


def find_actions(data: bytes) -> Iterator[tuple[int, int]]:
    """Find the actions that send packets on in a filter's options, wherever its kind puts them.

    Each is mirred's action (TCA_EGRESS_REDIR, ...) and the number of the interface; RUNS_BPF and 0
    for a BPF program, which may send packets anywhere.
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
            parameters = attribute_map(inner.get(TCA_OPTIONS, b"")).get(TCA_MIRRED_PARMS, b"")
        except OSError:
            return
        # struct tc_mirred: five words that all actions have, then these two
        if len(parameters) >= 28:
            action, target = struct.unpack_from("=iI", parameters, 20)
            yield action, target
        return
    for _, payload in found:
        if len(payload) > 8:
            yield from find_actions(payload)


def _dump_all(netfilter: NetlinkSocket, what: int) -> Iterator[tuple[str, bytes]]:
    """Dump one kind of thing of every table: its family in nft's word, and its attributes."""
    kind = netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, what)
    for body in netfilter.dump(kind, netfilter_header(0)):
        yield FAMILIES.get(body[0], str(body[0])), body[4:]


def _read_flowtables(netfilter: NetlinkSocket) -> Iterator[Offload]:
    for family, body in _dump_all(netfilter, nf.NFT_MSG_GETFLOWTABLE):
        yield parse_flowtable(family, body)


def parse_flowtable(family: str, body: bytes) -> Offload:
    """Read one flowtable (NFTA_FLOWTABLE_*)."""
    found = attribute_map(body)
    flags = number(found.get(nf.NFTA_FLOWTABLE_FLAGS, b""))
    table = f"{family} {text(found[nf.NFTA_FLOWTABLE_TABLE])}"
    return Offload(
        table, text(found[nf.NFTA_FLOWTABLE_NAME]), bool(flags & nf.NFT_FLOWTABLE_HW_OFFLOAD)
    )


def _read_statements(netfilter: NetlinkSocket) -> Iterator[Statement]:
    for family, body in _dump_all(netfilter, nf.NFT_MSG_GETRULE):
        found = attribute_map(body)
        if family == "inet" and text(found[nf.NFTA_RULE_TABLE]) == TABLE:
            continue
        wanted = {b"fwd\0", b"dup\0"} if family == "netdev" else {b"notrack\0"}
        for expression in attributes(found.get(nf.NFTA_RULE_EXPRESSIONS, b"")):
            name = attribute_map(expression[1]).get(nf.NFTA_EXPR_NAME, b"")
            if name in wanted:
                table = f"{family} {text(found[nf.NFTA_RULE_TABLE])}"
                yield Statement(table, text(found[nf.NFTA_RULE_CHAIN]), text(name))


def _read_sysctls() -> Iterator[tuple[str, str]]:
    """Read the sysctls that matter; one that this kernel does not have is left out."""
    for name in SYSCTLS:
        with contextlib.suppress(OSError):
            path = Path("/proc/sys", *name.split("."))
            yield name, path.read_text(encoding="ascii").strip()
