"""A series of changes told from a single slip: alarmed, named, bounded, and over once."""

from datetime import UTC, datetime, timedelta

import pytest

from ecluse.controller.tasks.alarm_throttle import CHANGES, WINDOW, AlarmThrottle

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


MINUTE = 60.0


class Time:
    """Time that a test lets pass; the date may be set as well, by anybody."""

    def __init__(self) -> None:
        self.seconds, self.date = 1000.0, NOON

    def __call__(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> datetime:
        self.seconds += seconds
        self.date += timedelta(seconds=seconds)
        return self.date


@pytest.fixture
def passed() -> Time:
    return Time()


def test_a_cron_job_of_every_minute_is_a_fight_and_a_slip_is_none(passed):
    fight = AlarmThrottle(passed)
    for n in range(CHANGES - 1):
        fight.count_change(passed.pass_by(MINUTE if n else 0), "nft", n)
    assert not fight.lasting
    assert not fight.take_alarm()
    fight.count_change(passed.pass_by(MINUTE), "nft", 77)
    assert fight.lasting
    assert (
        "nft (pid 77 at last) changed the gate's table over and over: 5 times since 12:00"
        in fight.text()
    )
    slow = AlarmThrottle(passed)
    for n in range(20):
        slow.count_change(passed.pass_by(WINDOW / 4 + MINUTE), "nft", n)
    assert not slow.lasting


def test_a_day_of_fighting_is_told_in_some_thirty_lines(passed):
    fight = AlarmThrottle(passed)
    told = 0
    for n in range(24 * 60 * 6):
        fight.count_change(passed.pass_by(10), "nft", n)
        told += fight.take_alarm()
    assert 20 < told < 40


@pytest.mark.parametrize("hours", [-24, -1, 1, 24 * 400])
def test_whoever_sets_the_date_hides_neither_a_fight_nor_its_end_nor_a_first_tampering(
    passed, hours
):
    """RED before: a clock that was put back held the fight up for as long, and told no new
    tampering meanwhile.
    """
    fight = AlarmThrottle(passed)
    for n in range(CHANGES):
        fight.count_change(passed.date, "nft", n)
        passed.date += timedelta(hours=hours)
    assert fight.lasting
    assert fight.take_alarm()
    assert not fight.take_alarm()
    passed.pass_by(MINUTE)
    fight.count_change(passed.date, "nft", 9)
    assert fight.take_alarm(), "it is told again after its pause"
    assert fight.take_end() == ""
    passed.pass_by(WINDOW + 1)
    assert "nothing since" in fight.take_end()
    fight.count_change(passed.date, "nft", 1)
    assert not fight.lasting, "a first tampering again, told by itself"


def test_it_names_the_worst_and_remembers_a_bounded_number(passed):
    fight = AlarmThrottle(passed)
    for n in range(1000):
        fight.count_change(NOON, f"p{n % 200}", n, 3 if n % 200 == 7 else 1)
    assert fight.text().startswith("p7 (pid 807 at last), ")
    assert " and 47 more " in fight.text()
    fight.add_leaked(12)
    assert "about 12 packets" in fight.text()


def test_it_is_over_once_and_then_forgotten(passed):
    fight = AlarmThrottle(passed)
    for n in range(CHANGES):
        fight.count_change(NOON, "nft", n)
    passed.pass_by(WINDOW)
    assert fight.take_end() == ""
    passed.pass_by(MINUTE)
    assert "nothing since 12:00" in fight.take_end()
    assert fight.take_end() == ""
    fight.count_change(passed.pass_by(20 * MINUTE), "nft", 1)
    assert not fight.lasting
