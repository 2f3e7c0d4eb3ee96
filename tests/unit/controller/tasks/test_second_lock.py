"""The second lock: after a closing, before an opening, and no reason for either to fail."""

import asyncio
import threading
from dataclasses import replace

import pytest

from ecluse.controller.tasks import second_lock
from ecluse.errors import KernelError, StateError
from ecluse.exit_ports import DroppedRow, ExitCounts
from ecluse.policy import SecondLock
from ecluse.ports import CounterValue, KernelChange
from tests.unit.controller.machine import Machine, command, simple


def site(setting: SecondLock):
    policy = simple()
    return replace(policy, site=replace(policy.site, second_lock=setting))


@pytest.fixture
def machine(request, monkeypatch):
    monkeypatch.setattr(second_lock, "_AFTER_ANSWER", 0)
    made = Machine(site(getattr(request, "param", SecondLock.ISOLATE)))
    made.start()
    yield made
    made.close()


def later(machine, seconds=0.1):
    machine.run(asyncio.sleep(seconds))
    return machine.exit_table.lock


def state(machine):
    return machine.status().second_lock


def test_as_shipped_it_stands_at_isolate_alone(machine):
    assert later(machine) is None
    machine.set("cut")
    assert later(machine) is None
    assert not state(machine).wanted
    machine.set("isolate")
    lock = later(machine)
    assert [one.name for one in lock.devices] == ["wan0"]
    assert state(machine).stands
    assert "egress" in machine.state.boot_lock


def test_it_goes_before_the_gate_opens(machine):
    machine.set("isolate")
    later(machine)
    seen = []
    switch = machine.firewall.switch

    async def watched(position):
        seen.append((machine.exit_table.lock, machine.state.boot_lock))
        return await switch(position)

    machine.firewall.switch = watched
    machine.set("open")
    assert seen == [(None, "")]


def test_a_lock_that_can_not_go_refuses_the_opening_and_the_gate_stays(machine):
    machine.set("isolate")
    later(machine)
    machine.exit_table.fail = "busy"
    assert isinstance(machine.set("open"), KernelError)
    assert set(machine.controller.parts.live.current.levels.values()) == {"isolate"}
    machine.exit_table.fail = ""
    assert later(machine) is not None


def test_a_refused_lock_refuses_no_closing_and_is_said(machine):
    machine.exit_table.fail = "no such device"
    assert machine.set("isolate").verified
    assert later(machine) is None
    found = state(machine)
    assert (found.wanted, found.stands, found.why) == (True, False, "no such device")
    assert machine.controller.parts.alerts.is_raised("second-lock-missing")
    machine.exit_table.fail = ""
    machine.controller.parts.second_lock.follow()
    assert later(machine) is not None
    assert not machine.controller.parts.alerts.is_raised("second-lock-missing")


def test_one_that_somebody_took_away_is_put_back_and_told(machine):
    machine.set("isolate")
    lock = later(machine)
    machine.exit_table.lock = None
    machine.controller.parts.second_lock.follow()
    assert later(machine) == lock
    assert any("second lock was put back" in one.message for one in machine.events)


def test_after_a_change_of_links_it_is_made_again_though_it_looks_the_same(machine):
    machine.set("isolate")
    lock = later(machine)
    before = len(machine.exit_table.applied)
    machine.controller.parts.second_lock.follow_links()
    assert later(machine) == lock
    assert machine.exit_table.applied[before:] == [lock]


def test_what_it_dropped_is_an_alert_with_its_sender(machine):
    machine.set("isolate")
    none, some = CounterValue(0, 0), CounterValue(2, 120)
    machine.exit_table.counts = (ExitCounts("wan0", none, none, none, some),)
    machine.exit_table.dropped = (DroppedRow("02:00:00:00:00:09", ethertype=0x88CC, packets=2),)
    later(machine)
    machine.controller.parts.second_lock.follow()
    later(machine)
    (alert,) = (one for one in machine.status().alerts if one.code == "way-past-gate")
    assert "ethertype 0x88cc by 02:00:00:00:00:09" in alert.text
    assert any(one.event == "exit" for one in machine.audit.records)
    machine.set("open")
    assert not machine.controller.parts.alerts.is_raised("way-past-gate")


@pytest.mark.parametrize("machine", [SecondLock.CUT], indirect=True)
def test_at_cut_where_the_site_asks_a_wider_list_comes_first(machine):
    machine.set("cut")
    before = later(machine)
    assert before is not None
    machine.set("isolate")
    narrow = later(machine)
    assert narrow.ends4.singles < before.ends4.singles or narrow.ends4 != before.ends4
    applied = len(machine.exit_table.applied)
    machine.set("cut")
    first = machine.exit_table.applied[applied]
    assert first.ends4.singles >= before.ends4.singles
    assert later(machine) == before


@pytest.mark.parametrize("machine", [SecondLock.OFF], indirect=True)
def test_switched_off_it_never_stands(machine):
    machine.set("isolate")
    assert later(machine) is None
    assert "switched off" in state(machine).why


def test_a_disk_that_hangs_holds_up_no_closing_behind_an_opening(machine):
    machine.set("isolate")
    later(machine)
    over = threading.Event()
    write = machine.state.write_boot_lock

    def hang(text):
        over.wait(15)
        write(text)

    machine.state.write_boot_lock = hang

    async def both():
        opening = asyncio.ensure_future(
            machine.controller.set_level("cut", None, command(reason="opens"))
        )
        await asyncio.sleep(0.1)
        async with asyncio.timeout(3):
            closed = await machine.controller.set_level("isolate", None, command())
        over.set()
        with pytest.raises(StateError):
            await opening
        return closed

    try:
        assert machine.run(both()).verified
    finally:
        over.set()
    assert later(machine) is not None


def test_a_lock_that_was_read_while_the_gate_opened_is_not_stored_for_the_boot(machine):
    machine.set("isolate")
    later(machine)
    read, reading, go_on = machine.exit_table.read_table, asyncio.Event(), asyncio.Event()

    async def slow(lock):
        found = await read(lock)
        reading.set()
        await go_on.wait()
        return found

    async def opened():
        machine.exit_table.read_table = slow
        machine.controller.parts.second_lock.follow()
        await reading.wait()
        machine.exit_table.read_table = read
        await machine.controller.set_level("open", None, command())
        written = []
        machine.state.write_boot_lock = written.append
        go_on.set()
        await asyncio.sleep(0.2)
        return written

    assert not any(machine.run(opened()))


def test_who_took_it_away_is_heard_at_once_named_and_recorded(machine):
    machine.set("isolate")
    lock = later(machine)
    machine.exit_table.lock = None
    change = KernelChange(
        "nft", 77, ours=False, touched=False, what="", generation=1, second_lock="table deleted"
    )
    machine.controller.parts.reconciler._take(change)
    assert later(machine) == lock
    (told,) = (one for one in machine.events if "second lock was put back" in one.message)
    assert "nft (pid 77): table deleted" in told.message
    assert any(one.event == "tamper" for one in machine.audit.records)


def test_a_change_of_the_daemons_own_and_one_that_undid_itself_accuse_nobody(machine):
    machine.set("isolate")
    later(machine)
    for ours in (True, False):
        change = KernelChange(
            "nft", 77, ours=ours, touched=False, what="", generation=1, second_lock="table added"
        )
        machine.controller.parts.reconciler._take(change)
        later(machine)
    machine.exit_table.lock = None
    machine.controller.parts.second_lock.follow()
    later(machine)
    assert not any("pid 77" in one.message for one in machine.events)
