"""Services to maps and look-ups: what is kept, for whom, shared by all levels and zones that keep it."""

from collections.abc import Iterator
from dataclasses import dataclass

from ecluse.policy import (
    Addresses,
    Criticality,
    Destination,
    Direction,
    IPNetwork,
    Policy,
    Traffic,
)
from ecluse.ruleset import names
from ecluse.ruleset import program as p
from ecluse.ruleset.disjoint import Box, disjoint
from ecluse.ruleset.families import FAMILIES, IPV6, Family, network_interval
from ecluse.ruleset.program import Key, NamedSet, Rule

ICMP, ICMPV6 = 1, 58


@dataclass(frozen=True, slots=True)
class Keep:
    """Services that share criticality and zones share maps: no entry is in the kernel once for every zone and level."""

    criticality: Criticality
    zones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Claim:
    """One service's claim to one destination: whose, from which inside hosts (None: every host of the zone)."""

    service: str
    destination: Destination
    hosts: tuple[IPNetwork, ...] | None


def _claims(policy: Policy) -> dict[Keep, list[_Claim]]:
    zone_of = {subnet: zone.name for zone in policy.site.zones for subnet in zone.subnets}

    def home(host: IPNetwork) -> str:
        return next(
            zone
            for subnet, zone in zone_of.items()
            if host.version == subnet.version and host.subnet_of(subnet)  # type: ignore[arg-type]  # same version, just compared
        )

    order = policy.zone_names()
    claims: dict[Keep, list[_Claim]] = {}
    for service in policy.services:
        zones = tuple(zone for zone in order if zone in service.zones)
        by_home: dict[str, list[IPNetwork]] = {}
        for host in service.hosts:
            by_home.setdefault(home(host), []).append(host)
        wanted: list[tuple[tuple[str, ...], tuple[IPNetwork, ...] | None]] = [(zones, None)] if zones else []
        wanted += [((zone,), tuple(hosts)) for zone, hosts in by_home.items() if zone not in zones]
        for where, hosts_there in wanted:
            keep = Keep(service.criticality, where)
            claims.setdefault(keep, []).extend(
                _Claim(service.name, destination, hosts_there) for destination in service.destinations
            )
    return claims


@dataclass(frozen=True, slots=True)
class _Maps:
    """The maps of one keep, direction and family; a name is None where nothing can ever need the map."""

    exact: NamedSet | None
    ranges: NamedSet | None
    plain: NamedSet | None


def _networks(claim: _Claim, addresses: Addresses, family: Family) -> Iterator[p.Interval]:
    for network in claim.destination.networks:
        if network.version == family.version:
            yield network_interval(network)
    for host in claim.destination.hosts:
        for address in sorted(a for a in addresses.get(host, ()) if a.version == family.version):
            yield (int(address), int(address))


def _protocol(traffic: Traffic, family: Family) -> int:
    return ICMPV6 if traffic.protocol == ICMP and family is IPV6 else traffic.protocol


def _maps(claims: list[_Claim], addresses: Addresses, family: Family, stem: str) -> _Maps:
    """Sort one keep's claims into three maps: exact (a hash), ranges, and plain (protocols without ports).

    A map exists as soon as a host name could fill it, so that a change of addresses never changes chains.
    Field order is address first: the kernel's concatenated interval sets (nft_set_pipapo) cost much more to load when the
    first field hardly varies (measured, docs/datapath.md).
    """
    everywhere = (0, (1 << family.bits) - 1)
    exact: dict[Key, str] = {}
    ranges: list[Box] = []
    plain: list[Box] = []
    possible = {"exact": False, "ranges": False, "plain": False}
    for claim in claims:
        counter = names.counter(claim.service)
        if claim.hosts is None:
            sources: tuple[p.Interval, ...] = (everywhere,)
        else:
            sources = tuple(network_interval(h) for h in claim.hosts if h.version == family.version)
        named = bool(claim.destination.hosts)
        targets = tuple(_networks(claim, addresses, family))
        for traffic in claim.destination.traffic:
            protocol = (_protocol(traffic, family),) * 2
            if traffic.first is None or traffic.last is None:
                plain += [((target, protocol, source), counter) for target in targets for source in sources]
                possible["plain"] |= bool(targets or named) and bool(sources)
                continue
            ports = (traffic.first, traffic.last)
            for target in targets:
                if claim.hosts is None and target[0] == target[1] and ports[0] == ports[1]:
                    exact.setdefault((target, ports, protocol), counter)
                    possible["exact"] = True
                else:
                    ranges += [((target, ports, protocol, source), counter) for source in sources]
                    possible["ranges"] |= bool(sources)
            if named:
                single = claim.hosts is None and ports[0] == ports[1]
                possible["exact" if single else "ranges"] |= bool(sources)
    address, port, proto = family.type, "inet_service", "inet_proto"

    def made(kind: str, types: tuple[str, ...], elements: dict[Key, str]) -> NamedSet | None:
        if not possible[kind]:
            return None
        return NamedSet(f"{stem}{kind}{family.digit}", types, kind != "exact", "counter", elements)

    return _Maps(
        made("exact", (address, port, proto), dict(sorted(exact.items()))),
        made("ranges", (address, port, proto, address), dict(disjoint(ranges))),
        made("plain", (address, proto, address), dict(disjoint(plain))),
    )


def _lookups(maps: _Maps, family: Family, direction: Direction) -> list[Rule]:
    """Write the look-ups of one keep: the outside end by address, the inside end as the source field."""
    outbound = direction is Direction.OUTBOUND
    peer = family.original_destination if outbound else family.original_source
    inner = family.original_source if outbound else family.reply_source
    this_family = p.Is(p.NFPROTO, (family.nfproto,))
    with_ports = p.Is(p.CT_PROTOCOL, p.PORTS)
    rules: list[Rule] = []
    if maps.exact:
        key = (peer, p.CT_PORT, p.CT_PROTOCOL)
        rules.append((this_family, with_ports, p.Count(key, maps.exact.name), p.ACCEPT))
    if maps.ranges:
        key4 = (peer, p.CT_PORT, p.CT_PROTOCOL, inner)
        rules.append((this_family, with_ports, p.Count(key4, maps.ranges.name), p.ACCEPT))
    if maps.plain:
        key3 = (peer, p.CT_PROTOCOL, inner)
        rules.append((this_family, p.Count(key3, maps.plain.name), p.ACCEPT))
    return rules


@dataclass(frozen=True, slots=True)
class Kept:
    """A keep, compiled: its maps, and its look-ups for each direction."""

    keep: Keep
    sets: tuple[NamedSet, ...]
    lookups: dict[Direction, tuple[Rule, ...]]


def _kept(number: int, keep: Keep, claims: list[_Claim], addresses: Addresses, slot: int) -> Kept:
    sets: list[NamedSet] = []
    lookups: dict[Direction, tuple[Rule, ...]] = {}
    for direction, word in ((Direction.OUTBOUND, "out"), (Direction.INBOUND, "in")):
        rules: list[Rule] = []
        mine = [claim for claim in claims if claim.destination.direction is direction]
        for family in FAMILIES:
            stem = f"{names.prefix(slot)}keep{number}.{word}_"
            maps = _maps(mine, addresses, family, stem)
            sets += [named for named in (maps.exact, maps.ranges, maps.plain) if named]
            rules += _lookups(maps, family, direction)
        lookups[direction] = tuple(rules)
    return Kept(keep, tuple(sets), lookups)


def kept_services(policy: Policy, addresses: Addresses, slot: int) -> list[Kept]:
    """Compile every service of a policy; services of like criticality and zones share their maps."""
    return [
        _kept(number, keep, claims, addresses, slot)
        for number, (keep, claims) in enumerate(_claims(policy).items(), 1)
    ]
