"""Judges the machine's interfaces by the site's zones: which zone's packets can come at all. Pure.

The kernel judges a packet by the interface that holds the IP of its link. By a name that no
interface has, by a port of a bridge, by a trunk whose VLANs hold the addresses no packet ever
comes: the zone's machines count as outside then.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from ecluse.carriers import THROUGH
from ecluse.host_reading import BESIDE, Device, HostReading
from ecluse.interface_zones import InterfaceZones, matching_patterns
from ecluse.policy import GATEWAY, Policy

ABOVE = BESIDE | {"vlan"}
"""Kinds of interfaces that hold the IP of what comes by another."""


@dataclass(frozen=True, slots=True)
class LinkReading:
    """The machine's links as they were read just now.

    Args:
        host: None where they could not be read.
        trouble: why not, in words.
    """

    host: HostReading | None
    trouble: str = ""

    def living_zones(self, policy: Policy) -> Mapping[str, bool | None]:
        """Say of every zone whether packets can come by one of its interfaces.

        None: it is not known. The gateway's own zone needs no interface.
        """
        if self.host is None:
            return {zone: zone == GATEWAY or None for zone in policy.zone_names()}
        ports, zones = _ports(self.host), InterfaceZones(policy)
        alive = {
            zone.name
            for one in self.host.devices
            if one.kind != "vrf" and not _flaw(one, ports)
            for zone in zones.zones_of(one.name)
        }
        return {zone: zone == GATEWAY or zone in alive for zone in policy.zone_names()}

    def machine_warnings(self, policy: Policy, *, cut: bool) -> tuple[str, ...]:
        """Say all that is to be said of the links.

        cut: some zone is not open, so interfaces in no zone are closed.
        """
        return (*self.link_warnings(policy), *self._about_unzoned(policy, cut=cut))

    def _about_unzoned(self, policy: Policy, *, cut: bool) -> Iterator[str]:
        """Say what becomes of interfaces in no zone.

        Through a tunnel or a link that is dialled go kept services, so that `closed` would be half
        the truth.
        """
        if self.host is None:
            return
        kinds = {one.name: one.kind for one in self.host.devices}
        meant = {name for name, _ in _meant_for_a_zone(self.host, policy)}
        unzoned = [name for name in self.unzoned_interfaces(policy) if name not in meant]
        through = ", ".join(name for name in unzoned if kinds[name] in THROUGH)
        closed = ", ".join(name for name in unzoned if kinds[name] not in THROUGH)
        when = "closed while any zone is" if cut else "will be closed as soon as any zone is"
        if closed:
            yield f"{when}: {closed} (in no zone of site.yaml)"
        if through:
            yield (
                f"outside, as in no zone of site.yaml: {through}: what services keep passes there, "
                f"the rest {'is ' * cut}{when}"
            )

    def link_warnings(self, policy: Policy) -> tuple[str, ...]:
        """Say what is odd between links and zones, or that the links could not be read."""
        if self.host is None:
            return (self.trouble,)
        return (
            *_dead_names(self.host, policy, self.living_zones(policy)),
            *_vrfs(self.host, policy),
            *(text for _, text in _meant_for_a_zone(self.host, policy)),
            *_default_routes_inside(self.host, policy),
        )

    def default_route_bypasses(self, policy: Policy) -> tuple[str, ...]:
        """Give those of the warnings that are ways past the gate.

        A default route by an interface of a zone makes the internet count as inside.
        """
        return tuple(_default_routes_inside(self.host, policy)) if self.host else ()

    def unzoned_interfaces(self, policy: Policy) -> tuple[str, ...]:
        """Name the interfaces that forward, are in no zone and carry no default route.

        A bridge of containers is one, or a forgotten VLAN.
        """
        if self.host is None:
            return ()
        ports, zones = _ports(self.host), InterfaceZones(policy)
        known = {"lo", *self.host.default_routes}
        return tuple(
            sorted(
                one.name
                for one in self.host.devices
                if one.name not in known
                and one.kind != "vrf"
                and one.up
                and one.own_ip
                and one.name not in ports
                and not zones.zones_of(one.name)
            )
        )


def _ports(host: HostReading) -> Mapping[str, str]:
    """Give the interfaces whose packets come by another (a bridge, a bond), and that one.

    In a VRF each interface keeps its own IP, so its members are none of them.
    """
    masters = {one.name for one in host.devices if one.kind != "vrf"}
    return {one.name: one.master for one in host.devices if one.master in masters}


def _flaw(device: Device, ports: Mapping[str, str]) -> str:
    """Say why no packet comes by an interface under its own name; empty: packets can."""
    name = device.name
    if device.elsewhere:
        return f"{name} is in another network namespace"
    if name in ports:
        return f"{name} is a port of {ports[name]}, by which its packets come: name that one"
    if not device.up:
        return f"{name} is down"
    if not device.running:
        return f"{name} has no carrier"
    return "" if device.own_ip else f"{name} has no address and no route of its own"


def _members(host: HostReading, vrf: str) -> list[str]:
    return sorted(one.name for one in host.devices if one.master == vrf)


def _vrf_flaw(device: Device, host: HostReading, zones: InterfaceZones) -> str:
    """Say why a VRF that a zone names brings it nothing; empty: one of its members is inside.

    Packets are judged by the interfaces in the VRF (`ruleset.ingress`).
    """
    members = _members(host, device.name)
    if any(zones.zones_of(name) for name in members):
        return ""
    return (
        f"{device.name} is a VRF, by which alone no packet comes: name the interface of the inside "
        "that is in it too" + (f" ({', '.join(members)})" if members else "")
    )


def _vrfs(host: HostReading, policy: Policy) -> Iterator[str]:
    """Find VRFs with interfaces of the inside that are in no zone, or hold something else too."""
    zones = InterfaceZones(policy)
    for vrf in host.devices:
        members = _members(host, vrf.name) if vrf.kind == "vrf" else []
        ours = [name for name in members if zones.zones_of(name)]
        others = [name for name in members if name not in ours]
        named = [zone.name for zone in zones.zones_of(vrf.name)]
        if ours and not named:
            whose = dict.fromkeys(zone.name for name in ours for zone in zones.zones_of(name))
            yield (
                f"{', '.join(ours)} of zone {', '.join(whose)} is in the VRF {vrf.name}, which is "
                "in no zone: what the gateway itself sends there (DNS, DHCP, refusals) counts as "
                f"going outside; add {vrf.name} to the zone's interfaces too"
            )
        elif ours and others:
            yield (
                f"the VRF {vrf.name} of zone {', '.join(named)} holds {', '.join(others)} too, "
                "which is in no zone: what comes by it is judged as from outside"
            )


def _dead_names(
    host: HostReading, policy: Policy, living: Mapping[str, bool | None]
) -> Iterator[str]:
    """Find the patterns of site.yaml by which no packet comes.

    Of the interfaces that a `*` stands for, one that lives is enough.
    """
    ports, zones = _ports(host), InterfaceZones(policy)
    here = {one.name: one for one in host.devices if not one.elsewhere}
    for zone in policy.site.zones:
        end = "" if living[zone.name] else "; no packet of this zone is kept"
        for pattern in zone.interfaces:
            there = [here[pattern]] if pattern in here else []
            if pattern.endswith("*"):
                prefix = pattern.rstrip("*")
                there = [one for name, one in here.items() if name.startswith(prefix)]
            flaws = [
                _vrf_flaw(one, host, zones) if one.kind == "vrf" else _flaw(one, ports)
                for one in there
            ]
            if not there:
                yield f"zone {zone.name}: no interface is called {pattern}{end}"
            elif all(flaws):
                lower = {one.name for one in there}
                above = sorted(
                    one.name for one in here.values() if one.kind in ABOVE and one.parent in lower
                )
                on_it = f" (above it: {', '.join(above)})" if above else ""
                yield f"zone {zone.name}: {'; '.join(flaws)}{on_it}{end}"


def _meant_for_a_zone(host: HostReading, policy: Policy) -> Iterator[tuple[str, str]]:
    """Find interfaces of no zone that hold an address of a zone's subnets, with what to say.

    As a rule they are the ones that were meant.
    """
    zones = InterfaceZones(policy)
    for name, text in host.addresses:
        if name == "lo" or zones.zones_of(name):
            continue
        address = ip_address(text.partition("/")[0])
        for zone in policy.site.zones:
            if any(address in subnet for subnet in zone.subnets):
                where = f"{text} on {name} is in the subnets of zone {zone.name}"
                what = f"{where}, but {name} is in no zone: what comes by it is refused at every"
                yield name, f"{what} level but open"


def _default_routes_inside(host: HostReading, policy: Policy) -> Iterator[str]:
    zones = InterfaceZones(policy)
    for name in host.default_routes:
        for zone in zones.zones_of(name):
            meant = ", ".join(matching_patterns(zone, name))
            yield (
                f"a default route leaves by {name}, which is in zone {zone.name} ({meant}): what "
                "goes there counts as inside and passes at every level; write the zone's "
                f"interfaces so that {name} is none of them, or rename it"
            )
