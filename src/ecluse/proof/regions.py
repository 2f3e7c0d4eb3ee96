"""Sets of packets, exactly: unions of boxes as decision diagrams over intervals.

A region asks one field after the other, always in the same order. A node has a list of intervals of
its field's values, and for each the region that follows. Equal parts are one object and neighbours
that lead to the same are one interval, so **equal sets are the same object** (Bryant 1986, for
bits; Gouda and Liu 2007, "Structured firewall design", for intervals). Comparing is `is`; what
100,000 exact entries cost is one pass over them; nothing is ever multiplied out.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import compress
from operator import is_, is_not

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

    widths: bits of each field, in the order in which they are asked. named: regions that are asked
    for again.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self._ends = [1 << width for width in widths]
        self.none, self.all = Region(LEAF, (), ()), Region(LEAF, (), ())
        self._made: dict[tuple[int, tuple[int, ...], tuple[Region, ...]], Region] = {}
        self._known: dict[tuple[str, Region, Region], Region] = {}
        self.named: dict[Hashable, Region] = {}

    def _make(self, level: int, starts: Sequence[int], kids: Sequence[Region]) -> Region:
        """Give the one region of this content: neighbours that lead to the same become one."""
        if any(map(is_, kids, kids[1:])):
            new = [True, *map(is_not, kids, kids[1:])]
            starts, kids = tuple(compress(starts, new)), tuple(compress(kids, new))
        if len(kids) == 1:
            return kids[0]
        key = (level, tuple(starts), tuple(kids))
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
        found = known.get(content)
        if found is None:
            points = [box for box in boxes if box[0][0] == box[0][1]]
            wide = [box for box in boxes if box[0][0] != box[0][1]]
            found = self._points(levels, points, known) if points else self.none
            if wide:
                found = self.either(found, self._sweep(levels, wide, known))
            known[content] = found
        return found

    def _points(
        self, levels: tuple[int, ...], boxes: list[Box], known: dict[frozenset[Box], Region]
    ) -> Region:
        """Unite boxes whose first interval is one value."""
        rests: dict[int, list[Box]] = {}
        for box in boxes:
            rests.setdefault(box[0][0], []).append(box[1:])
        same: dict[tuple[Box, ...], Region] = {}
        starts, kids, end = [0], [self.none], self._ends[levels[0]]
        for value in sorted(rests):
            rest = tuple(rests[value])
            kid = same.get(rest)
            if kid is None:
                kid = same[rest] = self._union(levels[1:], rest, known)
            if starts[-1] == value:  # the gap before it is empty
                kids[-1] = kid
            else:
                starts.append(value)
                kids.append(kid)
            if value + 1 < end:
                starts.append(value + 1)
                kids.append(self.none)
        return self._make(levels[0], starts, kids)

    def _sweep(
        self, levels: tuple[int, ...], boxes: list[Box], known: dict[frozenset[Box], Region]
    ) -> Region:
        """Unite boxes by what begins and ends along the first field, and what holds in between."""
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
        return self._make(levels[0], starts, kids)

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
            starts: list[int] = []
            kids: list[Region] = []
            # Thousands of values lead to a few regions: each pair of them is worked out once, and
            # a long stretch beside one interval of the other is not looked at value by value.
            for piece, ours, theirs in _stretches(level, one, other):
                starts += piece
                if len(ours) == 1:
                    done = {kid: work(ours[0], kid) for kid in set(theirs)}
                    kids += map(done.__getitem__, theirs)
                elif len(theirs) == 1:
                    done = {kid: work(kid, theirs[0]) for kid in set(ours)}
                    kids += map(done.__getitem__, ours)
                else:
                    pairs = list(zip(ours, theirs, strict=True))
                    each = {pair: work(*pair) for pair in set(pairs)}
                    kids += map(each.__getitem__, pairs)
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


_Stretch = tuple[Sequence[int], Sequence[Region], Sequence[Region]]


def _stretches(level: int, one: Region, other: Region) -> Iterator[_Stretch]:
    """Give where intervals of two regions begin, and what follows in each; one of them for all."""
    if one.level != level:
        yield other.starts, (one,), other.kids
    elif other.level != level:
        yield one.starts, one.kids, (other,)
    elif one.starts == other.starts:
        yield one.starts, one.kids, other.kids
    elif len(one.starts) > 8 * len(other.starts):
        for starts, kid, kids in _beside(other, one):
            yield starts, kids, (kid,)
    elif len(other.starts) > 8 * len(one.starts):
        for starts, kid, kids in _beside(one, other):
            yield starts, (kid,), kids
    else:
        starts = sorted({*one.starts, *other.starts})
        yield starts, _spread(one, starts), _spread(other, starts)


def _beside(few: Region, many: Region) -> Iterator[tuple[Sequence[int], Region, Sequence[Region]]]:
    """Give, for each interval of one region, what of the other lies in it."""
    for low, after, kid in zip(few.starts, (*few.starts[1:], None), few.kids, strict=True):
        first = bisect_right(many.starts, low) - 1
        last = len(many.starts) if after is None else bisect_left(many.starts, after)
        yield (low, *many.starts[first + 1 : last]), kid, many.kids[first:last]


def _spread(region: Region, starts: Sequence[int]) -> list[Region]:
    """Give what follows at each of these starts, which are finer than the region's own."""
    begins = dict(zip(region.starts, region.kids, strict=True))
    kid = region.kids[0]
    found = []
    for start in starts:
        kid = begins.get(start, kid)
        found.append(kid)
    return found
