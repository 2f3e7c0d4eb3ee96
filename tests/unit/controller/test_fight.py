"""Over and over: alarmed, named, bounded, and over one day."""

from datetime import UTC, datetime, timedelta

import pytest

from ecluse.controller.tasks import tamper
from ecluse.controller.tasks.alarm_throttle import CHANGES, WINDOW, AlarmThrottle
from ecluse.ruleset import switch
from ecluse.ruleset.table_names import BASE_CHAINS
from tests.unit.controller.machine import Machine
from tests.unit.controller.test_machine import CUT, simple

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


def test_a_fight_is_in_status_in_the_events_and_in_few_audit_lines(monkeypatch, passed):
    monkeypatch.setattr(tamper, "_PAUSE", 0.001)
    machine = Machine(simple())
    machine.start()
    machine.controller.parts.reconciler._throttle = AlarmThrottle(passed)
    machine.set("cut")
    for n in range(30):
        machine.firewall.tamper("flush ruleset", "firewall-cron", 1000 + n)
        machine.heal()
        assert machine.kernel() == CUT
    (warning,) = (text for text in machine.status().warnings if "over and over" in text)
    assert "firewall-cron (pid 1029 at last)" in warning
    lines = [record for record in machine.audit.records if "firewall-cron" in record.what]
    assert len(lines) == CHANGES
    assert lines[-1].event == "fight"
    assert sum(event.kind == "fight" for event in machine.events) == 1
    passed.pass_by(601)

    async def rest():
        await machine.controller.parts.reconciler.end_series()

    machine.run(rest())
    machine.settle()
    assert not any("over and over" in text for text in machine.status().warnings)
    assert machine.audit.records[-1].what.endswith("it is over")
    machine.close()


def test_a_guard_stands_before_anything_is_asked_and_goes_with_the_healing():
    machine = Machine(simple())
    machine.start()
    machine.set("cut")
    seen = []
    survey = machine.firewall.objects

    async def objects():
        seen.append(machine.firewall.table and dict(machine.firewall.table.policies))
        return await survey()

    machine.firewall.objects = objects
    machine.firewall.tamper("flush ruleset")
    machine.settle()
    assert seen[0] == dict.fromkeys(BASE_CHAINS, "drop")
    assert machine.kernel() == CUT
    assert not any("guard" in chain for chain in machine.run(machine.firewall.chains()))
    machine.set("open")
    machine.firewall.tamper("flush ruleset")
    assert machine.firewall.table is None, "at open nothing is shut"
    machine.settle()
    machine.close()


def test_things_of_others_in_our_table_go_even_if_they_cannot_be_named_in_a_text():
    machine = Machine(simple())
    machine.start()
    machine.set("cut")
    for name in ("theirs", "x } flush"):
        machine.firewall.table.chains[name] = ["accept"]
        machine.firewall.tamper("flush chain inet ecluse forward")
        machine.settle()
        assert machine.kernel() == CUT
        assert name not in machine.run(machine.firewall.chains())
    machine.close()


def test_what_others_put_into_our_table_is_taken_out_by_kind():
    held = {
        "chain": ("forward", "k0_guard", "k2_open", "theirs"),
        "map": ("k2_from", "theirs_map"),
        "set": ("refused4", "theirs_set"),
        "counter": ("refused_out", "svc_lab", "svc_old", "theirs_counter"),
        "ct helper": ("ftp",),
        "flowtable": ("fast",),
    }
    text = switch.removal_text(held, {2}, {"svc_lab"})
    assert [line.replace(" inet ecluse", "") for line in text.splitlines()] == [
        "flush chain k0_guard",
        "flush chain theirs",
        "delete map theirs_map",
        "delete chain k0_guard",
        "delete chain theirs",
        "delete set theirs_set",
        "delete counter svc_old",
        "delete counter theirs_counter",
        "delete ct helper ftp",
        "delete flowtable fast",
    ]
    assert switch.removal_text({"chain": ("forward", "k2_open")}, {2}, ()) == ""
    for name in ("x } ; flush ruleset", "", "é"):
        with pytest.raises(ValueError, match="no name that nft can read"):
            switch.removal_text({"chain": (name,)}, {2}, ())
