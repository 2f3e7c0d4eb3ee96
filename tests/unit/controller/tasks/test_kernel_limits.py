"""Tables of the kernel's that fill: told before they are full, once, and once when there is room
again.
"""

import asyncio

import pytest

from ecluse.controller.tasks import kernel_limits
from ecluse.errors import KernelError
from ecluse.results import TableUse
from tests.unit.controller.machine import Machine, simple


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(kernel_limits, "_EVERY", 0.001)
    made = Machine(simple())
    made.start()
    yield made
    made.close()


def told(machine, used):
    """Let the table have so many entries; count the warnings and events that name it."""
    machine.links.full = (TableUse("connections", used, 1000, "net.netfilter.nf_conntrack_max"),)
    machine.run(asyncio.sleep(0.02))
    events = [event.message for event in machine.events if "table of connections" in event.message]
    return [text for text in machine.status().warnings if "table of connections" in text], len(
        events
    )


def test_it_is_told_once_before_it_is_full_and_once_when_it_has_room(machine):
    assert told(machine, 799) == ([], 0)
    (warning,), events = told(machine, 800)
    assert warning.startswith("the kernel's table of connections is 80 % full (800 of 1,000)")
    assert "nf_conntrack_max" in warning
    assert events == 1
    (warning,), events = told(machine, 1000)
    assert "is 100 % full" in warning
    assert events == 1
    assert len(told(machine, 700)[0]) == 1, "no news of every packet around the mark"
    assert told(machine, 699) == ([], 2)
    assert machine.status().tables[0].used == 699


def test_it_stands_in_the_answer_to_a_cut_and_in_a_plan(machine):
    told(machine, 900)
    assert any("table of connections" in text for text in machine.set("cut").warnings)
    plan = machine.run(
        machine.controller.plan(level="isolate", zones=None, rollback=None, reload=False)
    )
    assert any("table of connections" in text for text in plan.warnings)


def test_a_look_that_fails_is_said_and_made_again(machine):
    machine.links.fail["table_uses"] = KernelError("no socket")
    machine.run(asyncio.sleep(0.02))
    assert any("is not known: no socket" in text for text in machine.status().warnings)
    assert machine.controller.alive
    del machine.links.fail["table_uses"]
    assert len(told(machine, 900)[0]) == 1
    assert not any("no socket" in text for text in machine.status().warnings)
