"""What a command lets through that was refused is told, whatever the command is called."""

import pytest

from tests.unit.controller.machine import Machine
from tests.unit.controller.test_machine import simple


@pytest.fixture
def machine():
    made = Machine(simple())
    made.start()
    yield made
    made.close()


def plan(machine, level):
    return machine.run(
        machine.controller.plan(level=level, zones=None, rollback=None, reload=False)
    )


def test_a_cut_at_isolate_says_which_services_it_lets_through(machine):
    assert machine.set("cut").opened == (), "everything passed before"
    isolated = machine.set("isolate")
    assert isolated.opened == ()
    assert isolated.ended
    planned = plan(machine, "cut")
    assert planned.services_opened == isolated.ended
    assert machine.set("cut").opened == isolated.ended
    assert machine.set("cut").opened == (), "it was so already"


def test_an_opening_tells_what_was_closed(machine):
    ended = machine.set("cut").ended
    assert machine.set("open").opened == ended
