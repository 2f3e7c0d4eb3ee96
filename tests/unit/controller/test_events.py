"""Events: a log that fails undoes nothing."""

import pytest

from ecluse.controller.context import Options
from ecluse.controller.tasks import supervisor
from tests.unit.controller import machine as machines
from tests.unit.controller.machine import CUT, Machine, allowlist


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(supervisor, "_CALM", 0.05)
    monkeypatch.setattr(machines, "Options", lambda **given: Options(**(given | {"tick": 0.05})))
    made = Machine(allowlist())
    made.start()
    yield made
    made.close()


def warned(machine: Machine, words: str) -> bool:
    return any(words in text for text in machine.status().warnings)


def test_a_log_that_fails_undoes_nothing(machine):
    def fails(_event):
        raise OSError(28, "No space left on device")

    machine.controller.parts.events._log = fails
    answer = machine.set("cut")
    assert answer.changed
    assert machine.kernel() == CUT
    machine.firewall.tamper("flush ruleset")
    machine.settle()
    assert machine.kernel() == CUT
    assert warned(machine, "could not be told to the daemon's log")
