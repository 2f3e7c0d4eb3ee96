"""What is read in a hurry is read as argparse reads it."""

from itertools import product
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecluse.cli import fast_args
from ecluse.cli.parser import build_parser

VERBS = ("status", "cut", "isolate")
WORDS = (
    *VERBS,
    "open",
    "--json",
    "--socket",
    "--reason",
    "--authorised-by",
    "--authorised_by",
    "--zone",
    "--level",
    "--verb",
    "--reas",
    "--json=",
    "--",
    "-h",
    "--help",
    "--version",
    "x",
    "",
    "-1",
    "a b",
    "--a b",
)
PARSER = build_parser()


def quickly(words):
    found = fast_args.parse_fast(words)
    return None if found is None else {"json": False, "socket": "before"} | found


def by_argparse(words):
    return vars(PARSER.parse_args(words, namespace=SimpleNamespace(json=False, socket="before")))


def test_every_short_command_line_that_it_reads_is_read_as_argparse_does():
    read = [
        words
        for length in range(5)
        for words in product(WORDS, repeat=length)
        if any(verb in words for verb in VERBS) and quickly(words) is not None
    ]
    assert len(read) > 300
    for words in read:
        assert quickly(words) == by_argparse(words), words


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=9))
def test_whatever_it_reads_is_read_as_argparse_does(words):
    read = quickly(words)
    assert read is None or read == by_argparse(words)


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "cut",
        "isolate",
        "--json status",
        "status --json",
        "--socket S cut --json",
        "cut --reason R",
        "isolate --authorised-by W --reason R --zone care --zone guests",
        "cut --socket S --reason R",
    ],
)
def test_the_command_lines_of_a_hurry_are_read(line):
    assert quickly(line.split()) == by_argparse(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--json",
        "open",
        "rollback",
        "level cut",
        "cut --help",
        "cut now",
        "cut --reason",
        "cut --reason -x",
        "cut --reason=R",
        "status --reason R",
        "--reason R cut",
        "cut --yes",
        "cut cut",
        "cut -- --json",
        "--version",
    ],
)
def test_all_else_is_left_to_argparse(line):
    assert fast_args.parse_fast(line.split()) is None
