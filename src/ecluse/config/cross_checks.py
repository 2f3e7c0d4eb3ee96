"""Rules for several values at once: zones, levels and services against each other."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from ecluse.config.address_parsers import is_link_group, written
from ecluse.config.messages import InvalidValueError, did_you_mean, listed, shown
from ecluse.config.parsers import WILDCARD, WITHOUT_PORTS, Target
from ecluse.config.suffix_list import PublicSuffixes
from ecluse.config.yaml_tree import Document, Loc
from ecluse.faults import Fault
from ecluse.policy import (
    CUT,
    GATEWAY,
    ISOLATE,
    OPEN,
    Criticality,
    Direction,
    DnsMode,
    DnsProxySettings,
    IPNetwork,
    Level,
    Service,
    Zone,
)
from ecluse.policy.network_index import NetworkIndex

AH = WITHOUT_PORTS["ah"]


@dataclass(frozen=True, slots=True)
class PlacedService:
    """A service and where it stands.

    Attributes:
        targets: for each destination what its `to` or `from` lists, in the order of the file.
    """

    document: Document
    loc: tuple[str | int, ...]
    service: Service
    targets: tuple[tuple[Target, ...], ...]

    def each_target(self, destination: int) -> Iterator[tuple[int, str | IPNetwork]]:
        """Yield each target's position in the list and what it stands for (`any`: two networks)."""
        for place, target in enumerate(self.targets[destination]):
            if isinstance(target, tuple):
                yield from ((place, network) for network in target)
            else:
                yield place, target

    def target_loc(self, destination: int, place: int) -> Loc:
        """Return where a target stands within the service."""
        outward = self.service.destinations[destination].direction is Direction.OUTBOUND
        return ("destinations", destination, "to" if outward else "from", place)

    def fault(self, loc: Loc, wrong: str, expected: str = "") -> Fault:
        """Return a fault at a place within the service."""
        return self.document.fault((*self.loc, *loc), wrong, expected)


Placed = tuple[int, Zone]
"""A zone that is right in itself, and its position in the file's list."""


def zone_faults(document: Document, zones: Sequence[Placed]) -> list[Fault]:
    """Check zones against each other: names, interface patterns, subnets."""
    return [
        *_repeated_names(document, "zones", ((index, zone.name) for index, zone in zones)),
        *_interface_faults(document, zones),
        *_subnet_faults(document, zones),
    ]


def _repeated_names(document: Document, key: str, names: Iterable[tuple[int, str]]) -> list[Fault]:
    first: dict[str, int] = {}
    faults: list[Fault] = []
    for index, name in names:
        if name in first:
            before = document.at((key, first[name], "name"))
            place = f"{before.line}:{before.column}" if before else "above"
            wrong = f"the name {shown(name)} a second time, first at {place}"
            faults.append(document.fault((key, index, "name"), wrong, "another name"))
        first.setdefault(name, index)
    return faults


def _interface_faults(document: Document, zones: Sequence[Placed]) -> list[Fault]:
    """Check that no pattern covers another; two zones may share one that is identical."""
    wildcards = {i[:-1]: zone.name for _, zone in zones for i in zone.interfaces if i.endswith("*")}
    faults: list[Fault] = []
    for index, zone in zones:
        for place, interface in enumerate(zone.interfaces):
            stem = interface.removesuffix("*")
            # a wildcard is covered by a shorter one, a plain name also by one of its own length
            lengths = range(1, len(stem) + (0 if interface.endswith("*") else 1))
            for stem_above in (stem[:n] for n in lengths if stem[:n] in wildcards):
                zone_above = wildcards[stem_above]
                wrong = f"'{interface}' is also covered by '{stem_above}*' of zone '{zone_above}'"
                faults.append(
                    document.fault(
                        ("zones", index, "interfaces", place),
                        wrong,
                        "each interface in one pattern only",
                    )
                )
    return faults


def _subnet_faults(document: Document, zones: Sequence[Placed]) -> list[Fault]:
    every = [
        (network, (index, place), zone.name)
        for index, zone in zones
        for place, network in enumerate(zone.subnets)
    ]
    index_of: NetworkIndex[tuple[tuple[int, int], str]] = NetworkIndex()
    faults: list[Fault] = []
    # The widest first: a network that contains another is in the index before it.
    for network, at, zone in sorted(every, key=lambda item: (item[0].prefixlen, item[1])):
        for other, (other_at, other_zone) in index_of.containing(network):
            # The fault stands at the later one in the file, where the mistake probably is.
            late, here, there = (
                (at, network, other) if at > other_at else (other_at, other, network)
            )
            name = other_zone if at > other_at else zone
            wrong = f"the subnet '{written(here)}' overlaps '{written(there)}' of zone '{name}'"
            faults.append(
                document.fault(
                    ("zones", late[0], "subnets", late[1]), wrong, "subnets that are disjoint"
                )
            )
            break
        index_of.add(network, (at, zone))
    return faults


def level_faults(document: Document, levels: Sequence[tuple[int, Level]]) -> list[Fault]:
    """Check the site's own levels: less closed than `cut`, and each different."""
    faults = _repeated_names(document, "levels", ((index, level.name) for index, level in levels))
    seen: dict[frozenset[Criticality], str] = {}
    for index, level in levels:
        keeps = level.keeps
        loc = ("levels", index, "keeps")
        if Criticality.VITAL not in keeps:
            wrong = "a level that does not keep 'vital' would be more closed than 'cut'"
            faults.append(
                document.fault(loc, wrong, "vital and more (for less there is 'isolate')")
            )
        elif keeps == CUT.keeps:
            wrong = "a level that keeps 'vital' alone is the same as 'cut'"
            faults.append(document.fault(loc, wrong, "vital and more"))
        elif Criticality.IMPORTANT not in keeps:
            wrong = "'deferrable' is kept and 'important' is not"
            faults.append(
                document.fault(loc, wrong, "[vital, important] or [vital, important, deferrable]")
            )
        elif keeps in seen:
            wrong = f"the level '{seen[keeps]}' keeps the same"
            faults.append(document.fault(loc, wrong, "levels that differ"))
        seen.setdefault(keeps, level.name)
    return faults


def in_order(levels: Iterable[Level]) -> tuple[Level, ...]:
    """Return every level of the site, from `open` to `isolate`."""
    between = sorted(levels, key=lambda level: -len(level.keeps))
    return (OPEN, *between, CUT, ISOLATE)


def service_faults(
    services: Sequence[PlacedService],
    zone_names: Sequence[str] | None,
    subnets: NetworkIndex[str] | None,
) -> list[Fault]:
    """Check services against each other and against the zones.

    Args:
        services: those that are right in themselves.
        zone_names: None while some zone is at fault.
        subnets: of the zones; None while some zone is at fault.
    """
    first: dict[str, PlacedService] = {}
    faults: list[Fault] = []
    for service in services:
        name = service.service.name
        if name in first:
            before = first[name].fault(("name",), "")
            at = f"{before.file}:{before.line}:{before.column}"
            wrong = f"the service {shown(name)} a second time, first at {at}"
            faults.append(service.fault(("name",), wrong, "each service once"))
        first.setdefault(name, service)
        if zone_names is not None:
            faults += _unknown_zones(service, zone_names)
        if subnets is not None:
            faults += [
                service.fault(
                    ("hosts", place),
                    f"'{written(host)}' lies in no zone's subnets",
                    "a host of the inside",
                )
                for place, host in enumerate(service.service.hosts)
                if next(subnets.containing(host), None) is None
            ]
    return faults


def _unknown_zones(service: PlacedService, zone_names: Sequence[str]) -> list[Fault]:
    known = [*zone_names, GATEWAY]
    return [
        service.fault(
            ("zones", place),
            f"there is no zone {shown(zone)}{did_you_mean(zone, known)}",
            listed(known),
        )
        for place, zone in enumerate(service.service.zones)
        if zone not in known
    ]


def dns_faults(
    document: Document,
    dns: DnsProxySettings,
    subnets: NetworkIndex[str] | None,
) -> list[Fault]:
    """Check `dns_gate`: its internal servers lie inside, and each domain stands there once."""
    faults: list[Fault] = []
    seen: set[str] = set()
    for index, each in enumerate(dns.internal):
        loc = ("dns_gate", "internal", index)
        for place, server in enumerate(each.servers):
            if subnets is not None and next(subnets.containing(ip_network(server)), None) is None:
                wrong = (
                    f"'{server}' lies in no zone's subnets: names of the inside would be asked"
                    " outside"
                )
                faults.append(
                    document.fault((*loc, "servers", place), wrong, "a DNS server of the inside")
                )
        for place, name in enumerate(each.names):
            if name in seen:
                wrong = f"the domain {shown(name)} a second time"
                faults.append(document.fault((*loc, "names", place), wrong, "each domain once"))
            seen.add(name)
    return faults


def _suffix_fault(wildcard: str, suffixes: PublicSuffixes) -> InvalidValueError | None:
    try:
        suffixes.check(wildcard.removeprefix(WILDCARD))
    except InvalidValueError as error:
        return error
    return None


def name_faults(services: Sequence[PlacedService], dns: DnsProxySettings) -> list[Fault]:
    """Check wildcards and record types: the DNS gate is on, and the service connects out."""
    faults: list[Fault] = []
    suffixes = PublicSuffixes()
    for service in services:
        for index, destination in enumerate(service.service.destinations):
            inward = destination.direction is Direction.INBOUND
            wild = [
                (place, one)
                for place, one in (service.each_target(index) if destination.wildcards else ())
                if isinstance(one, str) and one.startswith(WILDCARD)
            ]
            for place, one in wild:
                if inward:
                    wrong, expected = (
                        f"the wildcard '{one}' in 'from'",
                        "prefixes: who connects in has no name",
                    )
                elif dns.mode is DnsMode.NEVER:
                    wrong, expected = (
                        f"'{one}' and 'dns_gate: {{mode: never}}'",
                        "mode: cut, or host names",
                    )
                elif shared := _suffix_fault(one, suffixes):
                    wrong, expected = shared.wrong, shared.expected
                else:
                    continue
                faults.append(service.fault(service.target_loc(index, place), wrong, expected))
            named = destination.wildcards or destination.hosts
            if destination.records and (inward or not named):
                wrong = "'records' without a host name or a wildcard in 'to'"
                faults.append(
                    service.fault(
                        ("destinations", index, "records"),
                        wrong,
                        "none, or the names that have them",
                    )
                )
    return faults


def protocol_faults(services: Sequence[PlacedService]) -> list[Fault]:
    """Refuse `ah` over IPv6: connection tracking steps over that header (ipv6_skip_exthdr)."""
    return [
        service.fault(
            service.target_loc(index, place),
            f"'ah' with '{written(one)}': over IPv6 it can't be told from what it carries, and"
            " would be refused",
            "IPv4 addresses for ah, or esp",
        )
        for service in services
        for index, destination in enumerate(service.service.destinations)
        if any(traffic.protocol == AH for traffic in destination.traffic)
        for place, one in service.each_target(index)
        if not isinstance(one, str) and one.version == 6
    ]


def group_faults(services: Sequence[PlacedService]) -> list[Fault]:
    """Refuse multicast groups but as what the gateway alone sends to.

    A zone's multicast is not forwarded to a group of the link, and nobody has a group as source.
    """
    return [
        service.fault(
            service.target_loc(index, place),
            f"the multicast group '{written(one)}'",
            "in 'to' of a service with zones: [gateway] and no hosts",
        )
        for service in services
        for index, destination in enumerate(service.service.destinations)
        for place, one in service.each_target(index)
        if not isinstance(one, str) and is_link_group(one)
        if destination.direction is Direction.INBOUND
        or set(service.service.zones) != {GATEWAY}
        or service.service.hosts
    ]
