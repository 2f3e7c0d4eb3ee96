"""The difference of two ruleset texts, in a time that grows with their length alone. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator


def difference(old: str, new: str) -> list[str]:
    """Give the lines that go (`-`) and those that come (`+`), below the names of the two texts.

    They come part by part. A part is a chain, a set, a map or a line of its own. difflib finds the
    smallest difference, which takes minutes for 20,000 elements; here a line stays if the other
    part has it, unless the lines that stay would have changed their order.
    """
    before, after = _parts(old), _parts(new)
    lines: list[str] = []
    for name in {**before, **after}:
        lines += _of_part(before.get(name, []), after.get(name, []))
    return ["--- live", "+++ planned", *lines] if lines else []


def _parts(text: str) -> dict[str, list[str]]:
    """Split a text at lines that begin with one tab: the head of a chain, set or map.

    Each part is known by its head.
    """
    parts: dict[str, list[str]] = {"": []}
    name = ""
    for line in text.splitlines():
        if line.startswith("\t") and not line.startswith(("\t\t", "\t}")):
            name = line
        elif not line.startswith("\t"):
            name = ""
        parts.setdefault(name, []).append(line)
    return parts


def _of_part(old: list[str], new: list[str]) -> Iterator[str]:
    if old == new:
        return
    both = Counter(old) & Counter(new)
    stay_old, stay_new = list(_taken(old, both)), list(_taken(new, both))
    if [line for line, stays in zip(old, stay_old, strict=True) if stays] != [
        line for line, stays in zip(new, stay_new, strict=True) if stays
    ]:
        stay_old, stay_new = [False] * len(old), [False] * len(new)
    for sign, lines, stay in (("-", old, stay_old), ("+", new, stay_new)):
        for line, stays in zip(lines, stay, strict=True):
            if not stays:
                yield sign + line.replace("\t", "  ")


def _taken(lines: Iterable[str], both: Counter[str]) -> Iterator[bool]:
    """Say of each line whether the other part has one for it."""
    left = Counter(both)
    for line in lines:
        left[line] -= 1
        yield left[line] >= 0
