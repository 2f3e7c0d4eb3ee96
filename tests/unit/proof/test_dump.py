"""What is asked of the kernel: kernel tests read real tables (tests/kernel/test_proof.py)."""

import pytest

from ecluse.kernel.netlink import DumpInterruptedError
from ecluse.proof.dump import _dump
from tests.unit.proof.worlds import number, text


class Kernel:
    """Answers as the kernel does; its generation changes as often as told."""

    def __init__(self, generations):
        self.generations = iter(generations)

    def request(self, kind, body):
        return bytes(4) + (number(1, next(self.generations)) if kind & 0xFF == 16 else number(2, 0))

    def dump(self, kind, body):
        answers = {
            4: [text(1, "other") + text(3, "forward"), text(1, "ecluse") + text(3, "input")],
            7: [text(1, "ecluse") + text(2, "input")],
            10: [text(1, "ecluse") + text(2, "s")],
            13: [text(1, "ecluse") + text(2, "s")],
        }
        return [bytes(4) + answer for answer in answers[kind & 0xFF]]


def test_only_the_table_that_is_asked_for():
    found = _dump(Kernel([1, 1]), "ecluse", 1)
    assert [chain[3] for chain in found.chains] == [b"input\0"]
    assert list(found.elements) == ["s"]


def test_a_table_that_changed_meanwhile_is_no_answer():
    with pytest.raises(DumpInterruptedError):
        _dump(Kernel([1, 2]), "ecluse", 1)
