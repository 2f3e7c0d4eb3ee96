"""Ways past the gate on the gateway itself: what a look at the machine shows, and what is worth
saying of it. Pure.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ecluse.policy import Policy, Zone
from ecluse.ruleset.program import ifname_interval


@dataclass(frozen=True, slots=True)
class Device:
    """An interface.

    kind: as the kernel calls it (`bridge`, `macvlan`), empty for hardware. master, parent: other
    interfaces.

    xdp: how an XDP program is attached, empty when none is. elsewhere: it stands in another network
    namespace, its parent in ours. tc_in_hardware: the card may carry out tc's filters itself
    (`hw-tc-offload`).
    up: somebody set it up. running: and it has a carrier (IFF_RUNNING), so that packets can come
    and go. own_ip: it has an address that leads beyond its link, or a route leads to it.
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


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of tc.

    where: `ingress`, `egress`. does: `redirects to wan0`, `copies to wan0`, or empty (a BPF
    program).

    kind: as tc calls it, or `tcx`.
    """

    device: str
    where: str
    kind: str
    does: str = ""


@dataclass(frozen=True, slots=True)
class Offload:
    """A flowtable of anybody's. hardware: the network card may forward by itself."""

    table: str
    name: str
    hardware: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """A rule of another table that moves packets (`fwd`, `dup` in family netdev) or hides them from
    conntrack (`notrack`).
    """

    table: str
    chain: str
    what: str


@dataclass(frozen=True, slots=True)
class HostReading:
    """What a look at the machine shows.

    addresses: interface and address with prefix length. switches: sysctl -> value.

    unseen: what could not be looked for, in words.
    """

    devices: tuple[Device, ...] = ()
    filters: tuple[Filter, ...] = ()
    offloads: tuple[Offload, ...] = ()
    statements: tuple[Statement, ...] = ()
    addresses: tuple[tuple[str, str], ...] = ()
    default_routes: tuple[str, ...] = ()
    switches: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BypassFinding:
    """One thing worth saying. is_exit: packets may get past the gate by it; else it is a remark.

    where: the interface or table that it hangs on: with the kind it tells one way from another,
    whatever the words say besides (the ports of a bridge and the names of macvlans come and go with
    each container).
    """

    kind: str
    what: str
    is_exit: bool
    where: str = ""


_Exit = tuple[str, str, str]
"""Of a way out: its kind, where it is, what is said of it (`Finding`)."""

BESIDE = frozenset({"macvlan", "macvtap", "ipvlan", "ipvtap"})
"""Kinds of interfaces that put another network stack beside ours on the same wire."""
_FORWARDS = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
FORWARDING = tuple(_FORWARDS.values())
BRIDGE_CALLS = "net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"
LOOSE = "net.netfilter.nf_conntrack_tcp_loose"
SWITCHES = (*FORWARDING, *BRIDGE_CALLS, LOOSE)


def matches(pattern: str, name: str) -> bool:
    """Say whether an interface's name fits a pattern of site.yaml (`care0`, `vlan1*`)."""
    low, high = ifname_interval(pattern)
    return low <= ifname_interval(name)[0] <= high


def zones_of(policy: Policy, name: str) -> list[Zone]:
    """Give the zones that an interface is in; none: it counts as outside."""
    return [zone for zone in policy.site.zones if any(matches(p, name) for p in zone.interfaces)]


def findings(host: HostReading, policy: Policy) -> tuple[BypassFinding, ...]:
    """Say what may pass by the gate, and what else is odd, the ways out first."""
    outside = {
        one.name for one in host.devices if one.name != "lo" and not zones_of(policy, one.name)
    }
    exits: list[Iterable[_Exit]] = [
        _xdp(host),
        _filters(host),
        _bridges(host, policy),
        _openvswitch(host),
        _beside(host, outside),
        _moved(host),
        _hardware(host),
    ]
    remarks: list[Iterable[tuple[str, str]]] = [
        _flowtables(host),
        _cards(host),
        _untracked(host),
        _routes(host, outside),
        _addresses(host, policy),
        _switches(host, policy),
    ]
    return tuple(
        BypassFinding(kind, what, True, where) for each in exits for kind, where, what in each
    ) + tuple(BypassFinding(kind, what, False) for each in remarks for kind, what in each)


def _xdp(host: HostReading) -> Iterator[_Exit]:
    for one in host.devices:
        if one.xdp:
            yield (
                "xdp",
                one.name,
                f"an XDP program is attached to {one.name} ({one.xdp}): it may send packets on before the gate sees them",
            )


def _filters(host: HostReading) -> Iterator[_Exit]:
    for one in host.filters:
        does = one.does or "runs a BPF program, which may send packets on"
        yield (
            "tc",
            one.device,
            f"a tc filter ({one.kind}, {one.where} of {one.device}) {does}, past the gate",
        )


def _bridges(host: HostReading, policy: Policy) -> Iterator[_Exit]:
    if all(host.switches.get(name) == "1" for name in BRIDGE_CALLS):
        return
    for bridge in host.devices:
        if bridge.kind != "bridge":
            continue
        ports = [one.name for one in host.devices if one.master == bridge.name]
        inside = [name for name in ports if zones_of(policy, name)]
        outside = [name for name in ports if name not in inside]
        if inside and outside:
            yield (
                "bridge",
                bridge.name,
                (
                    f"bridge {bridge.name} joins {', '.join(inside)} (inside) with {', '.join(outside)}: frames between its "
                    "ports pass by the gate (net.bridge.bridge-nf-call-iptables and -ip6tables are not both 1)"
                ),
            )


def _openvswitch(host: HostReading) -> Iterator[_Exit]:
    """Name Open vSwitch's devices: its rules are neither netfilter's nor looked at, so any of them
    may join in and out.
    """
    for one in host.devices:
        if one.kind != "openvswitch":
            continue
        ports = ", ".join(port.name for port in host.devices if port.master == one.name)
        has = f" with the ports {ports}" if ports else ""
        yield (
            one.kind,
            one.name,
            f"{one.name} is Open vSwitch's{has}: it forwards by rules of its own, past the gate, which are not looked at",
        )


def _beside(host: HostReading, outside: set[str]) -> Iterator[_Exit]:
    for one in host.devices:
        if one.kind in BESIDE and one.parent in outside:
            where = f"{one.name} in another network namespace" if one.elsewhere else one.name
            yield (
                one.kind,
                one.parent,
                (
                    f"{where} ({one.kind}) shares {one.parent}: whoever holds it, a container or a virtual machine, gets out "
                    "beside the gate"
                ),
            )


def _moved(host: HostReading) -> Iterator[_Exit]:
    for one in host.statements:
        if one.what != "notrack":
            yield (
                "netdev",
                one.table,
                f"table {one.table}, chain {one.chain}: '{one.what}' sends packets on before the gate sees them",
            )


def _hardware(host: HostReading) -> Iterator[_Exit]:
    for one in host.offloads:
        if one.hardware:
            yield (
                "offload",
                one.table,
                (
                    f"flowtable {one.name} of table {one.table} offloads to hardware: the card forwards by itself, out of "
                    "sight, until its connection is ended after a cut"
                ),
            )


def _flowtables(host: HostReading) -> Iterator[tuple[str, str]]:
    for one in host.offloads:
        if not one.hardware:
            yield (
                "flowtable",
                (
                    f"flowtable {one.name} of table {one.table}: its flows pass by the gate until they are ended, a moment "
                    "after a cut"
                ),
            )


def _cards(host: HostReading) -> Iterator[tuple[str, str]]:
    for one in host.devices:
        if one.tc_in_hardware:
            what = (
                f"the card of {one.name} may carry out tc's filters by itself (hw-tc-offload is on)"
            )
            yield "hardware", what


def _untracked(host: HostReading) -> Iterator[tuple[str, str]]:
    for one in host.statements:
        if one.what == "notrack":
            yield (
                "notrack",
                f"table {one.table}, chain {one.chain}: what 'notrack' takes from conntrack is kept at no level",
            )


def _routes(host: HostReading, outside: set[str]) -> Iterator[tuple[str, str]]:
    out = [name for name in host.default_routes if name in outside]
    if len(out) > 1:
        yield (
            "routes",
            f"default routes leave by {', '.join(out)}: is each of them meant to be a way out?",
        )


def _addresses(host: HostReading, policy: Policy) -> Iterator[tuple[str, str]]:
    used = _families(policy)
    for name, text in host.addresses:
        address = ipaddress.ip_interface(text)
        zones = zones_of(policy, name)
        if address.version not in used and host.switches.get(_FORWARDS[address.version]) == "0":
            continue  # the site has not that family, and nobody forwards it
        if (
            not zones
            or address.is_link_local
            or any(address.ip in s for zone in zones for s in zone.subnets)
        ):
            continue
        names = " or ".join(zone.name for zone in zones)
        yield (
            "subnet",
            f"{text} on {name} is in none of the subnets of zone {names}: machines there are kept at no level",
        )


def _families(policy: Policy) -> set[int]:
    """Give the IP versions that the site has inside: of the other it need hear nothing."""
    return {subnet.version for zone in policy.site.zones for subnet in zone.subnets}


def _switches(host: HostReading, policy: Policy) -> Iterator[tuple[str, str]]:
    for name in (_FORWARDS[version] for version in sorted(_families(policy))):
        if host.switches.get(name) == "0":
            yield (
                "forwarding",
                f"{name} is 0: this machine forwards nothing of that family, kept or not",
            )
    if host.switches.get(LOOSE) == "0":
        yield (
            "loose",
            f"{LOOSE} is 0: connections that the kernel forgot, or that are ended, hang until they time out",
        )
