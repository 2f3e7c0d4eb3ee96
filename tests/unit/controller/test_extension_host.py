"""Extensions in the controller: loaded when a policy uses them, and harmless when they fail."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ecluse.alerts import AlertKind, Severity
from ecluse.extensions import Extension
from ecluse.policy import DnsProxySettings
from tests.golden.cases import HERE, compiled
from tests.unit.controller.machine import Machine

POLICY, _ = compiled(HERE / "10-dns-gate")
WITHOUT, _ = compiled(HERE / "01-one-address")


class Recorded(Extension):
    """An extension that is used where the DNS gate is; it counts what is done with it."""

    def __new__(cls):
        made = super().__new__(
            cls, "recorded", "ecluse.ruleset.dns_redirect:is_on", "none", status="dns"
        )
        made.loads, made.wakes, made.faults = 0, 0, {}
        return made

    def fail(self, what):
        if what in self.faults:
            raise self.faults[what]

    def load(self):
        self.loads += 1
        self.fail("load")
        return SimpleNamespace(make_part=self.make_part)

    def make_part(self, environment):
        self.fail("make_part")
        self.environment = environment
        return self

    alerts = {"recorded-alert": AlertKind(Severity.INFO, "{what}")}

    @property
    def tasks(self):
        return {"recording": self.run}

    async def run(self):
        self.environment.alerts.raise_alert("recorded-alert", what="its task runs")
        await asyncio.Event().wait()

    def wake(self):
        self.wakes += 1
        self.fail("wake")

    routes = ("its route",)

    async def read_counters(self, counters):
        self.fail("read_counters")
        self.counters = counters

    def state(self):
        self.fail("state")
        return "its state" if self.is_used(self.environment.policy()) else None

    async def refused_names(self):
        self.fail("refused_names")
        return (), 3


@pytest.fixture
def started():
    machines = []

    def start(policy, **faults):
        machine, extension = Machine(policy), Recorded()
        extension.faults = faults
        machine.dns_extension = extension
        machine.start()
        machines.append(machine)
        return machine, extension

    yield start
    for machine in machines:
        machine.close()


def test_where_it_is_used_its_part_is_joined_to_the_controllers(started):
    machine, extension = started(POLICY)
    assert machine.status().dns == "its state"
    assert extension.counters, "each look hands it the counters"
    assert "its task runs" in machine.alert_texts()
    assert machine.run(machine.controller.refused(10)).unread == 3
    assert machine.controller.extension_routes() == ("its route",)
    before = extension.wakes
    machine.set("cut")
    assert extension.wakes > before
    assert extension.environment.levels() == dict.fromkeys(POLICY.zone_names(), "cut")
    assert extension.loads == 1


def test_where_it_is_not_used_nothing_is_loaded_until_a_reload_uses_it(started):
    machine, extension = started(WITHOUT)
    machine.set("cut")
    assert (extension.loads, machine.status().dns) == (0, None)
    assert machine.controller.extension_routes() == ()
    assert machine.controller.parts.extensions.unused() == (extension,)
    machine.reload(POLICY)
    assert (extension.loads, machine.status().dns) == (1, "its state"), "as soon as it is live"
    assert machine.controller.parts.extensions.unused() == ()
    # Turned off it stays: it has to tell its process.
    before = extension.wakes
    machine.reload(replace(WITHOUT, site=replace(WITHOUT.site, dns=DnsProxySettings())))
    assert extension.wakes > before
    assert machine.status().dns is None
    assert machine.controller.extension_routes() == ()
    machine.reload(POLICY)
    assert (extension.loads, machine.status().dns) == (1, "its state")


@pytest.mark.parametrize("what", ["load", "make_part", "wake"])
def test_one_that_fails_is_an_alert_and_refuses_no_command(started, what):
    machine, extension = started(WITHOUT, **{what: ImportError("half installed")})
    machine.reload(POLICY)
    machine.set("cut")
    assert set(machine.status().levels.values()) == {"cut"}
    assert any("half installed" in text for text in machine.alert_texts())
    extension.faults = {}
    machine.run(machine.controller.parts.extensions.load_missing())
    assert machine.status().dns == "its state", "it is tried again"
    machine.set("open")
    assert not any("half installed" in text for text in machine.alert_texts())


def test_one_that_is_used_but_could_not_be_loaded_keeps_its_configuration(started):
    machine, _ = started(POLICY, load=ImportError("half installed"))
    assert any("half installed" in text for text in machine.alert_texts()), "positive control"
    assert machine.controller.parts.extensions.unused() == (), "its process goes on by the last one"


def test_a_rollback_to_the_live_policy_waits_for_no_import(started):
    machine, extension = started(POLICY, load=ImportError("half installed"))
    machine.set("cut")
    machine.set("open")
    before = extension.loads
    machine.rollback()
    assert set(machine.status().levels.values()) == {"cut"}
    assert extension.loads == before


@pytest.mark.parametrize("what", ["read_counters", "state", "refused_names"])
def test_one_that_fails_when_it_is_asked_spoils_no_answer_and_no_watchdog(started, what):
    machine, extension = started(POLICY)
    extension.faults = {what: RuntimeError("a fault of its own")}
    machine.run(machine.controller.prove_alive())
    unread = machine.run(machine.controller.refused(10)).unread
    assert unread == (0 if what == "refused_names" else 3)
    assert machine.status().in_step
    assert any("a fault of its own" in text for text in machine.alert_texts())
    machine.set("cut")
    extension.faults = {}
    machine.run(machine.controller.refused(10))
    assert machine.status().dns == "its state"
    assert not any("a fault of its own" in text for text in machine.alert_texts())
