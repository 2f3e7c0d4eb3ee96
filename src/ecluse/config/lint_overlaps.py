"""Warnings about services that share packets: the first one in the files counts them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

from ecluse.config.address_parsers import written
from ecluse.config.cross_checks import PlacedService
from ecluse.faults import Fault
from ecluse.policy import Direction, IPNetwork, Policy, Service, Traffic, network_interval
from ecluse.policy.network_index import NetworkIndex


class _End(NamedTuple):
    """A network or host name that a target stands for, and the target's place.

    Attributes:
        first: the network's first address as a number, 0 for a host name.
        last: its last address.
        service: position of the service; `destination` and `item` lead to the target.
    """

    first: int
    last: int
    service: int
    destination: int
    item: int
    value: str | IPNetwork


def find_overlaps(
    policy: Policy, services: Sequence[PlacedService], inside: NetworkIndex[str]
) -> Iterator[Fault]:
    """Yield one warning for each two services that share packets, for 50 pairs at most."""

    @cache
    def same_inside(early: int, late: int) -> bool:
        return _same_inside(policy.services[early], policy.services[late], inside)

    reported: set[tuple[int, int, int]] = set()
    found: dict[tuple[int, int], list[Fault]] = defaultdict(list)
    for one, other, shared in _meetings(services):
        early, late = (one, other) if one.service < other.service else (other, one)
        target = (late.service, late.destination, late.item)
        if target in reported or not _share(_traffic(policy, early), _traffic(policy, late)):
            continue
        if not same_inside(early.service, late.service):
            continue
        reported.add(target)
        first, second = policy.services[early.service].name, policy.services[late.service].name
        wrong = (
            f"'{second}' and '{first}' share '{shared}'{{}} on the same port: packets are counted"
            f" for '{first}', which comes first"
        )
        placed = services[late.service]
        pair = found[early.service, late.service]
        pair.append(placed.fault(placed.target_loc(late.destination, late.item), wrong))
    yield from _few([_joined(pair) for pair in found.values()])


MAX_PAIRS = 50


def _joined(pair: list[Fault]) -> Fault:
    """Return one warning for two services: what they share first, and how much more."""
    first = min(pair)
    return first.here(first.wrong.format(f" and {len(pair) - 1} more" if len(pair) > 1 else ""))


def _few(warnings: list[Fault]) -> Iterator[Fault]:
    warnings.sort()
    yield from warnings[:MAX_PAIRS]
    if len(warnings) > MAX_PAIRS:
        more = len(warnings) - MAX_PAIRS
        yield warnings[MAX_PAIRS].here(
            f"{more} more pairs of services share packets: each is counted for the first of its two"
        )


def _traffic(policy: Policy, end: _End) -> tuple[Traffic, ...]:
    return policy.services[end.service].destinations[end.destination].traffic


def _meetings(services: Sequence[PlacedService]) -> Iterator[tuple[_End, _End, str]]:
    """Yield targets of different services that meet, and what they share."""
    networks: dict[Direction, NetworkIndex[_End]] = defaultdict(NetworkIndex)
    names: dict[tuple[Direction, str], list[_End]] = defaultdict(list)
    # The widest first: what contains a target then comes before it, whatever the files' order.
    for end in sorted(_may_meet(services), key=_by_width):
        direction = services[end.service].service.destinations[end.destination].direction
        if isinstance(end.value, str):
            shared = end.value
            seen = names[direction, end.value]
            others = tuple(seen)
            seen.append(end)
        else:
            shared = written(end.value)
            others = tuple(other for _, other in networks[direction].containing(end.value))
            networks[direction].add(end.value, end)
        yield from ((other, end, shared) for other in others if other.service != end.service)


def _by_width(end: _End) -> tuple[int, ...]:
    length, version = (
        (-1, 0) if isinstance(end.value, str) else (end.value.prefixlen, end.value.version)
    )
    return (length, end.service, end.destination, end.item, version)


def _may_meet(services: Sequence[PlacedService]) -> list[_End]:
    """Return the targets that may meet one of another service.

    A large allowlist has few of them; comparing the others as well would take its time.
    """
    names: dict[tuple[Direction, str], list[_End]] = defaultdict(list)
    networks: dict[tuple[Direction, int], list[_End]] = defaultdict(list)
    for position, placed in enumerate(services):
        for index, destination in enumerate(placed.service.destinations):
            direction = destination.direction
            for item, value in placed.each_target(index):
                if isinstance(value, str):
                    names[direction, value].append(_End(0, 0, position, index, item, value))
                else:
                    end = _End(*network_interval(value), position, index, item, value)
                    networks[direction, value.version].append(end)
    groups = chain(names.values(), *map(_clusters, networks.values()))
    return [
        end
        for group in groups
        if len(group) > 1 and len({end.service for end in group}) > 1
        for end in group
    ]


def _clusters(ends: list[_End]) -> Iterator[list[_End]]:
    """Yield networks of one family in groups; two groups have no address in common."""
    group: list[_End] = []
    reach = -1
    for end in sorted(ends):
        if end.first > reach:
            yield group
            group = []
        group.append(end)
        reach = max(reach, end.last)
    yield group


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
            if any(zone in b.zones for _, zone in inside.containing(host)):
                return True
        if any(True for host in b.hosts for _ in hosts.containing(host)):
            return True
    return False
