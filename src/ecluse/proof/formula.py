"""Formulas about packets, so that the meaning reads as it is said: and, or, not."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from ecluse.policy import IPNetwork, network_interval
from ecluse.proof.packet import NAME_BITS, View
from ecluse.proof.regions import Box, Interval, Region, Space


@dataclass(frozen=True, slots=True)
class Packets:
    """Some packets of a view."""

    space: Space
    region: Region

    def __and__(self, other: "Packets") -> "Packets":
        return Packets(self.space, self.space.both(self.region, other.region))

    def __or__(self, other: "Packets") -> "Packets":
        return Packets(self.space, self.space.either(self.region, other.region))

    def __invert__(self) -> "Packets":
        return Packets(self.space, self.space.without(self.space.all, self.region))


@dataclass(frozen=True, slots=True)
class Words:
    """Says which packets of a view are meant."""

    view: View

    @property
    def everything(self) -> Packets:
        """All packets."""
        return Packets(self.view.space, self.view.space.all)

    @property
    def nothing(self) -> Packets:
        """No packet."""
        return Packets(self.view.space, self.view.space.none)

    def given(self, condition: bool) -> Packets:
        """All packets or none."""
        return self.everything if condition else self.nothing

    def among(self, field: str, *values: Interval | int) -> Packets:
        """A field can be read and is one of these values, or in one of these ranges."""
        pairs = [v if isinstance(v, tuple) else (v, v) for v in values]
        return Packets(self.view.space, self.view.any_of(field, pairs))

    def within(self, field: str, networks: Iterable[IPNetwork]) -> Packets:
        """An address lies in one of these networks; those of the other family do not count."""
        mine = (network_interval(n) for n in networks if n.version == self.view.version)
        return self.among(field, *mine)

    def together(
        self, fields: tuple[str, ...], boxes: Callable[[], Iterable[Box]], name: Hashable = None
    ) -> Packets:
        """Several fields lie together in one of these boxes. name: of what they are, made once."""
        return Packets(self.view.space, self.view.in_boxes(fields, boxes, name))

    def link(self, field: str, patterns: Iterable[str]) -> Packets:
        """An interface has one of these names; a trailing `*` stands for any ending."""
        return self.among(field, *map(_names, patterns))

    def is_set(self, field: str, number: int) -> Packets:
        """A flag of conntrack's is set."""
        return Packets(self.view.space, self.view.bit(field, number) or self.view.space.none)

    def variable(self, name: str) -> Packets:
        """A question of yes and no is answered with yes."""
        return Packets(self.view.space, self.view.variable(name, 1, 1))


def _names(pattern: str) -> Interval:
    """An interface's name as the kernel compares it: 16 bytes, filled with zeros."""
    size, wild = NAME_BITS // 8, pattern.endswith("*")
    raw = pattern.removesuffix("*").encode()
    low = int.from_bytes(raw.ljust(size, b"\0"), "big")
    return low, int.from_bytes(raw.ljust(size, b"\xff" if wild else b"\0"), "big")
