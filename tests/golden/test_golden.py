"""The compiler's text, byte for byte, against what was read and accepted."""

import pytest

from ecluse.ruleset.program_text import render
from ecluse.ruleset.switch import BootText
from tests.golden.cases import cases, compiled, text


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_text_is_as_accepted(case):
    assert text(case) == (case / "expected.nft").read_text()


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_slot_changes_names_alone(case):
    _, one = compiled(case, 1)
    _, other = compiled(case, 42)
    assert render(other).replace("k42_", "k1_") == render(one)
    assert BootText(one).digest(one) == BootText(other).digest(other)


def test_there_are_cases():
    assert len(cases()) >= 9
