"""Finds kept flows that the second lock would drop: the site's own rules translate them. Pure.

The gate knows where a machine wanted to go, the lock where the packet goes: after DNAT outward that
is another address, which the service has to list too. What a NAT64 does is not seen here.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from ecluse.flow_judge import ConntrackEntry, FlowJudge
from ecluse.policy import Addresses, IPAddress
from ecluse.ruleset.exit_lock import exit_lock
from ecluse.ruleset.exit_values import Ends

MOST_WAYS = 10
"""Services and places that are named."""


def translated_warnings(
    judge: FlowJudge, connections: Sequence[ConntrackEntry], addresses: Addresses
) -> tuple[str, ...]:
    """Say which kept services go, translated, to places that the second lock does not let out.

    Args:
        judge: at the levels that are meant.
        connections: the whole connection table.
        addresses: of host names.
    """
    ways = dict.fromkeys(_translated(judge, connections))
    lock = exit_lock(judge.policy, judge.levels, addresses, (), ()) if ways else None
    if lock is None:
        return ()
    dropped = [way for way in ways if not _lets_out(lock.ends(way[2].version), way[2])]
    told = [
        f"'{service}' goes to {meant}, which the site's own rules translate to {real}: the second "
        f"lock drops that; list {real} in the service too, or set second_lock: isolate"
        for service, meant, real in dropped[:MOST_WAYS]
    ]
    if len(dropped) > MOST_WAYS:
        told.append(f"{len(dropped) - MOST_WAYS} more translated places are dropped like that")
    return tuple(told)


def _translated(
    judge: FlowJudge, connections: Iterable[ConntrackEntry]
) -> Iterable[tuple[str, IPAddress, IPAddress]]:
    for one in connections:
        meant, real = one.original.destination, one.reply.source
        # A port forward is translated too, and its answers go to who asked.
        if meant != real and judge.is_opened_inside(one):
            flow = judge.judge(one)
            if flow.verdict == "kept":
                yield flow.service, meant, real


def _lets_out(ends: Ends, address: IPAddress) -> bool:
    number = int(address)
    at = bisect_right(ends.ranges, (number, 1 << 128)) - 1
    return number in ends.singles or (at >= 0 and number <= ends.ranges[at][1])
