"""Sets of packets, exactly: unions of boxes as decision diagrams over intervals.

A region asks one field after the other, always in the same order. A node has a list of intervals of
its field's values, and for each the region that follows. Equal parts are one object and neighbours
that lead to the same are one interval, so **equal sets are the same object** (Bryant 1986, for bits;
Gouda and Liu 2007, "Structured firewall design", for intervals). Comparing is `is`; what 100,000
exact entries cost is one pass over them; nothing is ever multiplied out.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

Interval = tuple[int, int]
"""First and last value, both included."""

Box = tuple[Interval, ...]


class Region:
    """A set of packets. Only `Space` makes them; equal ones of a space are the same object.

    level: the field that is asked. starts: where each interval begins, the first at 0. kids: what
    follows each.
    """

    __slots__ = ("kids", "level", "starts")

    def __init__(self, level: int, starts: tuple[int, ...], kids: tuple["Region", ...]) -> None:
        self.level, self.starts, self.kids = level, starts, kids


LEAF = 1 << 30
"""The level of the two regions that ask nothing."""


class Space:
    """All regions over some fields, so that equal ones are the same object.

    widths: bits of each field, in the order in which they are asked.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self._ends = [1 << width for width in widths]
        self.none, self.all = Region(LEAF, (), ()), Region(LEAF, (), ())
        self._made: dict[tuple[int, tuple[int, ...], tuple[Region, ...]], Region] = {}
        self._known: dict[tuple[str, Region, Region], Region] = {}

    def _make(self, level: int, starts: Iterable[int], kids: Iterable[Region]) -> Region:
        """Give the one region of this content: neighbours that lead to the same become one."""
        first: list[int] = []
        then: list[Region] = []
        last = None
        for start, kid in zip(starts, kids, strict=True):
            if kid is not last:
                first.append(start)
                then.append(kid)
                last = kid
        if len(then) == 1:
            return then[0]
        key = (level, tuple(first), tuple(then))
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Region(*key)
        return found

    def boxes(self, levels: Sequence[int], boxes: Iterable[Box]) -> Region:
        """Give the union of boxes: an interval for each of these levels, in their order.

        levels: strictly ascending.
        """
        return self._union(tuple(levels), tuple(dict.fromkeys(boxes)), {})

    def _union(
        self, levels: tuple[int, ...], boxes: tuple[Box, ...], known: dict[frozenset[Box], Region]
    ) -> Region:
        if not boxes or not levels:
            return self.all if boxes else self.none
        content = frozenset(boxes)
        if content in known:
            return known[content]
        # A sweep over the first field: what begins and ends where, and what holds in between.
        events: dict[int, tuple[list[Box], list[Box]]] = {0: ([], [])}
        end = self._ends[levels[0]]
        for box in boxes:
            low, high = box[0]
            events.setdefault(low, ([], []))[0].append(box[1:])
            if high + 1 < end:
                events.setdefault(high + 1, ([], []))[1].append(box[1:])
        holds: dict[Box, int] = {}
        starts, kids = sorted(events), []
        for start in starts:
            begin, over = events[start]
            for rest in over:
                holds[rest] -= 1
                if not holds[rest]:
                    del holds[rest]
            for rest in begin:
                holds[rest] = holds.get(rest, 0) + 1
            kids.append(self._union(levels[1:], tuple(holds), known))
        found = known[content] = self._make(levels[0], starts, kids)
        return found

    def both(self, one: Region, other: Region) -> Region:
        """Give what is in both."""
        if one is other or other is self.all:
            return one
        if one is self.all:
            return other
        if one is self.none or other is self.none:
            return self.none
        return self._merge("and", one, other)

    def either(self, one: Region, other: Region) -> Region:
        """Give what is in one of them, or in both."""
        if one is other or other is self.none:
            return one
        if one is self.none:
            return other
        if one is self.all or other is self.all:
            return self.all
        return self._merge("or", one, other)

    def without(self, one: Region, other: Region) -> Region:
        """Give what is in the first and not in the other."""
        if one is other or one is self.none or other is self.all:
            return self.none
        if other is self.none:
            return one
        return self._merge("not", one, other)

    def _merge(self, how: str, one: Region, other: Region) -> Region:
        key = (how, one, other)
        found = self._known.get(key)
        if found is None:
            work = {"and": self.both, "or": self.either, "not": self.without}[how]
            level = min(one.level, other.level)
            if one.level != level:
                starts: Sequence[int] = other.starts
                kids = [work(one, kid) for kid in other.kids]
            elif other.level != level:
                starts, kids = one.starts, [work(kid, other) for kid in one.kids]
            else:
                starts = sorted({*one.starts, *other.starts})
                kids = []
                i = j = -1
                ones, others = one.starts, other.starts
                for start in starts:
                    if i + 1 < len(ones) and ones[i + 1] == start:
                        i += 1
                    if j + 1 < len(others) and others[j + 1] == start:
                        j += 1
                    kids.append(work(one.kids[i], other.kids[j]))
            found = self._known[key] = self._make(level, starts, kids)
        return found

    def smallest(self, region: Region) -> dict[int, int] | None:
        """Give the first point of a region, a value for each field that matters; None if empty."""
        if region is self.none:
            return None
        point = {}
        while region is not self.all:
            at = next(n for n, kid in enumerate(region.kids) if kid is not self.none)
            point[region.level] = region.starts[at]
            region = region.kids[at]
        return point

    def holds(self, region: Region, point: dict[int, int]) -> bool:
        """Say whether a point (0 where it names no value) is in a region."""
        while region.level != LEAF:
            at = bisect_right(region.starts, point.get(region.level, 0)) - 1
            region = region.kids[at]
        return region is self.all

    def asks(self, region: Region, level: int) -> bool:
        """Say whether a region depends on a field."""
        seen: set[Region] = set()
        todo = [region]
        while todo:
            one = todo.pop()
            if one.level == level:
                return True
            if one.level < level and one not in seen:
                seen.add(one)
                todo.extend(one.kids)
        return False

    def paths(self, region: Region) -> Iterator[dict[int, Interval]]:
        """Give disjoint boxes that make up a region."""
        if region is self.all:
            yield {}
        elif region is not self.none:
            ends = [*(start - 1 for start in region.starts[1:]), self._ends[region.level] - 1]
            for low, high, kid in zip(region.starts, ends, region.kids, strict=True):
                for rest in self.paths(kid):
                    yield {region.level: (low, high), **rest}
