"""Boxes made disjoint: nothing overlaps, every point keeps its first owner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecluse.ruleset.disjoint import TangledError, disjoint

interval = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda t: (min(t), max(t)))
boxes = st.lists(
    st.tuples(st.tuples(interval, interval, interval), st.sampled_from("abc")), max_size=8
)


def holds(key, point):
    return all(lo <= x <= hi for (lo, hi), x in zip(key, point, strict=True))


@given(boxes, st.tuples(*[st.integers(0, 12)] * 3))
def test_every_point_keeps_its_first_owner_and_only_one(given_boxes, point):
    owners = [value for key, value in given_boxes if holds(key, point)]
    after = [value for key, value in disjoint(given_boxes) if holds(key, point)]
    assert after == owners[:1]


@given(boxes)
def test_deterministic_sorted_and_stable(given_boxes):
    once = disjoint(given_boxes)
    assert once == sorted(once, key=lambda box: box[0])
    assert disjoint(once) == once


def test_many_nested_prefixes_stay_few():
    nested = [(((i * 256, i * 256 + 255), (1, 100)), "a") for i in range(2000)]
    nested += [(((0, 2000 * 256), (50, 60)), "b")]
    assert len(disjoint(nested)) <= 3


def test_first_come_first_served():
    assert disjoint([(((0, 9),), "a"), (((5, 19),), "b")]) == [(((0, 9),), "a"), (((10, 19),), "b")]


def test_what_would_take_hours_is_given_up_and_a_culprit_is_named():
    """Every box meets every other in both fields: a million slices of up to 1000 boxes each."""
    tangle = [(((i, 30_000 + i), (i, 30_000 + i)), f"svc_s{i}") for i in range(20_000)]
    with pytest.raises(TangledError) as caught:
        disjoint(tangle, extra_steps=1000)
    assert caught.value.value in {value for _, value in tangle}
    assert disjoint(tangle[:5], extra_steps=1000)
