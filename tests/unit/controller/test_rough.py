"""Corners of the controller over fakes: a kernel that cannot be read, records that hang, orders
that overtake each other.
"""

import asyncio
import threading
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ecluse.controller.context import Options
from ecluse.controller.lock import PriorityLock, always
from ecluse.controller.persist.writer_thread import Write, WriteQueue
from ecluse.errors import KernelError, RequestError, StaleError, StateError
from ecluse.flow_judge import ConntrackEntry, Tuple
from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic, carry_over
from ecluse.ruleset import switch
from tests.unit.controller import machine as machines
from tests.unit.controller.machine import WHO, Machine
from tests.unit.ruleset.policies import SITE, ZONES

OPEN, CUT = dict.fromkeys(ZONES, "open"), dict.fromkeys(ZONES, "cut")


def allowlist(*names: str, hosts: tuple[str, ...] = ()) -> Policy:
    lab = Destination(
        Direction.OUTBOUND, hosts, (ip_network("203.0.113.1/32"),), (Traffic(6, 443, 443),)
    )
    one = Service("", "", "", "", Criticality.VITAL, ("care",), (), (lab,))
    return Policy(SITE, tuple(replace(one, name=name) for name in names or ("lab",)))


@pytest.fixture
def machine():
    made = Machine(allowlist())
    made.start()
    yield made
    made.close()


# -- the kernel


def test_a_cut_puts_the_table_in_anew_when_somebody_has_just_deleted_it(machine):
    machine.firewall.table = None
    answer = machine.set("cut")
    assert answer.verified
    assert machine.kernel() == CUT


def test_a_cut_that_cannot_be_read_back_stands_and_is_said(machine):
    machine.firewall.fail["targets"] = KernelError("it changed while it was being read")
    answer = machine.set("cut")
    assert answer.changed
    assert not answer.verified
    del machine.firewall.fail["targets"]
    assert machine.kernel() == CUT
    machine.firewall.tamper("flush chain inet ecluse forward")
    machine.settle()
    assert machine.kernel() == CUT, "what is healed is the cut, not what was before it"
    assert dict(machine.status().levels) == CUT


def test_status_answers_when_the_kernel_cannot_be_read(machine):
    machine.set("cut")
    machine.firewall.fail["ruleset_generation"] = KernelError("busy")
    status = machine.status()
    assert dict(status.levels) == CUT
    assert any("busy" in warning for warning in status.warnings)
    del machine.firewall.fail["ruleset_generation"]
    assert not any("busy" in warning for warning in machine.status().warnings)


def test_a_switch_that_only_a_text_could_make_is_made_and_said(machine):
    machine.firewall.refusal = "the kernel refused the switch (busy), and took it from libnftables"
    assert machine.set("cut").verified
    assert machine.kernel() == CUT
    assert [e.message for e in machine.events if e.kind == "warning"] == [machine.firewall.refusal]


def test_a_refused_switch_changes_nothing_and_is_not_answered_as_done(machine):
    machine.set("cut")
    machine.firewall.fail["switch"] = KernelError("busy")
    assert isinstance(machine.set("open"), KernelError)
    assert machine.kernel() == CUT
    assert dict(machine.status().levels) == CUT


def test_a_table_that_could_not_be_put_back_at_once_is_tried_again_soon(machine):
    machine.set("cut")
    machine.firewall.fail["apply"] = KernelError("busy")
    machine.firewall.tamper("flush ruleset")
    machine.settle()
    assert any("could not be restored" in warning for warning in machine.status().warnings)
    del machine.firewall.fail["apply"]
    machine.run(asyncio.sleep(0.2))
    assert machine.kernel() == CUT
    assert not any("could not be restored" in warning for warning in machine.status().warnings)


def test_old_records_are_tidied_at_the_regular_look_and_not_right_after_a_change(monkeypatch):
    few = {"tick": 0.2, "keep_generations": 2}
    monkeypatch.setattr(machines, "Options", lambda **given: Options(**(given | few)))
    machine = Machine(allowlist())
    machine.start()
    machine.run(asyncio.sleep(0.3))
    for level in ("cut", "open", "isolate", "open"):
        machine.set(level)
    assert len(machine.state.generations) == 5
    machine.run(asyncio.sleep(0.3))
    assert sorted(machine.state.generations) == [4, 5]
    assert [one.number for one in machine.controller.generations()] == [5, 4]
    machine.close()


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


def test_links_that_cannot_be_read_end_nothing(machine):
    machine.links.fail["read_links"] = KernelError("dump interrupted")
    machine.links.change("interface stick0 is up")
    machine.settle()
    assert machine.controller.alive
    assert any("dump interrupted" in warning for warning in machine.status().warnings)


def test_a_purge_that_was_overtaken_ends_nothing_that_is_open_again(machine):
    care, web = ip_address("10.10.0.7"), ip_address("198.51.100.80")
    there, back = Tuple(care, web, 1, 443), Tuple(web, care, 443, 1)
    line = ConntrackEntry(6, there, back)
    machine.conntrack.table = [line]
    listed = machine.conntrack.connections

    async def slowly():
        found = await listed()
        await asyncio.sleep(0.2)
        return found

    machine.conntrack.connections = slowly

    async def both():
        for level in ("cut", "open"):
            await machine.controller.set_level(level, None, actor=WHO, reason="", authorised_by="")
            await asyncio.sleep(0.05)

    machine.run(both())
    machine.settle()
    assert machine.conntrack.table == [line]
    machine.set("cut")
    assert machine.conntrack.table == [], "positive control"


# -- orders that overtake each other


def test_a_rollback_that_a_cut_overtook_opens_nothing(machine):
    machine.reload(allowlist("lab", "treasury"))
    controller = machine.controller
    machine.run(controller._table.prune({controller._live.current.loaded.digest}))
    reading, go_on = threading.Event(), threading.Event()
    read = machine.state.read_policy

    def slowly(digest):
        reading.set()
        go_on.wait(5)
        return read(digest)

    machine.state.read_policy = slowly

    async def both():
        back = asyncio.ensure_future(controller.rollback(1, actor=WHO, reason="", authorised_by=""))
        await asyncio.to_thread(reading.wait, 5)
        await controller.set_level("cut", None, actor=WHO, reason="", authorised_by="")
        go_on.set()
        with pytest.raises(StaleError, match="came first"):
            await back

    machine.run(both())
    machine.settle()
    assert machine.kernel() == CUT


def test_a_reload_lets_nobody_out_by_taking_the_only_shut_zone_away(machine):
    machine.set("cut", "guests")
    fewer = replace(SITE, zones=tuple(zone for zone in SITE.zones if zone.name != "guests"))
    answer = machine.reload(Policy(fewer, allowlist().services))
    assert isinstance(answer, RequestError)
    assert "guests" in answer.message
    assert machine.kernel() == OPEN | {"guests": "cut"}


def test_a_level_that_a_reload_takes_away_becomes_cut():
    fewer = replace(SITE, levels=tuple(level for level in SITE.levels if level.name != "reduced"))
    assert carry_over(fewer, ZONES, OPEN | {"care": "reduced"}) == OPEN | {"care": "cut"}


# -- files


def test_old_records_go_although_somebody_commands_all_the_time(monkeypatch):
    few = {"tick": 0.05, "keep_generations": 2}
    monkeypatch.setattr(machines, "Options", lambda **given: Options(**(given | few)))
    machine = Machine(allowlist())
    machine.start()

    async def busy() -> int:
        """Hold the writer's lock at every regular look: as commands do, one after the other, on a
        slow disk.
        """
        for number in range(30):
            who = {"actor": WHO, "reason": "", "authorised_by": ""}
            await machine.controller.set_level(("cut", "open")[number % 2], None, **who)
        async with machine.controller._live.lock.hold():
            await asyncio.sleep(0.3)
            return len(machine.state.generations)

    assert machine.run(busy()) <= 2 + 20
    machine.close()


def test_the_boot_ruleset_has_the_addresses_that_are_live_after_they_came_and_went(machine):
    machine.reload(allowlist("lab", hosts=("lab.example",)))
    for address in ("203.0.113.9", "203.0.113.10", "203.0.113.9"):
        machine.resolver.answer("lab.example", [address])
        machine.settle()
        machine.run(machine.controller.parts.upkeep.renew_boot())
        program, _, _ = machine.state.boot
        assert address in machine.state.programs[program]
        assert machine.state.levels_files["cut"][0] == program
    assert "203.0.113.10" not in machine.state.programs[program]


# -- the recorder


class Disk:
    """Jobs that append their name, in the order in which they reach the disk; `open` lets them
    through.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.open = threading.Event()
        self.full = False

    def job(self, label: str, name: str = "", **named) -> Write:
        def write() -> None:
            self.open.wait(5)
            if self.full:
                raise StateError("the disk is full")
            self.written.append(name or label)

        return Write(label, write, **named)


def record(work, **named):
    async def run():
        recorder = WriteQueue(0.05, **named)
        try:
            return await work(recorder)
        finally:
            recorder.close()

    return asyncio.run(run())


def test_what_hung_is_written_once_however_often_it_was_tried():
    disk = Disk()

    async def work(recorder):
        for number in range(4):
            assert await recorder.write([disk.job(f"line {number}", in_order=True)])
        disk.open.set()
        assert await recorder.write([]) == ()
        assert recorder.waiting == ()

    record(work)
    assert disk.written == [f"line {number}" for number in range(4)]


def test_what_failed_before_is_not_written_over_what_must_be_newer():
    disk = Disk()
    disk.open.set()
    disk.full = True

    async def work(recorder):
        await recorder.write(
            [disk.job("boot", "boot cut"), disk.job("line", "line cut", in_order=True)]
        )
        with pytest.raises(StateError, match="came before"):
            await recorder.write_or_fail([disk.job("boot", "boot open")])
        disk.full = False
        await recorder.write_or_fail(
            [disk.job("boot", "boot open"), disk.job("line 2", "line open", in_order=True)]
        )
        assert await recorder.write([]) == ()

    record(work)
    assert disk.written == ["boot cut", "line cut", "boot open", "line open"]


def test_an_opening_that_was_given_up_writes_nothing_more_once_the_disk_is_back():
    disk = Disk()

    async def work(recorder):
        with pytest.raises(StateError, match="did not take 'boot'"):
            await recorder.write_or_fail(
                [disk.job("boot", "boot open"), disk.job("line", "line open", in_order=True)]
            )
        disk.open.set()
        assert await recorder.write([disk.job("boot", "boot cut")]) == ()

    record(work)
    assert disk.written == ["boot open", "boot cut"], (
        "its first step hung and came through; it was taken back"
    )


def test_what_must_be_written_stops_at_the_first_that_fails():
    disk = Disk()
    disk.open.set()

    def full() -> None:
        raise StateError("the disk is full")

    async def work(recorder):
        with pytest.raises(StateError, match="full"):
            await recorder.write_or_fail([disk.job("one"), Write("two", full), disk.job("three")])
        assert recorder.waiting == ()

    record(work)
    assert disk.written == ["one"]


def test_what_no_answer_waits_for_is_written_soon_and_kept_when_it_fails():
    disk = Disk()
    disk.open.set()
    disk.full = True

    async def work(recorder):
        recorder.write_later([disk.job("filed", housekeeping=True)])
        assert recorder.waiting == ()
        await asyncio.sleep(0.1)
        assert recorder.waiting == ("filed",), "worth telling once it has failed"
        disk.full = False
        recorder.write_later([disk.job("second", housekeeping=True)])
        await asyncio.sleep(0.1)
        assert recorder.waiting == ()

    record(work)
    assert disk.written == ["filed", "second"]


def test_a_record_that_goes_wrong_in_an_unforeseen_way_is_said_and_stops_nothing():
    async def work(recorder):
        def wrong() -> None:
            raise ValueError("unforeseen")

        return await recorder.write([Write("odd", wrong), Write("fine", lambda: None)])

    (told,) = record(work)
    assert "odd" in told
    assert "unforeseen" in told


def test_after_its_end_nothing_is_recorded_and_that_is_a_state_error():
    async def work():
        recorder = WriteQueue(1)
        recorder.close()
        assert await recorder.write([Write("late", lambda: None)]) == (
            "late (the daemon is stopping)",
        )
        with pytest.raises(StateError):
            await WriteQueue.write_or_fail(recorder, [Write("late", lambda: None)])

    asyncio.run(work())


def test_whoever_waits_for_the_disk_makes_haste_when_a_closing_wants_the_lock():
    disk = Disk()

    async def work():
        writer = PriorityLock()
        recorder = WriteQueue(30, writer.urgent_waiting)

        async def opening():
            async with writer.hold():
                with pytest.raises(StateError):
                    await recorder.write_or_fail([disk.job("intent")])

        held = asyncio.ensure_future(opening())
        await asyncio.sleep(0.02)
        async with asyncio.timeout(2):
            async with writer.hold(always):
                assert not writer.urgent_waiting.is_set(), "nobody hurries the closing itself"
        await held
        disk.open.set()
        recorder.close()

    asyncio.run(work())
