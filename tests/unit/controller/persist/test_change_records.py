"""A disk that takes nothing for long: what waits is bounded, counted, and in order."""

from collections import Counter
from dataclasses import replace
from ipaddress import ip_network

import pytest

from ecluse.controller.persist import change_records
from ecluse.controller.persist.writer_thread import MOST_LABELS
from ecluse.errors import StateError
from ecluse.policy import Policy
from ecluse.records import Actor
from ecluse.ruleset import switch
from tests.unit.controller.machine import Machine, allowlist, command
from tests.unit.ruleset.policies import SITE

MOST = 50


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(change_records, "MOST_LINES", MOST)
    policy: Policy = allowlist("laboratory")
    machine = Machine(policy)
    machine.start()
    yield machine
    machine.close()


def test_closings_alone_may_use_the_room_that_is_kept_for_lines(machine):
    machine.set("cut")
    machine.set("open")
    machine.firewall.tamper("delete table inet ecluse")
    machine.settle()
    machine.set("isolate")
    events = {record.event for record in machine.audit.records}
    assert {"start", "level", "intent", "tamper"} <= events
    assert [dict(record.levels)["care"] for record in machine.audit.reserved] == ["cut", "isolate"]


def test_the_line_of_a_closing_passes_those_that_have_no_room_and_stays_the_newest_to_tell_levels(
    machine,
):
    append, full = machine.audit.append, [True]

    def on_a_full_disk(record, *, use_reserve=False):
        if full[0] and not use_reserve:
            raise StateError("the disk is full")
        append(record, use_reserve=use_reserve)

    machine.audit.append = on_a_full_disk
    machine.firewall.tamper("delete table inet ecluse")
    machine.settle()
    change = machine.set("cut")
    assert machine.audit.records[-1].event == "level"
    assert machine.audit.records[-1].levels == change.generation.levels
    full[0] = False
    machine.set("isolate", "care")
    late = [record for record in machine.audit.records if record.event == "tamper"]
    assert [record.levels for record in late] == [None]


STRANGER = Actor(65_534, "nobody", 1, "curl")


def flood(machine: Machine, times: int) -> None:
    async def attempts() -> None:
        for number in range(times):
            await machine.controller.forbidden(STRANGER, f"attempt {number}")

    machine.run(attempts())


def test_a_flood_of_attempts_on_a_full_disk_is_kept_to_a_number_and_counted(machine):
    machine.audit.fail["append"] = StateError("the disk is full")
    recorder = machine.controller._records.queue
    flood(machine, 3 * MOST)
    assert recorder.lines == MOST + 1
    change = machine.set("cut")
    assert any("audit line 'level'" in words or "more" in words for words in change.unrecorded)
    assert len(change.unrecorded) <= MOST_LABELS + 1
    flood(machine, MOST)
    assert recorder.lines == MOST + 2, "the line of a command is kept all the same"
    assert len(machine.status().warnings[0]) < 2000
    del machine.audit.fail["append"]
    flood(machine, 1)
    assert machine.status().recorded
    events = Counter(record.event for record in machine.audit.records)
    assert events["forbidden"] == MOST
    assert events["level"] == 1
    (left_out,) = [record.what for record in machine.audit.records if record.event == "left-out"]
    assert f"{3 * MOST + 1} lines could not be kept ({3 * MOST + 1} of 'forbidden')" in left_out
    assert not machine.controller._records._left_out
    flood(machine, 3)
    events = Counter(record.event for record in machine.audit.records)
    assert (events["forbidden"], events["left-out"]) == (MOST + 3, 1), "afterwards all is as before"


def test_even_commands_are_bounded(machine):
    machine.audit.fail["append"] = StateError("the disk is full")
    for _ in range(3 * MOST):
        machine.run(
            machine.controller.set_level("cut", None, command(reason="again", actor=STRANGER))
        )
    assert machine.controller._records.queue.lines == 2 * MOST + 1


def test_the_ruleset_of_last_resort_is_made_once_for_an_allowlist(machine, monkeypatch):
    really, made = switch.closed_text, []
    monkeypatch.setattr(switch, "closed_text", lambda *given: made.append(given) or really(*given))
    for level in ("cut", "open", "isolate"):
        machine.set(level)
    assert not made
    network = ip_network("192.0.2.0/24")
    roomier = replace(SITE, lifeline=replace(SITE.lifeline, management_networks=(network,)))
    machine.reload(replace(allowlist(), site=roomier))
    assert len(made) == 1
    assert "192.0.2.0-192.0.2.255" in machine.state.closed
