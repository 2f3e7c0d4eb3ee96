"""Times, counts and levels as text."""

from datetime import UTC, datetime, timedelta

import pytest

from ecluse.cli import format as words

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
        (timedelta(minutes=3), "3 min"),
        (12.9, "12 s"),
    ],
)
def test_a_duration_has_one_unit_that_fits(length, text):
    assert words.duration(length) == text


def test_times_that_are_none_or_no_time_are_a_dash():
    for iso in (None, "", "yesterday"):
        assert words.local_time(iso) == words.time_ago(iso) == "-"
    assert words.time_ago("2026-11-23T11:57:00Z", NOW) == "3 min ago"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_500_000, "2 MB"), (2e15, "2000.0 TB")],
)
def test_sizes(number, text):
    assert words.byte_size(number) == text


def test_counts():
    assert words.count_of(1, "connection") == "1 connection"
    assert words.count_of(1204, "connection") == "1,204 connections"
    assert words.count_of(2, "address", "addresses") == "2 addresses"


def test_levels():
    assert words.levels_summary({"care": "cut", "guests": "cut"}) == "cut"
    mixed = {"care": "cut", "guests": "open", "lab": "cut"}
    assert words.levels_summary(mixed) == "care+lab cut, guests open"
    assert words.zones_by_level(mixed) == [("cut", ["care", "lab"]), ("open", ["guests"])]
    assert (words.join_names(["a", "b"]), words.join_names([])) == ("a, b", "none")


def test_the_login_behind_an_actor_is_named_where_it_is_another():
    assert words.actor_name({"user": "root", "uid": 0, "login": 1000}) == "root (login uid 1000)"
    assert words.actor_name({"user": "root", "uid": 0, "login": 0}) == "root"
    assert words.actor_name({"user": "", "uid": 7}) == "7"
