"""How much a site may write: everything that is built from the files has a bound, and this is where
it is checked.

A bound stands where something beyond the files would give way: libnftables, the kernel's memory,
the time of a load. What a name may look like (so that it fits nftables and a file name) stands in
`fields.py`.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from ecluse.config.cross_checks import Placed, PlacedService
from ecluse.config.models import DestinationModel, DnsGateModel, ServiceModel, SiteModel
from ecluse.config.yaml_tree import Document, Loc
from ecluse.faults import Fault
from ecluse.policy import CUT, Criticality, Direction, DnsMode

ZONES = 64
INTERFACES = 256
"""Of all zones together. Groups of zones that share one have chains of their own."""
SUBNETS = 1000
"""Of all zones together."""
RESOLVERS = 16
MANAGEMENT = 1000
"""Networks times ports."""
INTERNAL = 1000
"""Names times servers: lines of the engine's list."""
SERVICES = 20_000
ENTRIES = 500_000
"""Elements of maps: targets times ports times the inside (the zones count as one, each of `hosts`
as one).
"""
NAMES = 10_000
"""Host names and wildcards: each is asked for, again and again."""
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
"""Rules for what the DNS gate learns, in the same chains: 4 s."""

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


def site_bounds(document: Document, site: SiteModel) -> list[Fault]:
    """Check the lists of the site's file that are no zone's."""
    management = site.lifeline.management
    here = ("lifeline", "management", "networks")
    ends = (
        [((*here, p), len(management.ports)) for p in range(len(management.networks))]
        if management
        else []
    )
    internal: list[Count] = [
        (("dns_gate", "internal", index, "names", place), len(each.servers))
        for index, each in enumerate(site.dns_gate.internal)
        for place in range(len(each.names))
    ]
    resolvers = [(("resolvers", place), 1) for place in range(len(site.resolvers))]
    return [
        *_over(document.fault, resolvers, RESOLVERS, "resolvers"),
        *_over(document.fault, ends, MANAGEMENT, "networks times ports of the management"),
        *_over(document.fault, internal, INTERNAL, "names times servers of the inside's DNS"),
    ]


def service_bounds(
    services: Sequence[PlacedService], gate: DnsGateModel, levels: Sequence[frozenset[Criticality]]
) -> list[Fault]:
    """Check how much all services come to. levels: what each level of the site's own keeps."""
    every = list(_destinations(services))
    named = [one for one in services if _names(one.model)]
    gated = gate.mode is not DnsMode.NEVER and (gate.mode or any(map(_wild, services)))
    faults = [
        *_of_all(((one, 1) for one in services), SERVICES, "services"),
        *_of_all(((one, _entries(one.model, d)) for one, d in every), ENTRIES, _ENTRIES),
        *_of_all(
            ((one, len(_names(one.model))) for one in named), NAMES, "host names and wildcards"
        ),
    ]
    for one in services:
        ports = sum(len(destination.ports) for destination in one.model.destinations)
        faults += _of_all(
            [(one, ports)], PORTS, f"ports of '{one.model.name}' in all its destinations"
        )
    if gated:
        faults += _of_all(
            ((one, 1) for one in named), BY_NAME, "services with names, beside a DNS gate"
        )
    return [*faults, *_rule_bounds(services, gated=bool(gated), levels=levels)]


_ENTRIES = "targets times ports times 'hosts'"


def _rule_bounds(
    services: Sequence[PlacedService], *, gated: bool, levels: Sequence[frozenset[Criticality]]
) -> Iterator[Fault]:
    where = [_places(one.model, levels) for one in services]
    kinds = [(one, many * at) for (one, many), at in zip(_look_ups(services), where, strict=True)]
    yield from _of_all(kinds, LOOK_UPS, "look-ups (kinds of services times zones times levels)")
    if gated:
        names = [(one, _by_name(one.model) * at) for one, at in zip(services, where, strict=True)]
        yield from _of_all(
            names, RULES_BY_NAME, "rules of services with names (ports times zones times levels)"
        )


def _places(service: ServiceModel, levels: Sequence[frozenset[Criticality]]) -> int:
    """Count the chains that a service's look-ups may stand in."""
    keeping = sum(service.criticality in keeps for keeps in (CUT.keeps, *levels))
    return keeping * (len(service.zones) + len(service.hosts))


def _destinations(
    services: Iterable[PlacedService],
) -> Iterator[tuple[PlacedService, DestinationModel]]:
    return ((one, destination) for one in services for destination in one.model.destinations)


def _wild(one: PlacedService) -> bool:
    return any(str(name).startswith("*.") for name in _names(one.model))


def _names(service: ServiceModel) -> list[str]:
    return [t for d in service.destinations for t in (*d.to, *d.from_) if isinstance(t, str)]


def _entries(service: ServiceModel, destination: DestinationModel) -> int:
    targets = sum(
        len(t) if isinstance(t, tuple) else 1 for t in (*destination.to, *destination.from_)
    )
    return targets * len(destination.ports) * (bool(service.zones) + len(service.hosts))


def _look_ups(services: Iterable[PlacedService]) -> Iterator[tuple[PlacedService, int]]:
    """Count the kinds of look-ups that each service adds to those before it."""
    known: set[Hashable] = set()
    for one in services:
        service = one.model
        inside = (service.criticality, service.zones, len(service.hosts))
        kinds = {(*inside, *kind) for kind in _kinds(service)} - known
        known |= kinds
        yield one, len(kinds)


def _by_name(service: ServiceModel) -> int:
    """Count the rules for what is learned for a service, in one chain each: two families, each kind
    of traffic.
    """
    outward = (d for d in service.destinations if d.direction is Direction.OUTBOUND)
    return 2 * len({p for d in outward if any(isinstance(t, str) for t in d.to) for p in d.ports})


def _kinds(service: ServiceModel) -> Iterator[tuple[Hashable, ...]]:
    """Give what has a look-up of its own: direction, family, by name, without or with one port or a
    range.
    """
    for destination in service.destinations:
        forms = {(p.first is None, p.first == p.last) for p in destination.ports}
        for _, target in destination.each():
            for version in (4, 6) if isinstance(target, str) else (target.version,):
                whole = not isinstance(target, str) and target.prefixlen == target.max_prefixlen
                yield from (
                    (destination.direction, version, isinstance(target, str), whole, form)
                    for form in forms
                )


def _of_all(counts: Iterable[tuple[PlacedService, int]], limit: int, what: str) -> Iterator[Fault]:
    """Say at the first service that goes beyond a limit that all of them share."""
    total, first = 0, None
    for one, count in counts:
        total += count
        first = first or (one if total > limit else None)
    if first is not None:
        yield first.fault(("name",), f"{total} {what}", f"at most {limit}")


def _over(
    fault: Callable[[Loc, str, str], Fault], counts: Sequence[Count], limit: int, what: str
) -> Iterator[Fault]:
    """The same for the parts of one list of the site's file."""
    total, first = 0, None
    for loc, count in counts:
        total += count
        first = first or (loc if total > limit else None)
    if first is not None:
        yield fault(first, f"{total} {what}", f"at most {limit}")
