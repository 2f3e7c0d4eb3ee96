"""Element changes between two programs that differ only by addresses of host names."""

from dataclasses import dataclass, replace

from ecluse.ruleset.program import Key, NamedSet, Program


@dataclass(frozen=True, slots=True)
class Delta:
    """Element changes that make one program into another, in one transaction.

    `gone` is deleted first, then `come` is added.
    """

    gone: tuple[NamedSet, ...]
    come: tuple[NamedSet, ...]

    def __bool__(self) -> bool:
        return bool(self.gone or self.come)

    def sets(self) -> set[str]:
        """Name the maps that it touches."""
        return {named.name for named in (*self.gone, *self.come)}


def delta(old: Program, new: Program) -> Delta | None:
    """Find the element changes that make `old` into `new`; None when a fresh load is needed.

    A fresh load is needed when more than elements of large maps differ, and when an interval is
    replaced by one that overlaps it: the kernel shows the new one only a moment after the old one
    is gone, and a kept packet could be refused.
    """
    if old.chains != new.chains or old.counters != new.counters or old.slot != new.slot:
        return None
    if [_shape(s) for s in old.sets] != [_shape(s) for s in new.sets]:
        return None
    gone: list[NamedSet] = []
    come: list[NamedSet] = []
    for before, after in zip(old.sets, new.sets, strict=True):
        if before is after or before.elements == after.elements:
            continue
        left = {k: v for k, v in before.elements.items() if after.elements.get(k) != v}
        right = {k: v for k, v in after.elements.items() if before.elements.get(k) != v}
        if not after.is_bulk or (
            before.interval and any(_overlap(k, other) for k in left for other in right)
        ):
            return None
        gone += [replace(before, elements=left)] if left else []
        come += [replace(after, elements=right)] if right else []
    return Delta(tuple(gone), tuple(come))


def _overlap(one: Key, other: Key) -> bool:
    return all(a[0] <= b[1] and b[0] <= a[1] for a, b in zip(one, other, strict=True))


def _shape(named: NamedSet) -> tuple[object, ...]:
    return (named.name, named.types, named.interval, named.value)
