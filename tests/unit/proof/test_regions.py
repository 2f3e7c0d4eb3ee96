"""The box algebra, against counting every point, and against z3."""

import random
from itertools import product

import pytest
import z3

from ecluse.proof.regions import Space

WIDTHS = (3, 2, 4)
POINTS = list(product(*(range(1 << width) for width in WIDTHS)))


def interval(draw, width):
    low, high = sorted(draw.randrange(1 << width) for _ in range(2))
    return (low, low) if draw.random() < 0.4 else (low, high)


def drawn(draw, levels=(0, 1, 2)):
    return [
        tuple(interval(draw, WIDTHS[level]) for level in levels) for _ in range(draw.randrange(6))
    ]


def holds(boxes, point):
    return any(all(a <= x <= b for (a, b), x in zip(box, point, strict=True)) for box in boxes)


def points(space, region):
    return {p for p in POINTS if space.holds(region, dict(enumerate(p)))}


@pytest.mark.parametrize("seed", range(60))
def test_unions_are_their_points(seed):
    space, draw = Space(WIDTHS), random.Random(seed)
    one, other = drawn(draw), drawn(draw)
    a, b = space.boxes((0, 1, 2), one), space.boxes((0, 1, 2), other)
    in_a, in_b = ({p for p in POINTS if holds(x, p)} for x in (one, other))
    assert points(space, a) == in_a
    assert points(space, space.both(a, b)) == in_a & in_b
    assert points(space, space.either(a, b)) == in_a | in_b
    assert points(space, space.without(a, b)) == in_a - in_b
    assert (a is b) == (in_a == in_b)
    first = space.smallest(space.without(a, b))
    assert (first is None) == (not in_a - in_b)
    if first is not None:
        assert tuple(first.get(level, 0) for level in range(3)) in in_a - in_b


@pytest.mark.parametrize("seed", range(40))
def test_z3_agrees(seed):
    """The second judge: are the sets equal, and is what we name as a difference one?"""
    draw = random.Random(1000 + seed)
    one = drawn(draw)
    # Half of the time the same set in other boxes, so that both answers are seen.
    other = [*reversed(one), *one[:1]] if seed % 2 else drawn(draw)
    space = Space(WIDTHS)
    a, b = space.boxes((0, 1, 2), one), space.boxes((0, 1, 2), other)
    fields = [z3.BitVec(f"f{n}", width) for n, width in enumerate(WIDTHS)]

    def within(box):
        return z3.And(
            [
                z3.And(z3.UGE(f, low), z3.ULE(f, high))
                for f, (low, high) in zip(fields, box, strict=True)
            ]
        )

    def said(boxes):
        return z3.Or([within(box) for box in boxes])

    solver = z3.Solver()
    solver.add(said(one) != said(other))
    assert (solver.check() == z3.unsat) == (a is b)
    if a is not b:
        region = space.without(a, b)
        region = region if region is not space.none else space.without(b, a)
        at = space.smallest(region)
        solver.add([f == at.get(n, 0) for n, f in enumerate(fields)])
        assert solver.check() == z3.sat


def test_equal_sets_are_one_object_whatever_they_are_made_of():
    space = Space((32, 16))
    halves = [((0, 99), (80, 80)), ((100, 199), (80, 80))]
    whole = space.boxes((0, 1), [((0, 199), (80, 80))])
    assert space.boxes((0, 1), halves) is whole
    assert space.either(*(space.boxes((0, 1), [half]) for half in halves)) is whole
    assert space.without(space.all, space.without(space.all, whole)) is whole
    assert space.boxes((0,), [((0, (1 << 32) - 1),)]) is space.all


def test_few_intervals_beside_many():
    """A long stretch beside one interval is taken as it is: the same as value by value."""
    space = Space((16, 4))
    many = [((n, n), (n % 3, n % 3)) for n in range(0, 2000, 2)]
    a = space.boxes((0, 1), many)
    b = space.boxes((0,), [((501, 1003),)])
    kept = [box for box in many if 501 <= box[0][0] <= 1003]
    assert space.both(a, b) is space.boxes((0, 1), kept) is space.both(b, a)
    assert space.without(a, b) is space.boxes((0, 1), [box for box in many if box not in kept])


def test_whether_a_field_is_asked():
    space = Space(WIDTHS)
    region = space.boxes((0, 2), [((1, 2), (3, 3))])
    assert [space.asks(region, level) for level in range(3)] == [True, False, True]
    assert not space.asks(space.all, 0)


def test_paths_are_disjoint_boxes_of_all_of_it():
    space, boxes = Space(WIDTHS), [((1, 3), (0, 3), (2, 9)), ((3, 7), (1, 1), (0, 15))]
    region = space.boxes((0, 1, 2), boxes)
    found = [
        p
        for path in space.paths(region)
        for p in POINTS
        if all(low <= p[level] <= high for level, (low, high) in path.items())
    ]
    assert len(found) == len(set(found))
    assert set(found) == {p for p in POINTS if holds(boxes, p)}
