"""Any sequence of commands, failures, tampering, kills and reboots: what was answered stands, and
nothing opens by itself.
"""

import asyncio
import os
import threading
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ecluse.controller.tasks import tamper
from ecluse.errors import EcluseError, KernelError, NotFoundError, StateError
from ecluse.policy import (
    Criticality,
    Destination,
    Direction,
    Policy,
    Service,
    Traffic,
    at_least_as_closed,
    most_closed,
)
from tests.effort import examples
from tests.unit.controller.machine import WHO, Machine
from tests.unit.ruleset.policies import SITE, ZONES, services

OPEN, CUT = dict.fromkeys(ZONES, "open"), dict.fromkeys(ZONES, "cut")
level = st.sampled_from(["open", "reduced", "cut", "isolate"])
disk_methods = [
    "write_intent",
    "write_generation",
    "point_boot",
    "write_program",
    "write_policy",
    "clear_intent",
]


class Gateway(RuleBasedStateMachine):
    """`answered`: the levels that were last answered as done (or stood at the start)."""

    @initialize(first=services("svc-0"), second=services("svc-1"))
    def begin(self, first, second):
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(
            tamper, "_PAUSE", 0.001
        )  # a fight leaves the kernel alone for so long, each round
        self.policies = [Policy(SITE, (first,)), Policy(SITE, (first, second))]
        self.machine = Machine(self.policies[0])
        self.machine.start()
        self.answered = dict(OPEN)
        self.broken_disk = False

    def teardown(self):
        if hasattr(self, "machine"):
            self.machine.close()
            self.patched.undo()

    def judge(self, answer, wanted):
        if isinstance(answer, EcluseError):
            return
        assert answer.verified
        assert dict(answer.generation.levels) == wanted
        if self.broken_disk and answer.changed:
            assert answer.unrecorded, "what is not on disk is said"
            assert at_least_as_closed(SITE, wanted, self.answered), (
                "nothing opens without its record"
            )
        self.answered = dict(wanted)

    @rule(to=level, zones=st.lists(st.sampled_from(ZONES), unique=True, max_size=3))
    def set_level(self, to, zones):
        wanted = {z: to if not zones or z in zones else self.answered[z] for z in ZONES}
        closing = at_least_as_closed(SITE, wanted, self.answered)
        answer = self.machine.set(to, *zones)
        if isinstance(answer, StateError):
            # What it asked to be closed is closed all the same; only what was to open is not.
            self.answered = most_closed(SITE, wanted, self.answered)
        self.judge(answer, wanted)
        if closing:
            assert not isinstance(answer, EcluseError), (
                "a closing is never refused for the disk's sake"
            )

    @rule()
    def rollback(self):
        live = self.machine.controller._live.current.generation
        answer = self.machine.rollback()
        if not isinstance(answer, EcluseError):
            before = self.machine.controller.generation(live.previous)
            self.judge(answer, dict(before.levels))

    @rule(which=st.integers(0, 1))
    def reload(self, which):
        answer = self.machine.reload(self.policies[which])
        self.judge(answer, dict(self.answered))
        if not isinstance(answer, EcluseError):
            assert self.machine.controller._live.current.policy == self.policies[which]

    @rule(
        text=st.sampled_from(
            [
                "flush ruleset",
                "delete table inet ecluse",
                "flush chain inet ecluse forward",
                "add table inet other",
            ]
        )
    )
    def tamper(self, text):
        """What touches our table is put back (the invariant) and told with whoever did it;
        another's table is theirs.
        """
        before, pid = self.machine.status().last_tamper, 5000 + len(self.machine.events)
        self.machine.firewall.tamper(text, "meddler", pid)
        self.machine.heal()
        after = self.machine.status().last_tamper
        if text == "add table inet other":
            assert after == before
            return
        assert (after.process, after.pid) == ("meddler", pid)
        told = [event for event in self.machine.events if event.kind in {"tamper", "fight"}]
        assert any("meddler" in event.message for event in told)

    @precondition(lambda self: not self.broken_disk)
    @rule()
    def kernel_refuses_once(self):
        refusals = dict.fromkeys(("apply", "switch"), KernelError("no"))
        self.machine.firewall.fail |= refusals
        before = dict(self.answered)
        for to in ("cut", "open"):
            if any(self.answered[z] != to for z in ZONES):
                assert isinstance(self.machine.set(to), KernelError)
        for name in refusals:
            del self.machine.firewall.fail[name]
        assert self.answered == before

    @precondition(lambda self: not self.broken_disk)
    @rule()
    def disk_breaks(self):
        self.broken_disk = True
        for name in disk_methods:
            self.machine.state.fail[name] = StateError("no space left")
        self.machine.audit.fail["append"] = StateError("no space left")

    @precondition(lambda self: self.broken_disk)
    @rule()
    def disk_is_mended(self):
        self.machine.state.fail.clear()
        self.machine.audit.fail.clear()
        self.broken_disk = False
        self.machine.run(self.machine.controller._records.queue.write([]))

    def restart(self):
        records = [r for r in self.machine.audit.records if r.levels is not None]
        self.machine.state.audit_levels = records[-1].levels if records else None
        self.machine.start()

    @precondition(lambda self: not self.broken_disk)
    @rule()
    def killed_and_started(self):
        self.machine.kill()
        self.restart()
        assert dict(self.machine.status().levels) == self.answered

    @precondition(lambda self: not self.broken_disk)
    @rule()
    def rebooted(self):
        self.machine.kill()
        self.machine.firewall.table = None
        program, gate, _ = self.machine.state.boot
        self.machine.run(self.machine.firewall.apply(self.machine.state.programs[program] + gate))
        self.restart()
        assert dict(self.machine.status().levels) == self.answered

    @precondition(lambda self: self.broken_disk)
    @rule()
    def killed_while_the_disk_was_broken(self):
        """What was answered as not recorded may be lost with the daemon; the kernel still knows."""
        self.machine.kill()
        self.disk_would_be_back()
        self.restart()
        assert dict(self.machine.status().levels) == self.answered

    def disk_would_be_back(self):
        self.machine.state.fail.clear()
        self.machine.audit.fail.clear()
        self.broken_disk = False

    @invariant()
    def the_kernel_shows_what_was_answered(self):
        if not hasattr(self, "machine"):
            return
        assert self.machine.kernel() == self.answered
        status = self.machine.status()
        assert dict(status.levels) == self.answered
        assert status.in_step
        assert status.recorded or self.broken_disk


TestGateway = Gateway.TestCase
TestGateway.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", examples(15))),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def simple(names=("svc-0",)):
    lab = Destination(
        Direction.OUTBOUND, (), (ip_network("203.0.113.1/32"),), (Traffic(6, 443, 443),)
    )
    one = Service("", "", "", "", Criticality.VITAL, ("care",), (), (lab,))
    return Policy(SITE, tuple(replace(one, name=name) for name in names))


@pytest.fixture
def machine():
    one = Machine(simple())
    one.start()
    yield one
    one.close()


def test_unknown_level_and_zone_are_said_and_change_nothing(machine):
    for answer in (machine.set("shut"), machine.set("cut", "cellar")):
        assert isinstance(answer, NotFoundError)
        assert answer.hint
    assert machine.kernel() == OPEN


def test_reload_with_another_zone_is_never_less_closed(machine):
    machine.set("cut")
    more = replace(
        SITE,
        zones=(*SITE.zones, replace(SITE.zones[0], name="new", interfaces=("new0",), subnets=())),
    )
    answer = machine.reload(Policy(more, simple().services))
    assert answer.generation.levels["new"] == "cut"


def test_rollback_to_an_older_allowlist_and_back(machine):
    machine.set("cut")
    machine.reload(simple(("svc-0", "svc-1")))
    assert [s.name for s in machine.status().services] == ["svc-0", "svc-1"]
    machine.rollback()
    assert [s.name for s in machine.status().services] == ["svc-0"]
    machine.rollback()
    assert [s.name for s in machine.status().services] == ["svc-0", "svc-1"]
    assert machine.kernel() == CUT


def test_a_cut_that_the_disk_does_not_take_is_done_and_said_and_written_later(machine):
    machine.audit.fail["append"] = StateError("no space left")
    for name in ("point_boot", "write_generation"):
        machine.state.fail[name] = StateError("no space left")
    answer = machine.set("cut")
    assert machine.kernel() == CUT
    assert any("boot ruleset" in text for text in answer.unrecorded)
    assert any("audit line" in text for text in answer.unrecorded)
    assert not machine.status().recorded
    assert "generation 2" in machine.controller._records.queue.waiting
    refused = machine.set("open")
    assert isinstance(refused, StateError)
    assert machine.kernel() == CUT
    machine.audit.fail.clear()
    machine.state.fail.clear()
    machine.run(machine.controller._records.queue.write([]))
    assert machine.status().recorded
    assert 2 in machine.state.generations


def test_a_cut_is_recorded_once_its_boot_ruleset_is_on_disk_and_filed_after_the_answer(machine):
    machine.state.fail["write_generation"] = StateError("no space left")
    answer = machine.set("cut")
    assert answer.unrecorded == ()
    assert machine.state.boot[2] == answer.generation
    status = machine.status()
    assert not status.recorded, "that it could not be filed is told all the same"
    assert any("generation 2" in words for words in status.warnings)
    machine.state.fail.clear()
    machine.kill()
    machine.start()
    assert machine.state.generations[2] == answer.generation
    assert dict(machine.status().levels) == CUT


def test_an_opening_is_filed_after_the_answer_and_its_intent_goes(machine):
    machine.set("cut")
    answer = machine.set("open")
    assert machine.state.generations[3] == answer.generation
    assert machine.state.intent is None


def test_what_is_filed_after_the_answer_alarms_nobody_while_it_is_being_written(machine):
    reached, go_on = threading.Event(), threading.Event()
    write = machine.state.write_generation

    def slowly(generation):
        reached.set()
        go_on.wait(5)
        write(generation)

    machine.state.write_generation = slowly
    work = machine.controller.set_level("cut", None, actor=WHO, reason="", authorised_by="")
    answer = machine.run(work)
    assert machine.run(asyncio.to_thread(reached.wait, 5))
    assert answer.unrecorded == ()
    assert machine.status().recorded
    go_on.set()
    machine.settle()
    assert 2 in machine.state.generations
