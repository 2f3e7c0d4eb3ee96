"""The second lock: after a closing, before an opening, and no reason for either to fail."""

import asyncio
import threading
from dataclasses import replace

import pytest

from ecluse.controller.tasks import links, second_lock
from ecluse.errors import KernelError, StateError
from ecluse.exit_ports import DroppedRow, ExitCounts
from ecluse.host_reading import Device, HostReading
from ecluse.policy import SecondLock
from ecluse.ports import CounterValue, KernelChange
from ecluse.records import Action
from tests.unit.controller.machine import Machine, allowlist, command, simple


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


def test_it_waits_longer_for_the_links_than_an_answer_does(machine, monkeypatch):
    monkeypatch.setattr(links, "_LINKS_SECONDS", 0.001)
    read = machine.links.read_links

    async def slowly():
        await asyncio.sleep(0.05)
        return await read()

    monkeypatch.setattr(machine.links, "read_links", slowly)
    machine.set("isolate")
    assert later(machine, 0.5), "the machine is starved, and the lock stands all the same"


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
    again = later(machine)
    assert again.devices == lock.devices
    assert again.ends4.series != lock.ends4.series, "no set that somebody may have changed stays"
    assert machine.exit_table.wholes[-1]
    assert any("second lock was put back" in one.message for one in machine.events)


@pytest.mark.parametrize(
    "change", ["interface wan9 was renamed to wan0", "changes of links were missed (no room)"]
)
def test_after_a_device_was_renamed_it_is_made_again_though_it_looks_the_same(machine, change):
    machine.set("isolate")
    lock = later(machine)
    before = len(machine.exit_table.applied)
    machine.links.change("interface wan0 is down")
    assert later(machine) == lock
    assert machine.exit_table.applied[before:] == [], "nothing of it changed"
    machine.links.change(change)
    assert later(machine) == lock
    assert machine.exit_table.applied[before:] == [lock]
    assert machine.exit_table.wholes[-1], "no chain is taken for sound"


def test_a_renamed_device_is_not_forgotten_when_the_kernel_refused_at_first(machine):
    machine.set("isolate")
    lock = later(machine)
    machine.exit_table.fail = "busy"
    machine.links.change("interface wan9 was renamed to wan0")
    later(machine)
    before = len(machine.exit_table.applied)
    machine.exit_table.fail = ""
    machine.controller.parts.second_lock.follow()
    assert later(machine) == lock
    assert machine.exit_table.applied[before:] == [lock]
    assert machine.exit_table.wholes[-1], "no chain is taken for sound"


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
    later(machine)
    last = [one.what for one in machine.audit.records if one.event == "exit"][-1]
    assert last.startswith("the second lock goes; packets that left since 20")
    assert last.endswith("wan0 0 to what is kept, 0 of the link itself, 2 dropped")


@pytest.mark.parametrize("machine", [SecondLock.CUT], indirect=True)
def test_what_left_is_on_record_when_the_levels_change(machine):
    machine.set("cut")
    none, some = CounterValue(0, 0), CounterValue(7, 420)
    machine.exit_table.counts = (ExitCounts("wan0", some, none, none, none),)
    later(machine)
    machine.set("isolate")
    later(machine)
    (line,) = (one.what for one in machine.audit.records if one.event == "exit")
    assert "levels changed" in line
    assert "wan0 7 to what is kept" in line


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


def test_right_after_a_closing_it_is_being_set_and_later_missing(machine, monkeypatch):
    slow = Slow(machine)
    assert not state(machine).being_set, "none is meant to stand"
    machine.run(set_level(machine, "isolate"))
    for _ in range(2):
        found = state(machine)
        assert (found.wanted, found.stands, found.being_set) == (True, False, True)
        assert found.why == "it is being set"
        later(machine)
    monkeypatch.setattr(second_lock, "_BEING_SET", 0.05)
    found = state(machine)
    assert (found.being_set, found.why) == (False, "not set within 0 s")
    slow.go.set()
    later(machine)
    found = state(machine)
    assert (found.stands, found.being_set, found.why) == (True, False, "")


def test_one_that_stays_wrong_is_no_lock_that_is_being_set_but_an_alert(machine):
    machine.set("isolate")
    later(machine)
    read = machine.exit_table.read_table

    async def wrong(lock):
        return replace(await read(lock), faults=("the kernel asks it nothing",))

    machine.exit_table.read_table = wrong
    for _ in range(2):  # an interface that comes and goes asks for it each time
        machine.controller.parts.second_lock.follow()
        later(machine)
        machine.controller.parts.second_lock.follow()
        found = state(machine)
        assert (found.stands, found.being_set) == (False, False)
        assert found.why == "the kernel asks it nothing"
        assert machine.controller.parts.alerts.is_raised("second-lock-missing")
    machine.exit_table.read_table = read
    later(machine)
    assert not machine.controller.parts.alerts.is_raised("second-lock-missing")
    assert state(machine).stands


def test_counts_are_of_the_moment_of_the_question(machine):
    machine.set("isolate")
    later(machine)
    number = machine.controller.parts.live.current.generation.number
    for packets in (3, 5):
        none, some = CounterValue(0, 0), CounterValue(packets, 60)
        machine.exit_table.counts = (ExitCounts("wan0", some, some, none, none),)
        for found in (state(machine), machine.run(machine.controller.second_lock(number))):
            assert found.devices[0].kept == 2 * packets
    assert machine.run(machine.controller.second_lock(number - 1)) is None
    machine.exit_table.counts = (ExitCounts("wan0", none, none, none, some),)
    codes = [one.code for one in machine.status().alerts]
    assert "way-past-gate" in codes, "in the same answer"
    machine.exit_table.dropped = (DroppedRow("192.0.2.9", "198.51.100.80", packets=1),)
    more = replace(machine.exit_table.counts[0], lost=CounterValue(6, 60))
    machine.exit_table.counts = (more,)
    state(machine)
    later(machine)
    told = [one.what for one in machine.audit.records if one.event == "exit"]
    assert "192.0.2.9 to 198.51.100.80 (1 packets)" in told[-1], "recorded soon"
    machine.exit_table.fail = "no memory"
    assert state(machine).devices[0].lost == 6


def test_a_count_that_takes_long_keeps_no_answer(machine, monkeypatch):
    machine.set("isolate")
    later(machine)

    async def hangs(_lock):
        await asyncio.sleep(60)

    monkeypatch.setattr(machine.exit_table, "read_counts", hangs)
    assert state(machine).stands


def set_level(machine, level):
    """As `Machine.set`, which waits until nothing is under way."""
    return machine.controller.set_level(level, None, command(Action.LEVEL, "why"))


class Slow:
    """Lets an application of the table wait until it is told."""

    def __init__(self, machine):
        self.apply, self.go = machine.exit_table.apply, asyncio.Event()
        machine.exit_table.apply = self

    async def __call__(self, lock, **how):
        await self.go.wait()
        await self.apply(lock, **how)


@pytest.mark.parametrize("machine", [SecondLock.CUT], indirect=True)
def test_a_closing_waits_for_no_lock_and_the_lock_follows(machine):
    slow = Slow(machine)
    machine.run(set_level(machine, "cut"))
    assert later(machine) is None
    assert machine.controller.parts.live.lock.locked(), "it is under way"
    assert machine.run(set_level(machine, "isolate")).verified
    later(machine)
    assert not machine.controller.parts.alerts.is_raised("second-lock-missing"), "overtaken"
    assert set(machine.controller.parts.live.current.levels.values()) == {"isolate"}
    slow.go.set()
    lock = later(machine, 0.3)
    machine.exit_table.apply = slow.apply
    assert len(machine.exit_table.applied) == 2
    assert machine.exit_table.applied[0].ends4 != lock.ends4 == machine.exit_table.applied[1].ends4


@pytest.mark.parametrize("machine", [SecondLock.CUT], indirect=True)
def test_an_opening_whose_lock_takes_long_gives_way_to_a_closing(machine):
    machine.set("isolate")
    later(machine)
    slow = Slow(machine)

    async def both():
        opening = asyncio.ensure_future(set_level(machine, "cut"))
        await asyncio.sleep(0.2)
        assert not opening.done()
        closing = set_level(machine, "isolate")
        closed = await asyncio.wait_for(closing, 5)
        slow.go.set()
        return closed, (await asyncio.gather(opening, return_exceptions=True))[0]

    closed, opened = machine.run(both())
    assert closed.verified
    assert isinstance(opened, KernelError)
    later(machine, 0.3)
    assert set(machine.controller.parts.live.current.levels.values()) == {"isolate"}
    assert state(machine).stands


def test_the_gate_gets_no_address_that_the_lock_was_not_told_of():
    site_cut = site(SecondLock.CUT).site
    named = replace(allowlist("lab", hosts=("lab.example",)), site=site_cut)
    machine = Machine(named, {"lab.example": ["203.0.113.9", "203.0.113.8"]})
    machine.start()
    machine.set("cut")
    later(machine)
    changes = []
    change_elements = machine.firewall.change_elements

    async def watched(gone, come):
        let_out = machine.exit_table.lock.ends4.singles
        changes.extend((key, let_out) for one in come for key in one.elements)
        await change_elements(gone, come)

    machine.firewall.change_elements = watched
    slow = Slow(machine)

    async def learn():
        machine.resolver.answer("lab.example", ["203.0.113.9", "203.0.113.10"])
        await asyncio.sleep(0.1)
        machine.resolver.answer("lab.example", ["203.0.113.9", "203.0.113.11"])
        slow.go.set()
        await asyncio.sleep(0.3)

    machine.run(learn())
    for key, let_out in changes:
        assert {0xCB00710A, 0xCB00710B} & _addresses_of(key) <= let_out
    assert any(0xCB00710B in _addresses_of(key) for key, _ in changes), "it comes in the end"
    machine.close()


def _addresses_of(key):
    return {low for low, high in key if low == high}


def test_one_that_failed_after_the_kernel_took_it_goes_before_an_opening(machine):
    apply = machine.exit_table.apply

    async def fails_late(lock, **how):
        await apply(lock, **how)
        raise KernelError("it could not be read back")

    machine.exit_table.apply = fails_late
    machine.set("isolate")
    assert later(machine) is not None
    assert not isinstance(machine.set("open"), Exception)
    assert later(machine) is None


def test_one_that_somebody_loads_at_open_goes(machine):
    machine.set("isolate")
    lock = later(machine)
    machine.set("open")
    assert later(machine) is None
    machine.exit_table.lock = lock
    machine.controller.parts.second_lock.follow()
    assert later(machine) is None


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
    assert later(machine).devices == lock.devices
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


def test_a_new_device_waits_for_no_pause_between_two_looks_at_the_links(machine):
    machine.set("isolate")
    later(machine)
    links = machine.links
    links.change("interface wan0 is down")
    later(machine)  # the links were looked at just now: the next look comes a second later
    links.change("interface wan1 is up", interfaces=(*links._interfaces, "wan1"))
    lock = later(machine)
    assert "wan1" in [one.name for one in lock.devices]


def test_a_way_past_the_gate_says_whether_the_lock_holds_it(machine):
    shared = Device("mv0", "macvlan", parent="wan0", elsewhere=True)
    machine.bypass_scan.host = HostReading(devices=(Device("wan0"), shared))
    parts = machine.controller.parts
    for level, held in (("cut", False), ("isolate", True), ("open", False)):
        machine.set(level)
        later(machine)
        machine.run(parts.links.scan_for_bypasses(machine.run(parts.link_reader.look())))
        (text,) = (one for one in machine.status().warnings if "shares wan0" in one)
        assert ("the second lock stands" in text) == held
