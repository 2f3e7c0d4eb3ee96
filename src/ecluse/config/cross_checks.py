"""Rules that concern several values at once: zones against zones, services against zones and each
other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from ecluse.config.address_parsers import written
from ecluse.config.messages import InvalidValueError, did_you_mean, listed, shown
from ecluse.config.models import DnsGateModel, LevelModel, ServiceModel, ZoneModel
from ecluse.config.parsers import WILDCARD, WITHOUT_PORTS
from ecluse.config.suffix_list import PublicSuffixes
from ecluse.config.yaml_tree import Document, Loc
from ecluse.faults import Fault
from ecluse.policy import CUT, GATEWAY, ISOLATE, OPEN, Criticality, DnsMode, Level
from ecluse.policy.network_index import NetworkIndex

AH = WITHOUT_PORTS["ah"]


@dataclass(frozen=True, slots=True)
class PlacedService:
    """A service and where it stands."""

    document: Document
    loc: tuple[str | int, ...]
    model: ServiceModel

    def fault(self, loc: Loc, wrong: str, expected: str = "") -> Fault:
        """Give a fault at a place within the service."""
        return self.document.fault((*self.loc, *loc), wrong, expected)


Placed = tuple[int, ZoneModel]
"""A zone that is right in itself, and its position in the file's list."""


def zone_faults(document: Document, zones: Sequence[Placed]) -> list[Fault]:
    """Check zones against each other: names, interface patterns, subnets."""
    return [
        *_twice(document, "zones", ((index, zone.name) for index, zone in zones)),
        *_interface_faults(document, zones),
        *_subnet_faults(document, zones),
    ]


def _twice(document: Document, key: str, names: Iterable[tuple[int, str]]) -> list[Fault]:
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
    """Patterns may be identical in two zones (a shared interface); one that covers another in part
    is a fault.
    """
    wildcards = {i[:-1]: zone.name for _, zone in zones for i in zone.interfaces if i.endswith("*")}
    faults: list[Fault] = []
    for index, zone in zones:
        for place, interface in enumerate(zone.interfaces):
            stem = interface.removesuffix("*")
            # a wildcard is covered by a shorter one, a plain name also by one of its own length
            lengths = range(1, len(stem) + (0 if interface.endswith("*") else 1))
            for stem_above in (stem[:n] for n in lengths if stem[:n] in wildcards):
                wrong = f"'{interface}' is also covered by '{stem_above}*' of zone '{wildcards[stem_above]}'"
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
    # The widest first, so that whatever contains a network is there before it.
    for network, at, zone in sorted(every, key=lambda item: (item[0].prefixlen, item[1])):
        for other, (other_at, other_zone) in index_of.around(network):
            # Said at the later one of the two in the file, where the mistake probably is.
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


def level_faults(document: Document, levels: Sequence[tuple[int, LevelModel]]) -> list[Fault]:
    """Check the site's own levels: each keeps vital, is less closed than `cut`, and differs from
    the others.
    """
    faults = _twice(document, "levels", ((index, level.name) for index, level in levels))
    seen: dict[frozenset[Criticality], str] = {}
    for index, level in levels:
        keeps = frozenset(level.keeps)
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


def in_order(levels: Iterable[LevelModel]) -> tuple[Level, ...]:
    """Give every level of the site, from `open` to `isolate`."""
    between = sorted((model.level() for model in levels), key=lambda level: -len(level.keeps))
    return (OPEN, *between, CUT, ISOLATE)


def service_faults(
    services: Sequence[PlacedService],
    zone_names: Sequence[str] | None,
    subnets: NetworkIndex[str] | None,
) -> list[Fault]:
    """Check services against each other, the zones' names and subnets (None: these are at fault
    themselves).
    """
    first: dict[str, PlacedService] = {}
    faults: list[Fault] = []
    for service in services:
        name = service.model.name
        if name in first:
            before = first[name].fault(("name",), "")
            wrong = f"the service {shown(name)} a second time, first at {before.file}:{before.line}:{before.column}"
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
                for place, host in enumerate(service.model.hosts)
                if next(subnets.around(host), None) is None
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
        for place, zone in enumerate(service.model.zones)
        if zone not in known
    ]


def gate_faults(
    document: Document,
    gate: DnsGateModel,
    subnets: NetworkIndex[str] | None,
) -> list[Fault]:
    """Check the DNS gate's own part of the site's file: an inside server lies inside, a domain has
    one answer.
    """
    faults: list[Fault] = []
    seen: set[str] = set()
    for index, each in enumerate(gate.internal):
        loc = ("dns_gate", "internal", index)
        for place, server in enumerate(each.servers):
            if subnets is not None and next(subnets.around(ip_network(server)), None) is None:
                wrong = f"'{server}' lies in no zone's subnets: names of the inside would be asked outside"
                faults.append(
                    document.fault((*loc, "servers", place), wrong, "a DNS server of the inside")
                )
        for place, name in enumerate(each.names):
            if name in seen:
                wrong = f"the domain {shown(name)} a second time"
                faults.append(document.fault((*loc, "names", place), wrong, "each domain once"))
            seen.add(name)
    return faults


def _shared(wildcard: str, suffixes: PublicSuffixes) -> InvalidValueError | None:
    try:
        suffixes.check(wildcard.removeprefix(WILDCARD))
    except InvalidValueError as error:
        return error
    return None


def name_faults(services: Sequence[PlacedService], gate: DnsGateModel) -> list[Fault]:
    """Check what the services want of the DNS gate: it is there, and they connect out."""
    faults: list[Fault] = []
    suffixes = PublicSuffixes()
    for service in services:
        for index, destination in enumerate(service.model.destinations):
            wild = [
                (place, one) for place, one in destination.each() if str(one).startswith(WILDCARD)
            ]
            loc = ("destinations", index)
            for place, one in wild:
                if destination.from_:
                    wrong, expected = (
                        f"the wildcard '{one}' in 'from'",
                        "prefixes: who connects in has no name",
                    )
                elif gate.mode is DnsMode.NEVER:
                    wrong, expected = (
                        f"'{one}' and 'dns_gate: {{mode: never}}'",
                        "mode: cut, or host names",
                    )
                elif shared := _shared(str(one), suffixes):
                    wrong, expected = shared.wrong, shared.expected
                else:
                    continue
                faults.append(service.fault((*loc, destination.key, place), wrong, expected))
            named = wild or any(isinstance(one, str) for _, one in destination.each())
            if destination.records and (destination.from_ or not named):
                wrong = "'records' without a host name or a wildcard in 'to'"
                faults.append(
                    service.fault((*loc, "records"), wrong, "none, or the names that have them")
                )
    return faults


def protocol_faults(services: Sequence[PlacedService]) -> list[Fault]:
    """Check for what can't be kept: `ah` over IPv6, where connection tracking steps over that
    header (ipv6_skip_exthdr).
    """
    return [
        service.fault(
            ("destinations", index, destination.key, place),
            f"'ah' with '{written(one)}': over IPv6 it can't be told from what it carries, and would be refused",
            "IPv4 addresses for ah, or esp",
        )
        for service in services
        for index, destination in enumerate(service.model.destinations)
        if any(traffic.protocol == AH for traffic in destination.ports)
        for place, one in destination.each()
        if not isinstance(one, str) and one.version == 6
    ]
