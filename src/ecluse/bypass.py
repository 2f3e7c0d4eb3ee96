"""Judges one reading of the gateway: what may carry packets past the gate, and what else is odd.

Pure. What concerns the zones' own interfaces is judged by `zone_links`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface

from ecluse.carriers import carrier_warnings
from ecluse.host_reading import BESIDE, BRIDGE_CALLS, FORWARDING, LOOSE, Device, HostReading
from ecluse.interface_zones import InterfaceZones
from ecluse.policy import CUT, FastPath, Levels, Policy
from ecluse.ruleset import flowtable
from ecluse.zone_links import LinkReading


@dataclass(frozen=True, slots=True)
class MachineWarning:
    """One thing worth saying of the machine.

    Args:
        is_bypass: packets may get past the gate by it.
        where: the interface or table that it hangs on. Kind and place tell one bypass from
            another; the words change with each container that comes and goes.
    """

    kind: str
    what: str
    is_bypass: bool
    where: str = ""


def find_bypasses(
    host: HostReading, policy: Policy, levels: Levels | None = None
) -> tuple[MachineWarning, ...]:
    """Judge a full reading: the ways past the gate first.

    levels: those at which something may end that carries kept services; None: `cut`.
    """
    at = levels or dict.fromkeys(policy.zone_names(), CUT.name)
    zones = InterfaceZones(policy)
    outside = {
        one.name for one in host.devices if one.name != "lo" and not zones.zones_of(one.name)
    }
    found = [
        *_xdp(host),
        *_filters(host),
        *_bridges(host, zones),
        *_zones_bridges(host, zones),
        *_openvswitch(host),
        *_beside(host, outside),
        *_moving_rules(host),
        *_flowtables(host, policy),
        *_cards(host),
        *_untracked(host),
        *_routes(host, outside),
        *_addresses(host, policy, zones),
        *_sysctls(host, policy),
        *(_warning(one.kind, one.what, one.where) for one in carrier_warnings(host, policy, at)),
    ]
    return tuple(sorted(found, key=lambda one: not one.is_bypass))


def judge_machine(host: HostReading, policy: Policy) -> tuple[MachineWarning, ...]:
    """Judge all that a full reading shows, the zones' links too; the ways past the gate first."""
    links = LinkReading(host)
    out = links.default_route_bypasses(policy)
    told = [
        MachineWarning("zone", what, is_bypass=what in out)
        for what in links.machine_warnings(policy, cut=False)
    ]
    return tuple(sorted((*find_bypasses(host, policy), *told), key=lambda one: not one.is_bypass))


def _bypass(kind: str, where: str, what: str) -> MachineWarning:
    return MachineWarning(kind, what, is_bypass=True, where=where)


def _warning(kind: str, what: str, where: str = "") -> MachineWarning:
    return MachineWarning(kind, what, is_bypass=False, where=where)


def _xdp(host: HostReading) -> Iterator[MachineWarning]:
    for one in host.devices:
        if one.xdp:
            what = f"an XDP program is attached to {one.name} ({one.xdp})"
            yield _bypass(
                "xdp", one.name, f"{what}: it may send packets on before the gate sees them"
            )


def _filters(host: HostReading) -> Iterator[MachineWarning]:
    for one in host.filters:
        does = one.does or "runs a BPF program, which may send packets on"
        what = f"a tc filter ({one.kind}, {one.where} of {one.device}) {does}, past the gate"
        yield _bypass("tc", one.device, what)


def _bridges(host: HostReading, zones: InterfaceZones) -> Iterator[MachineWarning]:
    """Find bridges that join inside and outside, unless netfilter's IP hooks see their frames."""
    if all(host.sysctls.get(name) == "1" for name in BRIDGE_CALLS):
        return
    for bridge in host.devices:
        if bridge.kind != "bridge":
            continue
        ports = [one.name for one in host.devices if one.master == bridge.name]
        inside = [name for name in ports if zones.zones_of(name)]
        outside = [name for name in ports if name not in inside]
        if inside and outside:
            yield _bypass(
                "bridge",
                bridge.name,
                f"bridge {bridge.name} joins {', '.join(inside)} (inside) with "
                f"{', '.join(outside)}: frames between its ports pass by the gate "
                "(net.bridge.bridge-nf-call-iptables and -ip6tables are not both 1)",
            )


def _zones_bridges(host: HostReading, zones: InterfaceZones) -> Iterator[MachineWarning]:
    """Find zones' bridges with a port that leads outside.

    Where netfilter's IP hooks see the frames of bridges, these go from the zone to the zone.
    """
    for bridge in host.devices:
        if bridge.kind == "bridge" and zones.zones_of(bridge.name):
            yield from _outside_ports(host, bridge, zones)


def _outside_ports(
    host: HostReading, bridge: Device, zones: InterfaceZones
) -> Iterator[MachineWarning]:
    """Find a bridge's ports that lead outside.

    A port's name says nothing: it counts as outside if it stands on an interface with a default
    route (macvlan), or if the bridge learned there what is on such an interface's segment.
    """
    named = ", ".join(zone.name for zone in zones.zones_of(bridge.name))
    where = f"{bridge.name} of zone {named}"
    told: set[str] = set()
    for one in host.devices:
        above = one.master == bridge.name and one.kind in BESIDE and one.parent
        if above and one.parent in host.default_routes and not zones.zones_of(one.parent):
            told.add(one.name)
            yield _bypass(
                "bridge",
                bridge.name,
                f"port {one.name} of bridge {where} shares {one.parent}, by which a default route "
                "leaves: frames between the zone and the outside pass by the gate; take it out "
                f"(ip link set {one.name} nomaster)",
            )
    for seen in host.seen_on_bridges:
        if seen.bridge != bridge.name or seen.port in told or zones.zones_of(seen.outside):
            continue
        told.add(seen.port)
        station = f"{seen.outside} itself"
        if seen.address:
            station = f"{seen.address}, the next hop of a default route by {seen.outside},"
        yield _bypass(
            "bridge",
            bridge.name,
            f"bridge {where} sees {station} behind its port {seen.port}: that port leads outside, "
            "and what the zone sends there passes by the gate; take it out "
            f"(ip link set {seen.port} nomaster)",
        )


def _openvswitch(host: HostReading) -> Iterator[MachineWarning]:
    """Find Open vSwitch: its rules are not netfilter's, so any device may join in and out."""
    for one in host.devices:
        if one.kind != "openvswitch":
            continue
        ports = ", ".join(port.name for port in host.devices if port.master == one.name)
        has = f" with the ports {ports}" if ports else ""
        yield _bypass(
            one.kind,
            one.name,
            f"{one.name} is Open vSwitch's{has}: it forwards by rules of its own, past the gate, "
            "which are not looked at",
        )


def _beside(host: HostReading, outside: set[str]) -> Iterator[MachineWarning]:
    for one in host.devices:
        # What an ipvlan of mode l3s sends passes our hooks at output, as the gateway's own packets.
        if one.kind in BESIDE and one.mode != "l3s" and one.parent in outside:
            where = f"{one.name} in another network namespace" if one.elsewhere else one.name
            yield _bypass(
                one.kind,
                one.parent,
                f"{where} ({one.kind}) shares {one.parent}: what holds it, a container or a "
                "virtual machine, gets out beside the gate",
            )


def _moving_rules(host: HostReading) -> Iterator[MachineWarning]:
    for one in host.statements:
        if one.what != "notrack":
            what = f"'{one.what}' sends packets on before the gate sees them"
            yield _bypass("netdev", one.table, f"table {one.table}, chain {one.chain}: {what}")


def _flowtables(host: HostReading, policy: Policy) -> Iterator[MachineWarning]:
    ours = flowtable.TABLE if policy.site.fast_path is FastPath.FLOWTABLE else ""
    for one in host.offloads:
        if one.table == ours and not one.hardware:
            continue  # it goes in the transaction of the switch
        name = f"flowtable {one.name} of table {one.table}"
        if one.hardware:
            yield _bypass(
                "offload",
                one.table,
                f"{name} offloads to hardware: the card forwards by itself, out of sight, until "
                "its connection is ended after a cut",
            )
        else:
            what = "its flows pass by the gate until they are ended, a moment after a cut"
            yield _warning("flowtable", f"{name}: {what}")


def _cards(host: HostReading) -> Iterator[MachineWarning]:
    for one in host.devices:
        if one.tc_in_hardware:
            what = f"the card of {one.name} may carry out tc's filters by itself"
            yield _warning("hardware", f"{what} (hw-tc-offload is on)")


def _untracked(host: HostReading) -> Iterator[MachineWarning]:
    for one in host.statements:
        if one.what == "notrack":
            what = "what 'notrack' takes from conntrack is kept at no level"
            yield _warning("notrack", f"table {one.table}, chain {one.chain}: {what}")


def _routes(host: HostReading, outside: set[str]) -> Iterator[MachineWarning]:
    out = [name for name in host.default_routes if name in outside]
    if len(out) > 1:
        what = f"default routes leave by {', '.join(out)}"
        yield _warning("routes", f"{what}: is each of them meant to be a way out?")


def _addresses(
    host: HostReading, policy: Policy, zones: InterfaceZones
) -> Iterator[MachineWarning]:
    """Find addresses on a zone's interface that are in none of the zone's subnets."""
    used = _families(policy)
    for name, text in host.addresses:
        address = ip_interface(text)
        if address.version not in used and host.sysctls.get(FORWARDING[address.version]) == "0":
            continue  # the site has not that family, and nobody forwards it
        its_zones = zones.zones_of(name)
        subnets = [subnet for zone in its_zones for subnet in zone.subnets]
        if not its_zones or address.is_link_local or any(address.ip in one for one in subnets):
            continue
        names = " or ".join(zone.name for zone in its_zones)
        yield _warning(
            "subnet",
            f"{text} on {name} is in none of the subnets of zone {names}: machines there are kept "
            "at no level",
        )


def _families(policy: Policy) -> set[int]:
    """Give the IP versions that the zones' subnets have."""
    return {subnet.version for zone in policy.site.zones for subnet in zone.subnets}


def _sysctls(host: HostReading, policy: Policy) -> Iterator[MachineWarning]:
    for version in sorted(_families(policy)):
        name = FORWARDING[version]
        if host.sysctls.get(name) == "0":
            what = f"IPv{version} forwarding is off ({name} is 0)"
            yield _warning("forwarding", f"{what}: no IPv{version} passes, kept or not")
    if host.sysctls.get(LOOSE) == "0":
        what = "connections that the kernel forgot, or that are ended, hang until they time out"
        yield _warning("loose", f"{LOOSE} is 0: {what}")
