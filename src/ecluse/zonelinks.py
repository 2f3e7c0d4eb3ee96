"""What the machine's interfaces are to the site's zones: which zone's packets can come at all, and what is odd. Pure.

The kernel judges a packet by the interface that holds the IP of its link. A name that no interface has, a port of a
bridge, a trunk whose VLANs hold the addresses: no packet ever comes by those, and the zone's machines count as outside.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from ecluse.exits import BESIDE, Device, Host
from ecluse.policy import GATEWAY, Policy, Zone

ABOVE = BESIDE | {"vlan"}
"""Kinds of interfaces that hold the IP of what comes by another."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of the machine's links just now. host: None where they could not be looked at: then trouble says why."""

    host: Host | None
    trouble: str = ""

    def living(self, policy: Policy) -> Mapping[str, bool | None]:
        """Say of every zone whether packets can come by one of its interfaces; None: it is not known. The gateway needs none."""
        if self.host is None:
            return {zone: zone == GATEWAY or None for zone in policy.zone_names()}
        ports, inside = _ports(self.host), _Inside(policy)
        alive = {
            zone.name for one in self.host.devices if not _flaw(one, ports) for zone in inside.zones(one.name)
        }
        return {zone: zone == GATEWAY or zone in alive for zone in policy.zone_names()}

    def words(self, policy: Policy, *, cut: bool) -> tuple[str, ...]:
        """Say all that is to be said of the links. cut: some zone is not open, so that what is in no zone is closed."""
        meant = {name for name, _ in _elsewhere(self.host, policy)} if self.host else set()
        foreign = ", ".join(name for name in self.strangers(policy) if name not in meant)
        when = "closed while any zone is" if cut else "will be closed as soon as any zone is"
        return (*self.remarks(policy), *([f"{when}: {foreign} (in no zone of site.yaml)"] if foreign else []))

    def remarks(self, policy: Policy) -> tuple[str, ...]:
        """Say what is odd between the links and the zones, or that they could not be looked at."""
        if self.host is None:
            return (self.trouble,)
        told = _names(self.host, policy, self.living(policy))
        meant = (text for _, text in _elsewhere(self.host, policy))
        return (*told, *meant, *_routes(self.host, policy))

    def strangers(self, policy: Policy) -> tuple[str, ...]:
        """Name the interfaces that forward and are in no zone and no way out either: a bridge of containers, a forgotten VLAN."""
        if self.host is None:
            return ()
        ports, inside = _ports(self.host), _Inside(policy)
        known = {"lo", *self.host.default_routes}
        return tuple(
            sorted(
                one.name
                for one in self.host.devices
                if one.name not in known
                and one.up
                and one.own_ip
                and one.name not in ports
                and not inside.zones(one.name)
            )
        )


class _Inside:
    """Finds the zones of an interface by its name, among many interfaces and many zones (as `exits.matches` does for one)."""

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


def _ports(host: Host) -> Mapping[str, str]:
    """Give the interfaces whose packets come by another, and that one: of a bridge, a bond. In a VRF each keeps its own IP."""
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


def _names(host: Host, policy: Policy, living: Mapping[str, bool | None]) -> Iterator[str]:
    """Name the interfaces of site.yaml by which nothing comes; of those that a `*` stands for one that lives is enough."""
    ports = _ports(host)
    by_name = {one.name: one for one in host.devices if not one.elsewhere}
    for zone in policy.site.zones:
        end = "" if living[zone.name] else "; no packet of this zone is kept"
        for pattern in zone.interfaces:
            there = [by_name[pattern]] if pattern in by_name else []
            if pattern.endswith("*"):
                there = [one for name, one in by_name.items() if name.startswith(pattern.rstrip("*"))]
            flaws = [_flaw(one, ports) for one in there]
            if not there:
                yield f"zone {zone.name}: no interface is called {pattern}{end}"
            elif all(flaws):
                lower = {one.name for one in there}
                above = sorted(
                    one.name for one in by_name.values() if one.kind in ABOVE and one.parent in lower
                )
                on_it = f" (above it: {', '.join(above)})" if above else ""
                yield f"zone {zone.name}: {'; '.join(flaws)}{on_it}{end}"


def _elsewhere(host: Host, policy: Policy) -> Iterator[tuple[str, str]]:
    """Name the interfaces of no zone that hold an address of a zone's subnets, and say so: they are what was meant, as a rule."""
    inside = _Inside(policy)
    for name, text in host.addresses:
        if name == "lo" or inside.zones(name):
            continue
        address = ip_address(text.partition("/")[0])
        for zone in policy.site.zones:
            if any(address in subnet for subnet in zone.subnets):
                meant = f"{text} on {name} is in the subnets of zone {zone.name}, but {name} is in no zone"
                yield name, f"{meant}: what comes by it is refused at every level but open"


def _routes(host: Host, policy: Policy) -> Iterator[str]:
    inside = _Inside(policy)
    for name in host.default_routes:
        for zone in inside.zones(name):
            yield f"a default route leaves by {name}, which is in zone {zone.name}: what goes there counts as inside"
