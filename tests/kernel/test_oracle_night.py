"""The long run of random sites and packets: seeded, made small, and able to fail."""

import re

import pytest

from tests.kernel.oracle_night import main

pytestmark = pytest.mark.kernel


def test_a_short_night_finds_no_difference(capfd):
    assert main(["--packets", "600", "--seed", "1"]) == 0
    said = capfd.readouterr().out
    packets, sites = re.search(
        r"([\d,]+) packets, (\d+) sites: 0 differ$", said, re.MULTILINE
    ).groups()
    assert int(packets.replace(",", "")) >= 600
    assert int(sites) >= 2


def test_a_wrong_compiler_is_found_and_its_case_made_small(capfd):
    mutant = "last port of a range forgotten"
    assert main(["--packets", "200000", "--seed", "1", "--mutant", mutant]) == 1
    number = int(re.search(r"^case (\d+):$", capfd.readouterr().out, re.MULTILINE)[1])
    assert main(["--case", str(number), "--mutant", mutant]) == 1
    small = capfd.readouterr().out
    assert small.count("Probe(") <= 2, small
    assert main(["--case", str(number)]) == 0, "the right compiler agrees on that case"
