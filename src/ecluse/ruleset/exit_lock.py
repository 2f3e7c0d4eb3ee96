"""From a policy to the second lock: the table at the outside devices' egress. Pure.

It stands beside `inet ecluse` and knows destinations only, from the same policy: whatever the gate
keeps outward passes here. Its text: `exit_text.py`; its judgement in Python: `exit_judge.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ecluse.policy import (
    Addresses,
    Direction,
    IPAddress,
    IPNetwork,
    Level,
    Levels,
    Policy,
    SecondLock,
    Service,
    Traffic,
    level_named,
    network_interval,
)
from ecluse.ruleset import dns_redirect
from ecluse.ruleset import program as p
from ecluse.ruleset.compile import zones_by_service
from ecluse.ruleset.exit_values import (
    WHOLE,
    Answer,
    Ends,
    ExitDevice,
    ExitLock,
    merged,
    merged_answers,
)


def is_engaged(policy: Policy, levels: Levels) -> bool:
    """Say whether the lock is to stand at these levels: never while any zone is open."""
    wanted = policy.site.second_lock
    if wanted is SecondLock.OFF:
        return False
    here = _live_levels(policy, levels)
    if any(level.passes_all for level in here):
        return False
    return wanted is SecondLock.CUT or not any(level.keeps for level in here)


def _live_levels(policy: Policy, levels: Levels) -> list[Level]:
    """Give each zone's level, in the order of the zones; an unknown one counts as the last."""
    found = []
    for zone in policy.zone_names():
        try:
            found.append(level_named(policy.site, levels.get(zone, "")))
        except KeyError:
            found.append(policy.site.levels[-1])
    return found


def exit_lock(
    policy: Policy,
    levels: Levels,
    addresses: Addresses,
    learned: Iterable[IPAddress],
    devices: Iterable[ExitDevice],
    series: int = 0,
) -> ExitLock | None:
    """Give the lock for these levels; None: none is to stand.

    Args:
        addresses: of host names, as the gate was loaded with.
        learned: what the DNS gate has put into its sets.
        devices: `exit_devices`.
        series: of its sets (`Ends`).
    """
    if not is_engaged(policy, levels):
        return None
    learns = dns_redirect.is_on(policy) and any(
        level.keeps for level in _live_levels(policy, levels)
    )
    there = tuple(learned) if learns else ()
    ends = {
        version: replace(
            _ends(policy, _kept(policy, levels), addresses, there, version), series=series
        )
        for version in (4, 6)
    }
    line = policy.site.lifeline
    return ExitLock(
        tuple(devices),
        ends[4],
        ends[6],
        frozenset(line.presets),
        frozenset(line.link),
        learns,
    )


def _kept(policy: Policy, levels: Levels) -> list[Service]:
    """Give the services that some zone of theirs keeps now."""
    keeps = dict(zip(policy.zone_names(), _live_levels(policy, levels), strict=True))
    zones = zones_by_service(policy)
    return [
        service
        for service in policy.services
        if any(service.criticality in keeps[zone].keeps for zone in zones[service.name])
    ]


def _ends(
    policy: Policy,
    kept: Iterable[Service],
    addresses: Addresses,
    learned: Iterable[IPAddress],
    version: int,
) -> Ends:
    singles = {int(one) for one in policy.site.resolvers if one.version == version}
    ranges: list[p.Interval] = []
    answers: list[Answer] = []

    def add(networks: Iterable[IPNetwork], traffic: Iterable[Traffic], *, inward: bool) -> None:
        for network in networks:
            if network.version != version:
                continue
            low, high = network_interval(network)
            if low == high:
                singles.add(low)
            elif inward and network.prefixlen == 0:
                answers.extend(_answers(traffic, version))
            else:
                ranges.append((low, high))

    line = policy.site.lifeline
    add(line.management_networks, line.management_ports, inward=True)
    for service in kept:
        for one in service.destinations:
            add(one.networks, one.traffic, inward=one.direction is Direction.INBOUND)
            found = (address for host in one.hosts for address in addresses.get(host, ()))
            singles.update(int(address) for address in found if address.version == version)
    return Ends(
        frozenset(singles),
        merged(ranges),
        frozenset(int(one) for one in learned if one.version == version),
        merged_answers(answers),
    )


def _answers(traffic: Iterable[Traffic], version: int) -> Iterator[Answer]:
    """Give what answers a stranger: it leaves by the port that he addressed."""
    for one in traffic:
        protocol = p.ICMPV6 if (one.protocol, version) == (p.ICMP, 6) else one.protocol
        if one.first is None or one.last is None or protocol not in p.PORTS:
            yield protocol, *WHOLE
        else:
            yield protocol, one.first, one.last


def union(one: ExitLock, other: ExitLock) -> ExitLock:
    """Let out what either lets out, at the devices of the second: before a change that widens."""
    return replace(
        other,
        ends4=one.ends4 | other.ends4,
        ends6=one.ends6 | other.ends6,
        presets=one.presets | other.presets,
        link=one.link | other.link,
        learns=one.learns or other.learns,
    )
