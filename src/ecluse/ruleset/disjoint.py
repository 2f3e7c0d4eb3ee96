"""Make overlapping boxes disjoint.

The kernel refuses overlapping elements in a concatenated interval map. Where several boxes claim a
point, the first one in the order of the files owns it.
"""

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter

from ecluse.errors import EcluseError
from ecluse.ruleset.program import Interval, Key

Box = tuple[Key, str]
"""A key of intervals (all boxes of one call have as many) and the value that it stands for."""


EXTRA_STEPS, STEPS_FOR_EACH = 1_000_000, 10
"""For one map. Boxes that do not overlap take one or two for each field, so eight at most."""


class TangledError(EcluseError):
    """So many boxes overlap that they can't be taken apart in reasonable time.

    value: of one of them.
    """

    kind = "config"

    def __init__(self, value: str) -> None:
        super().__init__(
            f"too many entries overlap, '{value}' among them; nothing was changed",
            hint="run 'ecluse check', which names the place",
        )
        self.value = value


class _Steps:
    """What may still be spent on one map."""

    def __init__(self, left: int) -> None:
        self.left = left


def disjoint(boxes: Sequence[Box], extra_steps: int = EXTRA_STEPS) -> list[Box]:
    """Split boxes so that none overlap and each point keeps the value of its first box.

    n boxes of which few overlap cost about n log n steps.

    Args:
        boxes: First owner first; all keys have the same number of fields.
        extra_steps: Steps allowed beyond STEPS_FOR_EACH for each box.

    Raises:
        TangledError: It would take more steps.
    """
    return _disjoint(boxes, _Steps(extra_steps + STEPS_FOR_EACH * len(boxes)))


def _disjoint(boxes: Sequence[Box], steps: _Steps) -> list[Box]:
    """Sweep the first field from edge to edge.

    Between two edges, the active boxes form the same problem with one field less. Neighbours with
    equal results are joined again.
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
        steps.left -= len(active)
        if steps.left < 0:
            raise TangledError(boxes[max(active)][1])
        inner = _disjoint([(boxes[i][0][1:], boxes[i][1]) for i in sorted(active)], steps)
        if out and out[-1][0][1] == low - 1 and out[-1][1] == inner:
            out[-1] = ((out[-1][0][0], after - 1), inner)
        else:
            out.append(((low, after - 1), inner))
    result = [((interval, *rest), value) for interval, inner in out for rest, value in inner]
    return sorted(result, key=itemgetter(0))
