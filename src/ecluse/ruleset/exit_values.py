"""The second lock's contents as values: the ends outside, the devices, what links need."""

from collections.abc import Iterable
from dataclasses import dataclass

from ecluse.policy import LinkProtocol, Preset
from ecluse.ruleset.program import Interval

Tag = tuple[int, int]
"""The ethertype (0x8100, 0x88a8) and the number of a VLAN."""


@dataclass(frozen=True, slots=True)
class ExitDevice:
    """A device of our namespace that is in no zone: what it sends leaves the hospital.

    Args:
        macs: link-layer addresses of our own that it sends by: its own, its bridge's, those of the
            outside devices that stand on it.
        zone_macs: those of zones' devices that stand on it; they send inward, untouched.
        zone_tags: VLANs on it that are a zone's.
        outside_tags: VLANs on it that are not: their own device is locked, too.
        ethernet: its packets have an Ethernet header.
        dials: it may look for a PPPoE server. carries_ppp: a PPPoE session runs over it.
    """

    name: str
    macs: tuple[int, ...] = ()
    zone_macs: tuple[int, ...] = ()
    zone_tags: tuple[Tag, ...] = ()
    outside_tags: tuple[Tag, ...] = ()
    ethernet: bool = True
    dials: bool = False
    carries_ppp: bool = False

    @property
    def key(self) -> str:
        """Give the name as a part of nft identifiers; no two devices share one."""
        return "".join(
            one if one.isascii() and one.isalnum() else f"_{ord(one):02x}" for one in self.name
        )


Answer = tuple[int, int, int]
"""Protocol, first and last source port of what answers a stranger (`from: any`).

Ports 0 to 65535: the whole protocol, which may have none.
"""
WHOLE = (0, 65535)


@dataclass(frozen=True, slots=True)
class Ends:
    """Where packets of one family may go.

    Args:
        singles: addresses. ranges: networks, merged, in order.
        learned: what the DNS gate learned; it changes this set by itself.
        answers: source ports of what may go to anybody.
        series: a part of the names of the sets. A set is never changed, so one that somebody did
            change, or may have, is replaced by one of another name.
    """

    singles: frozenset[int] = frozenset()
    ranges: tuple[Interval, ...] = ()
    learned: frozenset[int] = frozenset()
    answers: tuple[Answer, ...] = ()
    series: int = 0

    def __or__(self, other: "Ends") -> "Ends":
        """Give the ends of both, in the series of the second."""
        return Ends(
            self.singles | other.singles,
            merged((*self.ranges, *other.ranges)),
            self.learned | other.learned,
            merged_answers((*self.answers, *other.answers)),
            other.series,
        )


@dataclass(frozen=True, slots=True)
class ExitLock:
    """The lock as it is to stand, whole.

    learns: the DNS gate puts into it what it learns.
    """

    devices: tuple[ExitDevice, ...]
    ends4: Ends
    ends6: Ends
    presets: frozenset[Preset] = frozenset()
    link: frozenset[LinkProtocol] = frozenset()
    learns: bool = False

    def ends(self, version: int) -> Ends:
        """Give the ends of one family."""
        return self.ends4 if version == 4 else self.ends6


@dataclass(frozen=True, slots=True)
class Standing:
    """What table `netdev ecluse_exit` holds now, by name, so that a text can restate it."""

    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset()


NOTHING = Standing()


def merged(ranges: Iterable[Interval]) -> tuple[Interval, ...]:
    """Join intervals that overlap or touch; in order."""
    found: list[Interval] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def merged_answers(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """Join the ports of each protocol."""
    ports: dict[int, list[Interval]] = {}
    for protocol, first, last in answers:
        ports.setdefault(protocol, []).append((first, last))
    return tuple((one, *each) for one in sorted(ports) for each in merged(ports[one]))
