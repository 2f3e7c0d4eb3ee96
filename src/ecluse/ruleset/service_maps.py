"""Services to maps and look-ups.

Services of the same criticality and zones share maps, and all levels share them: no entry is in the
kernel twice for two levels.
"""

from dataclasses import dataclass

from ecluse.policy import (
    Addresses,
    Criticality,
    Destination,
    Direction,
    IPNetwork,
    Policy,
    Traffic,
    network_interval,
    private_kind,
)
from ecluse.policy.network_index import NetworkIndex
from ecluse.ruleset import program as p
from ecluse.ruleset import table_names
from ecluse.ruleset.disjoint import Box, disjoint
from ecluse.ruleset.families import FAMILIES, IPV6, Family
from ecluse.ruleset.program import Key, NamedSet, Rule


@dataclass(frozen=True, slots=True)
class ServiceGroup:
    """The services of one criticality and the same zones; they share maps."""

    criticality: Criticality
    zones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _ServiceDestination:
    """One destination of one service.

    hosts: the inside hosts that may use it; None for every host of the zone.
    """

    service: str
    destination: Destination
    hosts: tuple[IPNetwork, ...] | None


def subnet_index(policy: Policy) -> NetworkIndex[str]:
    """Index the subnets of all zones by network, each with its zone's name. They are disjoint."""
    index: NetworkIndex[str] = NetworkIndex()
    for zone in policy.site.zones:
        for subnet in zone.subnets:
            index.add(subnet, zone.name)
    return index


def service_groups(
    policy: Policy,
) -> dict[str, tuple[tuple[ServiceGroup, tuple[IPNetwork, ...] | None], ...]]:
    """Give the groups that each service belongs to, and its hosts there.

    hosts: None for every host of the zones. A service has one group for its zones, and one for each
    other zone that some of its hosts lie in.
    """
    inside = subnet_index(policy)
    order = {zone: number for number, zone in enumerate(policy.zone_names())}
    found: dict[str, tuple[tuple[ServiceGroup, tuple[IPNetwork, ...] | None], ...]] = {}
    for service in policy.services:
        zones = tuple(sorted(service.zones, key=order.__getitem__))
        by_home: dict[str, list[IPNetwork]] = {}
        for host in service.hosts:
            by_home.setdefault(next(zone for _, zone in inside.containing(host)), []).append(host)
        wanted: list[tuple[tuple[str, ...], tuple[IPNetwork, ...] | None]] = (
            [(zones, None)] if zones else []
        )
        wanted += [((zone,), tuple(hosts)) for zone, hosts in by_home.items() if zone not in zones]
        found[service.name] = tuple(
            (ServiceGroup(service.criticality, where), hosts) for where, hosts in wanted
        )
    return found


def _claims(policy: Policy) -> dict[ServiceGroup, list[_ServiceDestination]]:
    where = service_groups(policy)
    claims: dict[ServiceGroup, list[_ServiceDestination]] = {}
    for service in policy.services:
        for group, hosts in where[service.name]:
            claims.setdefault(group, []).extend(
                _ServiceDestination(service.name, destination, hosts)
                for destination in service.destinations
            )
    return claims


@dataclass(frozen=True, slots=True)
class _Maps:
    """The maps of one group, direction and family; None where nothing can ever need the map."""

    exact: NamedSet | None
    ranges: NamedSet | None
    portless: NamedSet | None

    def present(self) -> list[NamedSet]:
        """Give those that there are."""
        return [named for named in (self.exact, self.ranges, self.portless) if named]


def _networks(claim: _ServiceDestination, family: Family) -> tuple[p.Interval, ...]:
    return tuple(
        network_interval(n) for n in claim.destination.networks if n.version == family.version
    )


def _sources(claim: _ServiceDestination, family: Family) -> tuple[p.Interval, ...]:
    if claim.hosts is None:
        return ((0, (1 << family.bits) - 1),)
    return tuple(network_interval(host) for host in claim.hosts if host.version == family.version)


def _addresses(
    claim: _ServiceDestination, addresses: Addresses, family: Family
) -> tuple[p.Interval, ...]:
    return tuple(
        (int(address), int(address))
        for host in claim.destination.hosts
        for address in sorted(a for a in addresses.get(host, ()) if a.version == family.version)
        # Another service may allow the same name what this one does not.
        if claim.destination.private or not private_kind(address)
    )


def protocol_in(traffic: Traffic, family: Family) -> int:
    """Give the protocol's number in a family: ICMP has two."""
    return p.ICMPV6 if traffic.protocol == p.ICMP and family is IPV6 else traffic.protocol


def _maps(
    claims: list[_ServiceDestination], addresses: Addresses | None, family: Family, stem: str
) -> _Maps:
    """Sort one group's destinations into three maps.

    They are `exact` (a hash), `ranges`, and `plain` (protocols without ports). A map exists as soon
    as a host name could fill it, so that a change of addresses never changes chains. The address is
    the first field: the kernel's concatenated interval sets (nft_set_pipapo) cost much more to load
    when the first field hardly varies (measured, docs/datapath.md).

    Args:
        addresses: Addresses of host names, to make the maps from host names; None to make those
            of networks.
        stem: What the names of the maps begin with.
    """
    exact: dict[Key, str] = {}
    ranges: list[Box] = []
    plain: list[Box] = []
    possible: set[str] = set()
    for claim in claims:
        counter = table_names.counter_name(claim.service)
        sources = _sources(claim, family)
        targets = (
            _networks(claim, family) if addresses is None else _addresses(claim, addresses, family)
        )
        if not sources or not (targets or (addresses is not None and claim.destination.hosts)):
            continue
        for traffic in claim.destination.traffic:
            protocol = (protocol_in(traffic, family),) * 2
            if traffic.first is None or traffic.last is None:
                plain += [
                    ((target, protocol, source), counter)
                    for target in targets
                    for source in sources
                ]
                possible.add("plain")
                continue
            ports = (traffic.first, traffic.last)
            single = claim.hosts is None and ports[0] == ports[1]
            for target in targets:
                if single and target[0] == target[1]:
                    exact.setdefault((target, ports, protocol), counter)
                else:
                    ranges += [((target, ports, protocol, source), counter) for source in sources]
            if addresses is not None:
                possible.add("exact" if single else "ranges")
    possible |= ({"exact"} if exact else set()) | ({"ranges"} if ranges else set())
    address, port, proto = family.type, "inet_service", "inet_proto"

    def made(kind: str, types: tuple[str, ...], elements: dict[Key, str]) -> NamedSet | None:
        if kind not in possible:
            return None
        name = f"{stem}{'' if addresses is None else 'names_'}{kind}{family.digit}"
        return NamedSet(name, types, kind != "exact", "counter", elements, addresses is not None)

    return _Maps(
        made("exact", (address, port, proto), dict(sorted(exact.items()))),
        made("ranges", (address, port, proto, address), dict(disjoint(ranges))),
        made("plain", (address, proto, address), dict(disjoint(plain))),
    )


def _lookups(maps: _Maps, family: Family, direction: Direction) -> list[Rule]:
    """Write one group's look-ups: the outside end is the key, the inside end the last field.

    nft takes the port of a connection only in a rule that matches family and protocol first
    (evaluate.c, expr_evaluate_ct).
    """
    outbound = direction is Direction.OUTBOUND
    peer = family.original_destination if outbound else family.original_source
    inner = family.original_source if outbound else family.reply_source
    ported = p.Match(p.NFPROTO, (family.nfproto,)), p.Match(p.CT_PROTOCOL, p.PORTS)
    rules: list[Rule] = []
    if maps.exact:
        rules.append(
            (*ported, p.CountByMap((peer, p.CT_PORT, p.CT_PROTOCOL), maps.exact.name), p.ACCEPT)
        )
    if maps.ranges:
        rules.append(
            (
                *ported,
                p.CountByMap((peer, p.CT_PORT, p.CT_PROTOCOL, inner), maps.ranges.name),
                p.ACCEPT,
            )
        )
    if maps.portless:
        rules.append((p.CountByMap((peer, p.CT_PROTOCOL, inner), maps.portless.name), p.ACCEPT))
    return rules


@dataclass(frozen=True, slots=True)
class GroupLookups:
    """A compiled group: its maps, and its look-ups for each direction and family.

    The look-ups of a family are for packets of that family alone.
    """

    group: ServiceGroup
    sets: tuple[NamedSet, ...]
    lookups: dict[tuple[Direction, Family], tuple[Rule, ...]]
    exact: dict[Family, tuple[str, ...]]
    """The hashes of what the zones may open: address, port, protocol."""


def _map_prefix(slot: int, number: int, direction: Direction) -> str:
    word = "out" if direction is Direction.OUTBOUND else "in"
    return f"{table_names.prefix(slot)}keep{number}.{word}_"


def _compile_group(
    number: int,
    group: ServiceGroup,
    claims: list[_ServiceDestination],
    addresses: Addresses,
    slot: int,
) -> GroupLookups:
    sets: list[NamedSet] = []
    lookups: dict[tuple[Direction, Family], tuple[Rule, ...]] = {}
    exact: dict[Family, tuple[str, ...]] = dict.fromkeys(FAMILIES, ())
    for direction in Direction:
        mine = [claim for claim in claims if claim.destination.direction is direction]
        for family in FAMILIES:
            rules: list[Rule] = []
            for source in (None, addresses):
                maps = _maps(mine, source, family, _map_prefix(slot, number, direction))
                sets += maps.present()
                rules += _lookups(maps, family, direction)
                if maps.exact and direction is Direction.OUTBOUND:
                    exact[family] = (*exact[family], maps.exact.name)
            lookups[direction, family] = tuple(rules)
    return GroupLookups(group, tuple(sets), lookups, exact)


def group_lookups(policy: Policy, addresses: Addresses, slot: int) -> list[GroupLookups]:
    """Compile every service of a policy, group by group."""
    return [
        _compile_group(number, group, claims, addresses, slot)
        for number, (group, claims) in enumerate(_claims(policy).items(), 1)
    ]


def exact_maps(
    kept: list[GroupLookups], zone: str, keeps: frozenset[Criticality], family: Family
) -> list[str]:
    """Name the hashes of what a zone may open while services of these criticalities are kept."""
    mine = (one for one in kept if zone in one.group.zones and one.group.criticality in keeps)
    return [name for one in mine for name in one.exact[family]]


def host_name_maps(policy: Policy, addresses: Addresses, slot: int) -> dict[str, NamedSet]:
    """Compile only the maps that host names fill: map name to map.

    They equal those that `group_lookups` makes.
    """
    found: dict[str, NamedSet] = {}
    for number, claims in enumerate(_claims(policy).values(), 1):
        for direction in Direction:
            mine = [
                c for c in claims if c.destination.direction is direction and c.destination.hosts
            ]
            for family in FAMILIES if mine else ():
                maps = _maps(mine, addresses, family, _map_prefix(slot, number, direction))
                found |= {named.name: named for named in maps.present()}
    return found
