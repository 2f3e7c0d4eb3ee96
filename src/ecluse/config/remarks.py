"""What is odd but not wrong. Each remark says what it means on the night of a cut."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain

from ecluse.config.checks import PlacedService
from ecluse.config.fields import is_wide, written
from ecluse.config.marks import Document, Loc
from ecluse.config.models import DestinationModel
from ecluse.config.networks import NetworkIndex
from ecluse.errors import Fault
from ecluse.policy import GATEWAY, Criticality, Direction, IPNetwork, Policy, Preset, Service, Traffic


def find_remarks(
    policy: Policy, site: Document, services: Sequence[PlacedService], today: date
) -> Iterator[Fault]:
    """Give every remark. `services` stand in the order of `policy.services`; `today` is for review dates."""
    yield from _about_site(policy, site)
    inside = _inside_subnets(policy)
    for placed, service in zip(services, policy.services, strict=True):
        yield from _about_people(placed, service, today)
        yield from _about_names(placed, service)
        yield from _about_destinations(placed, service, policy, inside)
    yield from _overlaps(policy, services, inside)


def _about_site(policy: Policy, document: Document) -> Iterator[Fault]:
    site = policy.site
    if not site.lifeline.management_networks:
        wrong = "no management network: at 'isolate' and 'cut' nobody reaches the gateway from afar, only its console"
        yield document.fault(
            ("lifeline",), wrong, "lifeline: {management: {networks: [...], ports: [tcp/22]}}"
        )
    if any(is_wide(network) for network in site.lifeline.management_networks):
        wrong = "management is open to the whole internet at every level"
        yield document.fault(("lifeline", "management", "unbounded"), wrong)
    six = any(network.version == 6 for zone in site.zones for network in zone.subnets)
    if six and Preset.ND not in site.lifeline.presets:
        wrong = "zones have IPv6 subnets and the lifeline has no 'nd': without neighbour discovery IPv6 stops at a cut"
        yield document.fault(("lifeline", "presets"), wrong, "presets: [nd]")
    names = sum(len(d.hosts) for service in policy.services for d in service.destinations)
    if names and not site.resolvers:
        wrong = f"{names} destinations are host names and there are no resolvers: these are never found"
        yield document.fault(("resolvers",), wrong, "the addresses of DNS servers")
    for place, resolver in enumerate(site.resolvers):
        if resolver.is_loopback:
            wrong = f"the resolver {resolver} is this machine: its own questions to the outside are not the lifeline's"
            yield document.fault(
                ("resolvers", place), wrong, "a vital service with zones: [gateway] for them"
            )
    if not any(service.criticality is Criticality.VITAL for service in policy.services):
        yield document.fault((), "no service is vital: 'cut' keeps nothing but the lifeline")


def _about_people(placed: PlacedService, service: Service, today: date) -> Iterator[Fault]:
    if not service.contact:
        yield placed.fault(
            (), f"'{service.name}' has no contact: nobody to call when it fails", "a phone number"
        )
    if not service.owner:
        yield placed.fault(
            (), f"'{service.name}' has no owner: nobody to ask whether it may be cut", "who needs it"
        )
    if service.review is None:
        yield placed.fault((), f"'{service.name}' has no review date", "review: YYYY-MM-DD")
    elif service.review < today:
        wrong = f"the review of '{service.name}' was due on {service.review}"
        yield placed.fault(("review",), wrong, "addresses checked with the partner, and a new date")


def _about_names(placed: PlacedService, service: Service) -> Iterator[Fault]:
    hosts = [host for destination in service.destinations for host in destination.hosts]
    networks = [n for destination in service.destinations for n in destination.networks]
    if service.criticality is Criticality.VITAL and hosts and not networks:
        wrong = (
            f"the vital service '{service.name}' is known by name only: without DNS, what is kept are the last"
            " addresses seen"
        )
        yield placed.fault(
            ("destinations",), wrong, "its addresses as well, where the partner keeps them fixed"
        )


def _about_destinations(
    placed: PlacedService, service: Service, policy: Policy, inside: NetworkIndex[str]
) -> Iterator[Fault]:
    families = _families(service, policy)
    for loc, network in _written_networks(placed):
        if is_wide(network):
            wrong = f"'{service.name}' keeps '{written(network)}' open, the whole internet or much of it, for these ports"
            yield placed.fault(loc, wrong)
            continue
        zone = next((zone for _, zone in inside.around(network)), None)
        if zone is not None:
            wrong = f"'{written(network)}' lies inside zone '{zone}': traffic to it never crosses the gate"
            yield placed.fault(loc, wrong, "the partner's address outside")
        elif network.version not in families:
            wrong = f"'{written(network)}' is of no use: the inside of '{service.name}' has no IPv{network.version} subnet"
            yield placed.fault(loc, wrong)


def _families(service: Service, policy: Policy) -> set[int]:
    """Give the address families that the service's inside has (the gateway may have both)."""
    if GATEWAY in service.zones:
        return {4, 6}
    subnets = [n for zone in policy.site.zones if zone.name in service.zones for n in zone.subnets]
    return {network.version for network in chain(subnets, service.hosts)}


def _written_networks(placed: PlacedService) -> Iterator[tuple[Loc, IPNetwork]]:
    for index, destination in enumerate(placed.model.destinations):
        for loc, value in _targets(destination):
            if not isinstance(value, str):
                yield ("destinations", index, *loc), value


def _targets(destination: DestinationModel) -> Iterator[tuple[Loc, str | IPNetwork]]:
    key = "to" if destination.direction is Direction.OUTBOUND else "from"
    for place, target in enumerate(destination.targets):
        for value in target:
            yield (key, place), value


def _inside_subnets(policy: Policy) -> NetworkIndex[str]:
    index: NetworkIndex[str] = NetworkIndex()
    for zone in policy.site.zones:
        for network in zone.subnets:
            index.add(network, zone.name)
    return index


@dataclass(frozen=True, slots=True)
class _End:
    """One written target: of which service (its position), where it stands, and the traffic to it."""

    position: int
    loc: Loc
    direction: Direction
    value: str | IPNetwork
    traffic: tuple[Traffic, ...]


def _overlaps(
    policy: Policy, services: Sequence[PlacedService], inside: NetworkIndex[str]
) -> Iterator[Fault]:
    """Say, once for each written target, which earlier service it shares packets with."""
    reported: set[tuple[int, Loc]] = set()
    for one, other, shared in _meetings(services):
        early, late = (one, other) if one.position < other.position else (other, one)
        if (late.position, late.loc) in reported or not _share(early.traffic, late.traffic):
            continue
        first, second = policy.services[early.position], policy.services[late.position]
        if not _same_inside(first, second, inside):
            continue
        reported.add((late.position, late.loc))
        wrong = (
            f"'{second.name}' and '{first.name}' share '{shared}' on the same port: packets are counted for"
            f" '{first.name}', which comes first"
        )
        yield services[late.position].fault(late.loc, wrong)


def _meetings(services: Sequence[PlacedService]) -> Iterator[tuple[_End, _End, str]]:
    """Give the targets of different services that meet, and what of the outside they share."""
    ends = [
        _End(position, ("destinations", index, *loc), destination.direction, value, destination.ports)
        for position, placed in enumerate(services)
        for index, destination in enumerate(placed.model.destinations)
        for loc, value in _targets(destination)
    ]
    networks: dict[Direction, NetworkIndex[_End]] = defaultdict(NetworkIndex)
    names: dict[tuple[Direction, str], list[_End]] = defaultdict(list)
    # The widest first: then whatever contains a target has been seen before it, wherever in the files it stands.
    ends.sort(key=lambda end: -1 if isinstance(end.value, str) else end.value.prefixlen)
    for end in ends:
        if isinstance(end.value, str):
            shared = end.value
            seen = names[end.direction, end.value]
            others = tuple(seen)
            seen.append(end)
        else:
            shared = written(end.value)
            others = tuple(other for _, other in networks[end.direction].around(end.value))
            networks[end.direction].add(end.value, end)
        yield from ((other, end, shared) for other in others if other.position != end.position)


def _share(one: Sequence[Traffic], other: Sequence[Traffic]) -> bool:
    return any(
        a.protocol == b.protocol
        and (a.first is None or (a.first <= (b.last or 0) and (b.first or 0) <= (a.last or 0)))
        for a in one
        for b in other
    )


def _same_inside(first: Service, second: Service, inside: NetworkIndex[str]) -> bool:
    """Say whether some host of the inside is covered by both services."""
    if set(first.zones) & set(second.zones):
        return True
    for a, b in ((first, second), (second, first)):
        hosts: NetworkIndex[None] = NetworkIndex()
        for host in a.hosts:
            hosts.add(host, None)
            if any(zone in b.zones for _, zone in inside.around(host)):
                return True
        if any(True for host in b.hosts for _ in hosts.around(host)):
            return True
    return False
