"""Limits on the size of a site, checked before anything is built from it.

Each protects something beyond the files: libnftables, the kernel's memory, the time of a load. The
form of names, which fits nftables and file names, is in `parsers.py`.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from ecluse.config.cross_checks import Placed, PlacedService
from ecluse.config.yaml_tree import Document, Loc
from ecluse.faults import Fault
from ecluse.policy import (
    CUT,
    Criticality,
    Destination,
    Direction,
    DnsMode,
    DnsProxySettings,
    InternalDomains,
    Service,
    Site,
)

ZONES = 64
INTERFACES = 256
"""Of all zones together. Groups of zones that share one have chains of their own."""
SUBNETS = 1000
"""Of all zones together."""
RESOLVERS = 16
MANAGEMENT = 1000
"""Networks times ports."""
INTERNAL = 1000
"""Names times servers: lines of dnsmasq's list."""
SERVICES = 20_000
ENTRIES = 500_000
"""Elements of maps: targets times ports times the inside (the zones count as one, each of `hosts`
as one).
"""
NAMES = 10_000
"""Host names and wildcards: each is looked up repeatedly."""
BY_NAME = 250
"""Services with names, where there is a DNS gate: each has two sets, for which the kernel takes 4
MiB (Linux 6.18).
"""
PORTS = 1000
"""Ports and ranges of one service."""
LOOK_UPS = 20_000
"""In the chains of zones and levels: the kernel takes 5 s to load so many (each has an unnamed set,
and a new one is compared with all before it), and walks those of the live levels at each switch.
"""
RULES_BY_NAME = 30_000
"""Rules for learned addresses, in the same chains: 4 s."""

Count = tuple[Loc, int]
"""What is counted, by its place."""


def zone_bounds(document: Document, zones: Sequence[Placed]) -> list[Fault]:
    """Check how many zones there are, and how many interfaces and subnets they have together."""
    interfaces = [
        (("zones", i, "interfaces", p), 1) for i, z in zones for p in range(len(z.interfaces))
    ]
    subnets = [(("zones", i, "subnets", p), 1) for i, z in zones for p in range(len(z.subnets))]
    return [
        *_over(document.fault, [(("zones", index), 1) for index, _ in zones], ZONES, "zones"),
        *_over(document.fault, interfaces, INTERFACES, "interfaces in all zones together"),
        *_over(document.fault, subnets, SUBNETS, "subnets in all zones together"),
    ]


def site_bounds(
    document: Document, site: Site, internal_domains: Sequence[InternalDomains]
) -> list[Fault]:
    """Check the lists of the site's file that are no zone's."""
    lifeline = site.lifeline
    ends: list[Count] = [
        (("lifeline", "management", "networks", place), len(lifeline.management_ports))
        for place in range(len(lifeline.management_networks))
    ]
    internal: list[Count] = [
        (("dns_gate", "internal", index, "names", place), len(each.servers))
        for index, each in enumerate(internal_domains)
        for place in range(len(each.names))
    ]
    resolvers = [(("resolvers", place), 1) for place in range(len(site.resolvers))]
    return [
        *_over(document.fault, resolvers, RESOLVERS, "resolvers"),
        *_over(document.fault, ends, MANAGEMENT, "networks times ports of the management"),
        *_over(document.fault, internal, INTERNAL, "names times servers of the inside's DNS"),
    ]


def service_bounds(
    services: Sequence[PlacedService],
    dns: DnsProxySettings,
    levels: Sequence[frozenset[Criticality]],
) -> list[Fault]:
    """Check the size of all services together.

    Args:
        services: those that are right in themselves.
        dns: whether the DNS gate is on decides which limits count.
        levels: the criticalities that each of the site's own levels keeps.
    """
    every = list(_destinations(services))
    named = [one for one in services if _names(one.service)]
    gated = dns.mode is not DnsMode.NEVER
    faults = [
        *_over_all(((one, 1) for one in services), SERVICES, "services"),
        *_over_all(((one, _entries(one.service, d)) for one, d in every), ENTRIES, _ENTRIES),
        *_over_all(
            ((one, len(_names(one.service))) for one in named), NAMES, "host names and wildcards"
        ),
    ]
    for one in services:
        ports = sum(len(destination.traffic) for destination in one.service.destinations)
        faults += _over_all(
            [(one, ports)], PORTS, f"ports of '{one.service.name}' in all its destinations"
        )
    if gated:
        faults += _over_all(
            ((one, 1) for one in named), BY_NAME, "services with names, beside a DNS gate"
        )
    return [*faults, *_rule_bounds(services, gated=gated, levels=levels)]


_ENTRIES = "targets times ports times 'hosts'"


def _rule_bounds(
    services: Sequence[PlacedService], *, gated: bool, levels: Sequence[frozenset[Criticality]]
) -> Iterator[Fault]:
    where = [_places(one.service, levels) for one in services]
    kinds = [(one, many * at) for (one, many), at in zip(_look_ups(services), where, strict=True)]
    yield from _over_all(kinds, LOOK_UPS, "look-ups (kinds of services times zones times levels)")
    if gated:
        names = [(one, _by_name(one.service) * at) for one, at in zip(services, where, strict=True)]
        yield from _over_all(
            names, RULES_BY_NAME, "rules of services with names (ports times zones times levels)"
        )


def _places(service: Service, levels: Sequence[frozenset[Criticality]]) -> int:
    """Count the chains that a service's look-ups may stand in."""
    keeping = sum(service.criticality in keeps for keeps in (CUT.keeps, *levels))
    return keeping * (len(service.zones) + len(service.hosts))


def _destinations(
    services: Iterable[PlacedService],
) -> Iterator[tuple[PlacedService, Destination]]:
    return ((one, destination) for one in services for destination in one.service.destinations)


def _names(service: Service) -> list[str]:
    return [name for d in service.destinations for name in (*d.hosts, *d.wildcards)]


def _entries(service: Service, destination: Destination) -> int:
    names = len(destination.hosts) + len(destination.wildcards)
    return (
        (names + len(destination.networks))
        * len(destination.traffic)
        * (bool(service.zones) + len(service.hosts))
    )


def _look_ups(services: Iterable[PlacedService]) -> Iterator[tuple[PlacedService, int]]:
    """Count the kinds of look-ups that each service adds to those before it."""
    known: set[Hashable] = set()
    for one in services:
        service = one.service
        inside = (service.criticality, service.zones, len(service.hosts))
        kinds = {(*inside, *kind) for kind in _kinds(service)} - known
        known |= kinds
        yield one, len(kinds)


def _by_name(service: Service) -> int:
    """Count the rules for learned addresses in one chain: two families, each kind of traffic."""
    outward = (d for d in service.destinations if d.direction is Direction.OUTBOUND)
    return 2 * len({p for d in outward if d.hosts or d.wildcards for p in d.traffic})


def _kinds(service: Service) -> Iterator[tuple[Hashable, ...]]:
    """Yield what has a look-up of its own: direction, family, by name or not, form of ports."""
    for destination in service.destinations:
        forms = {(p.first is None, p.first == p.last) for p in destination.traffic}
        named = destination.hosts or destination.wildcards
        targets = {(version, True, False) for version in (4, 6) if named}
        targets |= {
            (n.version, False, n.prefixlen == n.max_prefixlen) for n in destination.networks
        }
        yield from ((destination.direction, *t, form) for t in targets for form in forms)


def _over_all(
    counts: Iterable[tuple[PlacedService, int]], limit: int, what: str
) -> Iterator[Fault]:
    """Yield one fault, at the first service that exceeds a limit that all of them share."""
    total, first = 0, None
    for one, count in counts:
        total += count
        first = first or (one if total > limit else None)
    if first is not None:
        yield first.fault(("name",), f"{total} {what}", f"at most {limit}")


def _over(
    fault: Callable[[Loc, str, str], Fault], counts: Sequence[Count], limit: int, what: str
) -> Iterator[Fault]:
    """Yield one fault, at the first item of a list that exceeds its limit."""
    total, first = 0, None
    for loc, count in counts:
        total += count
        first = first or (loc if total > limit else None)
    if first is not None:
        yield fault(first, f"{total} {what}", f"at most {limit}")
