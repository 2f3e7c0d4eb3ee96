"""Who held an event loop for too long: the daemon, or the machine under it."""

from collections import defaultdict
from collections.abc import Iterable

SURE = 50.0
"""Milliseconds that no machine steals: see `by_the_daemon`."""


def by_the_daemon(lines: Iterable[str]) -> list[str]:
    """Give the lines of one test (`sitecustomize.py`: "MS ms: PLACE") that the daemon's own code is
    to blame for.

    The kernel counts interrupts, the packets that they bring and time that the hypervisor took as
    the running thread's own: in a run of 609 tests two callbacks that do next to nothing were
    charged 24 and 25 ms. Code that takes too long does so again at the same place, or for much
    longer.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        places[line.partition(": ")[2]].append(line)
    return [
        line
        for found in places.values()
        if len(found) > 1 or float(found[0].partition(" ")[0]) >= SURE
        for line in found
    ]
