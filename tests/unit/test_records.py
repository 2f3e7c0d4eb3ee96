"""How long an address of a name is kept, by what is known of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ecluse.records import KEEP, LONGEST_TTL, KnownAddress

SEEN = datetime(2031, 1, 1, tzinfo=UTC)
LAST_GOOD = timedelta(days=30)
GIVEN = KnownAddress("203.0.113.1", SEEN, SEEN + timedelta(minutes=5), ttl=300)
LEFT = replace(GIVEN, left=SEEN)


def test_an_address_that_resolvers_still_give_outlives_their_silence():
    assert GIVEN.kept_until(LAST_GOOD) == SEEN + LAST_GOOD


def test_an_address_that_left_is_kept_half_an_hour_at_least():
    assert LEFT.kept_until(LAST_GOOD) == SEEN + KEEP


def test_use_keeps_an_address_that_left():
    used = SEEN + timedelta(hours=2)
    assert replace(LEFT, used=used).kept_until(LAST_GOOD) == used + KEEP
    assert replace(LEFT, used=SEEN - KEEP).kept_until(LAST_GOOD) == SEEN + KEEP


def test_caches_may_hold_an_address_that_left_for_its_ttl_within_a_bound():
    hours = replace(LEFT, ttl=7200)
    assert hours.kept_until(LAST_GOOD) == SEEN + timedelta(hours=2)
    assert replace(LEFT, ttl=10**7).kept_until(LAST_GOOD) == SEEN + LONGEST_TTL


def test_without_a_last_good_time_the_ttl_and_the_half_hour_decide():
    assert GIVEN.kept_until(timedelta()) == SEEN + KEEP
    assert replace(GIVEN, ttl=7200).kept_until(timedelta()) == SEEN + timedelta(hours=2)
