"""What the machine's interfaces are to the site's zones: which zone's packets can come at all, and
what is odd. Pure.

The kernel judges a packet by the interface that holds the IP of its link. A name that no interface
has, a port of a bridge, a trunk whose VLANs hold the addresses: no packet ever comes by those, and
the zone's machines count as outside.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from ecluse.bypass import BESIDE, Device, HostReading, matches
from ecluse.policy import GATEWAY, Policy, Zone

ABOVE = BESIDE | {"vlan"}
"""Kinds of interfaces that hold the IP of what comes by another."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of the machine's links just now.

    host: None where they could not be looked at: then trouble says why.
    """

    host: HostReading | None
    trouble: str = ""

    def living(self, policy: Policy) -> Mapping[str, bool | None]:
        """Say of every zone whether packets can come by one of its interfaces; None: it is not
        known. The gateway needs none.
        """
        if self.host is None:
            return {zone: zone == GATEWAY or None for zone in policy.zone_names()}
        ports, inside = _ports(self.host), _Inside(policy)
        alive = {
            zone.name
            for one in self.host.devices
            if one.kind != "vrf" and not _flaw(one, ports)
            for zone in inside.zones(one.name)
        }
        return {zone: zone == GATEWAY or zone in alive for zone in policy.zone_names()}

    def words(self, policy: Policy, *, cut: bool) -> tuple[str, ...]:
        """Say all that is to be said of the links.

        cut: some zone is not open, so that what is in no zone is closed.
        """
        meant = {name for name, _ in _elsewhere(self.host, policy)} if self.host else set()
        foreign = ", ".join(name for name in self.strangers(policy) if name not in meant)
        when = "closed while any zone is" if cut else "will be closed as soon as any zone is"
        return (
            *self.remarks(policy),
            *([f"{when}: {foreign} (in no zone of site.yaml)"] if foreign else []),
        )

    def remarks(self, policy: Policy) -> tuple[str, ...]:
        """Say what is odd between the links and the zones, or that they could not be looked at."""
        if self.host is None:
            return (self.trouble,)
        told = _names(self.host, policy, self.living(policy))
        meant = (text for _, text in _elsewhere(self.host, policy))
        return (*told, *_vrfs(self.host, policy), *meant, *_routes(self.host, policy))

    def ways_out(self, policy: Policy) -> tuple[str, ...]:
        """Say which of the remarks are ways past the gate: a way out that a zone's interfaces take
        for the inside.
        """
        return tuple(_routes(self.host, policy)) if self.host else ()

    def strangers(self, policy: Policy) -> tuple[str, ...]:
        """Name the interfaces that forward and are in no zone and no way out either: a bridge of
        containers, a forgotten VLAN.
        """
        if self.host is None:
            return ()
        ports, inside = _ports(self.host), _Inside(policy)
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
                and not inside.zones(one.name)
            )
        )


class _Inside:
    """Finds the zones of an interface by its name, among many interfaces and many zones (as
    `exits.matches` does for one).
    """

    def __init__(self, policy: Policy) -> None:
        self._exact: dict[str, list[Zone]] = {}
        self._wild: list[tuple[str, Zone]] = []
        for zone in policy.site.zones:
            for pattern in zone.interfaces:
                if pattern.endswith("*"):
                    self._wild.append((pattern.rstrip("*"), zone))
                else:
                    self._exact.setdefault(pattern, []).append(zone)

    def zones(self, name: str) -> list[Zone]:
        return [
            *self._exact.get(name, ()),
            *(zone for prefix, zone in self._wild if name.startswith(prefix)),
        ]


def _ports(host: HostReading) -> Mapping[str, str]:
    """Give the interfaces whose packets come by another, and that one: of a bridge, a bond.

    In a VRF each keeps its own IP.
    """
    masters = {one.name for one in host.devices if one.kind != "vrf"}
    return {one.name: one.master for one in host.devices if one.master in masters}


def _flaw(device: Device, ports: Mapping[str, str]) -> str:
    """Say why no packet comes by an interface under its own name; empty when packets can."""
    if device.elsewhere:
        return f"{device.name} is in another network namespace"
    if device.name in ports:
        return f"{device.name} is a port of {ports[device.name]}, by which its packets come: name that one"
    if not device.up:
        return f"{device.name} is down"
    if not device.running:
        return f"{device.name} has no carrier"
    return "" if device.own_ip else f"{device.name} has no address and no route of its own"


def _members(host: HostReading, vrf: str) -> list[str]:
    return sorted(one.name for one in host.devices if one.master == vrf)


def _vrf_flaw(device: Device, host: HostReading, inside: _Inside) -> str:
    """Say why a VRF that a zone names brings it nothing: packets are judged by the interfaces in it
    (`ruleset.origin`).
    """
    members = _members(host, device.name)
    if any(inside.zones(name) for name in members):
        return ""
    return (
        f"{device.name} is a VRF, by which alone no packet comes: name the interface of the inside that is in it too"
        + (f" ({', '.join(members)})" if members else "")
    )


def _vrfs(host: HostReading, policy: Policy) -> Iterator[str]:
    """Name the VRFs that hold something of the inside and are in no zone, and those of a zone that
    hold something else too.
    """
    inside = _Inside(policy)
    for vrf in host.devices:
        members = _members(host, vrf.name) if vrf.kind == "vrf" else []
        ours = [name for name in members if inside.zones(name)]
        others = [name for name in members if name not in ours]
        named = [zone.name for zone in inside.zones(vrf.name)]
        if ours and not named:
            zones = ", ".join(
                dict.fromkeys(zone.name for name in ours for zone in inside.zones(name))
            )
            yield (
                f"{', '.join(ours)} of zone {zones} is in the VRF {vrf.name}, which is in no zone: what the gateway itself "
                f"sends there (DNS, DHCP, refusals) counts as going outside; add {vrf.name} to the zone's interfaces too"
            )
        elif ours and others:
            yield (
                f"the VRF {vrf.name} of zone {', '.join(named)} holds {', '.join(others)} too, which is in no zone: "
                "what comes by it is judged as from outside"
            )


def _names(host: HostReading, policy: Policy, living: Mapping[str, bool | None]) -> Iterator[str]:
    """Name the interfaces of site.yaml by which nothing comes; of those that a `*` stands for one
    that lives is enough.
    """
    ports, inside = _ports(host), _Inside(policy)
    by_name = {one.name: one for one in host.devices if not one.elsewhere}
    for zone in policy.site.zones:
        end = "" if living[zone.name] else "; no packet of this zone is kept"
        for pattern in zone.interfaces:
            there = [by_name[pattern]] if pattern in by_name else []
            if pattern.endswith("*"):
                there = [
                    one for name, one in by_name.items() if name.startswith(pattern.rstrip("*"))
                ]
            flaws = [
                _vrf_flaw(one, host, inside) if one.kind == "vrf" else _flaw(one, ports)
                for one in there
            ]
            if not there:
                yield f"zone {zone.name}: no interface is called {pattern}{end}"
            elif all(flaws):
                lower = {one.name for one in there}
                above = sorted(
                    one.name
                    for one in by_name.values()
                    if one.kind in ABOVE and one.parent in lower
                )
                on_it = f" (above it: {', '.join(above)})" if above else ""
                yield f"zone {zone.name}: {'; '.join(flaws)}{on_it}{end}"


def _elsewhere(host: HostReading, policy: Policy) -> Iterator[tuple[str, str]]:
    """Name the interfaces of no zone that hold an address of a zone's subnets, and say so: they are
    what was meant, as a rule.
    """
    inside = _Inside(policy)
    for name, text in host.addresses:
        if name == "lo" or inside.zones(name):
            continue
        address = ip_address(text.partition("/")[0])
        for zone in policy.site.zones:
            if any(address in subnet for subnet in zone.subnets):
                meant = f"{text} on {name} is in the subnets of zone {zone.name}, but {name} is in no zone"
                yield name, f"{meant}: what comes by it is refused at every level but open"


def _routes(host: HostReading, policy: Policy) -> Iterator[str]:
    inside = _Inside(policy)
    for name in host.default_routes:
        for zone in inside.zones(name):
            meant = [pattern for pattern in zone.interfaces if matches(pattern, name)]
            yield (
                f"a default route leaves by {name}, which is in zone {zone.name} ({', '.join(meant)}): what goes there counts "
                f"as inside and passes at every level; write the zone's interfaces so that {name} is none of them, or rename it"
            )
