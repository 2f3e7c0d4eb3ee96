"""Make overlapping boxes disjoint: the kernel refuses overlapping elements in a concatenated interval map.

One rule decides who owns what several claim: first come, first served, in the order of the files.
"""

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter

from ecluse.ruleset.program import Interval, Key

Box = tuple[Key, str]
"""A key of intervals (all boxes of one call have as many) and the value that it stands for."""


def disjoint(boxes: Sequence[Box]) -> list[Box]:
    """Split boxes so that none overlap and every point keeps the value of the first box that held it.

    Sweeps the first field from edge to edge; between two edges the boxes that are there form the same
    problem with one field less. Neighbours that came out alike are joined again. n boxes of which few
    overlap cost about n log n.
    """
    if not boxes:
        return []
    if not boxes[0][0]:
        return [((), boxes[0][1])]
    starts = sorted(range(len(boxes)), key=lambda i: boxes[i][0][0][0])
    edges = sorted({edge for (first, *_), _ in boxes for edge in (first[0], first[1] + 1)})
    active: list[int] = []
    out: list[tuple[Interval, list[Box]]] = []
    next_start = 0
    for low, after in pairwise(edges):
        active = [i for i in active if boxes[i][0][0][1] >= low]
        while next_start < len(starts) and boxes[starts[next_start]][0][0][0] == low:
            active.append(starts[next_start])
            next_start += 1
        if not active:
            continue
        inner = disjoint([(boxes[i][0][1:], boxes[i][1]) for i in sorted(active)])
        if out and out[-1][0][1] == low - 1 and out[-1][1] == inner:
            out[-1] = ((out[-1][0][0], after - 1), inner)
        else:
            out.append(((low, after - 1), inner))
    result = [((interval, *rest), value) for interval, inner in out for rest, value in inner]
    return sorted(result, key=itemgetter(0))
