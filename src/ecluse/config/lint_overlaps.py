"""Services that share packets: which of two counts a packet depends on the order of the files."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

from ecluse.config.address_parsers import written
from ecluse.config.cross_checks import PlacedService
from ecluse.faults import Fault
from ecluse.policy import Direction, IPNetwork, Policy, Service, Traffic, interval
from ecluse.policy.network_index import NetworkIndex


class _End(NamedTuple):
    """A network or host name that a written target stands for, and the target's place: which
    service, destination, item.

    first, last: the network's addresses as numbers, 0 for a host name.
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
    """Say, once for each two services, what they share and how often; of very many pairs, how many
    more there are.
    """

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
        wrong = f"'{second}' and '{first}' share '{shared}'{{}} on the same port: packets are counted for '{first}', which comes first"
        placed = services[late.service]
        key = placed.model.destinations[late.destination].key
        pair = found[early.service, late.service]
        pair.append(placed.fault(("destinations", late.destination, key, late.item), wrong))
    yield from _few([_told(pair) for pair in found.values()])


MAX_PAIRS = 50


def _told(pair: list[Fault]) -> Fault:
    """Say for two services what they share first, and how much more."""
    first = min(pair)
    return first.here(first.wrong.format(f" and {len(pair) - 1} more" if len(pair) > 1 else ""))


def _few(remarks: list[Fault]) -> Iterator[Fault]:
    remarks.sort()
    yield from remarks[:MAX_PAIRS]
    if len(remarks) > MAX_PAIRS:
        more = len(remarks) - MAX_PAIRS
        yield remarks[MAX_PAIRS].here(
            f"{more} more pairs of services share packets: each is counted for the first of its two"
        )


def _traffic(policy: Policy, end: _End) -> tuple[Traffic, ...]:
    return policy.services[end.service].destinations[end.destination].traffic


def _meetings(services: Sequence[PlacedService]) -> Iterator[tuple[_End, _End, str]]:
    """Give the targets of different services that meet, and what of the outside they share."""
    networks: dict[Direction, NetworkIndex[_End]] = defaultdict(NetworkIndex)
    names: dict[tuple[Direction, str], list[_End]] = defaultdict(list)
    # The widest first: then whatever contains a target has been seen before it, wherever in the
    # files it stands.
    for end in sorted(_crowded(services), key=_by_width):
        direction = services[end.service].model.destinations[end.destination].direction
        if isinstance(end.value, str):
            shared = end.value
            seen = names[direction, end.value]
            others = tuple(seen)
            seen.append(end)
        else:
            shared = written(end.value)
            others = tuple(other for _, other in networks[direction].around(end.value))
            networks[direction].add(end.value, end)
        yield from ((other, end, shared) for other in others if other.service != end.service)


def _by_width(end: _End) -> tuple[int, ...]:
    length, version = (
        (-1, 0) if isinstance(end.value, str) else (end.value.prefixlen, end.value.version)
    )
    return (length, end.service, end.destination, end.item, version)


def _crowded(services: Sequence[PlacedService]) -> list[_End]:
    """Give the targets that may meet one of another service.

    A large allowlist has few of them, and all else takes its time.
    """
    names: dict[tuple[Direction, str], list[_End]] = defaultdict(list)
    networks: dict[tuple[Direction, int], list[_End]] = defaultdict(list)
    for position, placed in enumerate(services):
        for index, destination in enumerate(placed.model.destinations):
            direction = destination.direction
            for item, value in destination.each():
                if isinstance(value, str):
                    names[direction, value].append(_End(0, 0, position, index, item, value))
                else:
                    end = _End(*interval(value), position, index, item, value)
                    networks[direction, value.version].append(end)
    groups = chain(names.values(), *map(_clusters, networks.values()))
    return [
        end
        for group in groups
        if len(group) > 1 and len({end.service for end in group}) > 1
        for end in group
    ]


def _clusters(ends: list[_End]) -> Iterator[list[_End]]:
    """Give networks of one family in groups, so that no two of different groups have an address in
    common.
    """
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
            if any(zone in b.zones for _, zone in inside.around(host)):
                return True
        if any(True for host in b.hosts for _ in hosts.around(host)):
            return True
    return False
