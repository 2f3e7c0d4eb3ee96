"""Any sequence of commands, failures, tampering, kills and reboots: what was answered stands, and
nothing opens by itself.
"""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ecluse.controller.tasks import tamper
from ecluse.errors import EcluseError, KernelError, StateError
from ecluse.policy import (
    Policy,
    at_least_as_closed,
    most_closed,
)
from tests.effort import examples
from tests.unit.controller.machine import OPEN, Machine
from tests.unit.ruleset.policies import SITE, ZONES, services

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
