"""A fault is a value, ordered by its place."""

import copy
import pickle
from itertools import pairwise

import pytest

from ecluse.faults import Fault

FAULT = Fault("a.yaml", 3, 7, "no port", "1 to 65535")


def test_faults_are_equal_by_value_and_only_to_faults():
    assert Fault("a.yaml", 3, 7, "no port", "1 to 65535") == FAULT
    assert len({FAULT, Fault("a.yaml", 3, 7, "no port", "1 to 65535")}) == 1
    for other in (
        Fault("b.yaml", 3, 7, "no port", "1 to 65535"),
        Fault("a.yaml", 4, 7, "no port", "1 to 65535"),
        Fault("a.yaml", 3, 8, "no port", "1 to 65535"),
        Fault("a.yaml", 3, 7, "a port", "1 to 65535"),
        Fault("a.yaml", 3, 7, "no port"),
        ("a.yaml", 3, 7, "no port", "1 to 65535"),
        "a.yaml",
        None,
    ):
        assert other != FAULT


def test_faults_stand_in_the_order_of_their_places():
    ordered = [
        Fault("a", 0, 0, "z"),
        Fault("a", 2, 9, "z"),
        Fault("a", 10, 1, "b"),
        Fault("a", 10, 1, "b", "c"),
        Fault("b", 1, 1, "a"),
    ]
    backwards = ordered[::-1]
    assert sorted(backwards) == ordered
    for one, next_one in pairwise(ordered):
        assert one < next_one
        assert one <= next_one
        assert next_one > one
        assert next_one >= one
    with pytest.raises(TypeError):
        _ = FAULT < ("a.yaml",)


@pytest.mark.parametrize("name", ["file", "line", "column", "wrong", "expected"])
def test_a_fault_does_not_change(name):
    with pytest.raises(AttributeError):
        setattr(FAULT, name, "other")
    with pytest.raises(AttributeError):
        delattr(FAULT, name)
    assert Fault("a.yaml", 3, 7, "no port", "1 to 65535") == FAULT


def test_a_fault_is_copied_and_pickled():
    assert copy.deepcopy(FAULT) == FAULT == copy.copy(FAULT)
    assert pickle.loads(pickle.dumps(FAULT)) == FAULT
    assert repr(FAULT).startswith("Fault(file='a.yaml', line=3, ")


def test_another_fault_at_the_same_place():
    assert FAULT.here("a word") == Fault("a.yaml", 3, 7, "a word")
    assert str(FAULT.here("a word", "a number")) == "a.yaml:3:7: a word, expected a number"
