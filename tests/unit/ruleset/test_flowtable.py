"""The flowtable's text, and when one is wanted."""

from dataclasses import replace

import pytest

from ecluse.policy import FastPath
from ecluse.ruleset import flowtable, switch
from tests.unit.controller.machine import CUT, OPEN, simple


def fast():
    policy = simple()
    return replace(policy, site=replace(policy.site, fast_path=FastPath.FLOWTABLE))


@pytest.mark.parametrize(
    ("policy", "levels", "wanted"),
    [
        (fast(), CUT, True),
        (fast(), {**OPEN, "guests": "isolate"}, True),
        (fast(), OPEN, False),
        (simple(), CUT, False),
    ],
)
def test_it_is_wanted_where_the_site_says_so_and_some_zone_is_not_open(policy, levels, wanted):
    assert flowtable.is_wanted(policy, levels) is wanted


def test_its_text_replaces_the_one_before_and_takes_only_flows_with_two_ends():
    text = flowtable.flowtable_text(["care0", "wan0"])
    assert text.startswith(flowtable.REMOVAL)
    assert 'devices = { "care0", "wan0" }' in text
    assert "ct state established flow add @kept" in text


def test_every_text_that_takes_the_table_away_takes_the_flowtable_too():
    assert switch.NEW_TABLE.startswith(flowtable.REMOVAL)
