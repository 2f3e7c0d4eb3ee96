"""One reading of the machine: interfaces, addresses, routes, tc filters, other tables, sysctls.

Values only. `kernel/read_links.py` and `kernel/bypass_scan.py` make them; `zone_links` and `bypass`
judge them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

BESIDE = frozenset({"macvlan", "macvtap", "ipvlan", "ipvtap"})
"""Kinds of interfaces that put another network stack beside ours on the same wire."""
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
"""By IP version."""
BRIDGE_CALLS = "net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"
LOOSE = "net.netfilter.nf_conntrack_tcp_loose"
SYSCTLS = (*FORWARDING.values(), *BRIDGE_CALLS, LOOSE)
"""The sysctls that are read."""

RENAMED, MISSED = " was renamed to ", "changes of links were missed"
"""In the words of an announced change: an interface was renamed; what changed is not known."""


@dataclass(frozen=True, slots=True)
class Device:
    """An interface.

    Args:
        kind: the kernel's word (`bridge`, `macvlan`); empty for hardware.
        master: the interface that it is a port of. parent: the one that it stands on.
        xdp: how an XDP program is attached; empty when none is.
        elsewhere: it stands in another network namespace, its parent in ours.
        tc_in_hardware: the card may carry out tc's filters itself (`hw-tc-offload`).
        up: it was set up. running: it has a carrier, too (IFF_RUNNING): packets can pass.
        own_ip: it has an address that is not link-local, or a route beyond its link.
        index: its number (ifindex); 0 where it is not known.
        mac: its link-layer address as a number; 0 for none.
        ethernet: its packets have an Ethernet header.
        vlan: of a VLAN, the ethertype and the number of its tag.
        carries_ppp: a PPPoE session runs over it.
        mode: of an ipvlan: `l3s` or empty. remote: the other end of a tunnel, empty for none or
            any. port: UDP port of its packets (VXLAN, Geneve), else 0.
    """

    name: str
    kind: str = ""
    master: str = ""
    parent: str = ""
    xdp: str = ""
    elsewhere: bool = False
    tc_in_hardware: bool = False
    up: bool = True
    running: bool = True
    own_ip: bool = True
    index: int = 0
    mac: int = 0
    ethernet: bool = True
    vlan: tuple[int, int] = (0, 0)
    carries_ppp: bool = False
    mode: str = ""
    remote: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of tc, or a program at a tcx hook.

    Args:
        where: `ingress` or `egress`.
        kind: tc's word, or `tcx`.
        does: `redirects to wan0`, `copies to wan0`; empty: it runs a BPF program.
    """

    device: str
    where: str
    kind: str
    does: str = ""


@dataclass(frozen=True, slots=True)
class Offload:
    """A flowtable of any table. hardware: the network card may forward by itself."""

    table: str
    name: str
    hardware: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement in another table that moves packets or hides them from conntrack.

    what: `fwd` or `dup` (family netdev), or `notrack`.
    """

    table: str
    chain: str
    what: str


@dataclass(frozen=True, slots=True)
class LearnedRoutes:
    """Routes by one interface that one routing protocol put into the kernel.

    protocol: the kernel's number (rtm_protocol). default: a default route is one of them. count:
    bounded.
    """

    protocol: int
    device: str
    count: int
    default: bool


@dataclass(frozen=True, slots=True)
class SeenOnBridge:
    """A station of an outside interface's segment that a bridge of ours learned, too.

    Args:
        bridge, port: where it was learned.
        outside: the interface on whose segment it is.
        address: of a next hop of a default route; empty: it is that interface itself.
    """

    bridge: str
    port: str
    outside: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class HostReading:
    """What was read of the machine; a part that was not asked for is empty.

    Args:
        statements, offloads, filters, sysctls, unseen: filled by a scan for bypasses alone.
        addresses: interface and address with its prefix length.
        default_routes: names of the interfaces that carry one, sorted.
        routers: interface and address of each next hop of a default route.
        learned_routes: what routing protocols put there.
        translations: interface and prefix of IPv6 routes of length 96, as a NAT64 has one.
        seen_on_bridges: filled by a scan for bypasses alone.
        sysctls: name -> value.
        unseen: what could not be looked for, in words.
    """

    devices: tuple[Device, ...] = ()
    filters: tuple[Filter, ...] = ()
    offloads: tuple[Offload, ...] = ()
    statements: tuple[Statement, ...] = ()
    addresses: tuple[tuple[str, str], ...] = ()
    default_routes: tuple[str, ...] = ()
    routers: tuple[tuple[str, str], ...] = ()
    learned_routes: tuple[LearnedRoutes, ...] = ()
    translations: tuple[tuple[str, str], ...] = ()
    seen_on_bridges: tuple[SeenOnBridge, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()

    def names(self) -> dict[int, str]:
        """Give the name of each interface of this namespace by its number."""
        return {one.index: one.name for one in self.devices if not one.elsewhere}
