"""Errors in words for a person."""

import subprocess
import sys
from pathlib import Path

import pytest

from ecluse import errors
from ecluse.errors import ConfigError, EcluseError
from ecluse.faults import Fault

KINDS = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, EcluseError) and one is not ConfigError
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_what_failed_and_what_to_do(kind):
    error = kind("it failed", retry=True, hint="look there")
    assert (str(error), error.message, error.retry, error.hint) == (
        "it failed", "it failed", True, "look there",
    )  # fmt: skip


def test_every_error_has_a_kind_of_its_own():
    kinds = [kind.kind for kind in [*KINDS, ConfigError]]
    assert len(set(kinds)) == len(kinds)


def test_faults_are_listed_by_their_place():
    error = ConfigError((Fault("b.yaml", 1, 1, "second"), Fault("a.yaml", 3, 7, "first", "x")))
    assert error.message.splitlines() == [
        "2 faults in the site's files:",
        "a.yaml:3:7: first, expected x",
        "b.yaml:1:1: second",
    ]
    assert ConfigError((Fault("a.yaml", 0, 0, "no"),)).message.startswith("1 fault in")
    assert "ecluse check" in error.hint


def test_it_costs_a_command_line_no_import():
    script = (
        "import sys; before = set(sys.modules)\nimport ecluse.errors\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(source)!r})\n{script}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["ecluse", "ecluse.errors"]
