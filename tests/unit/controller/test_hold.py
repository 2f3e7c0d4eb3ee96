"""Dying while a small table holds the line: the recorded levels come back, not the shut table taken
for one.
"""

import pytest

from ecluse.ruleset import switch
from tests.unit.controller.machine import Machine
from tests.unit.controller.test_machine import CUT, simple


def test_killed_while_the_line_is_held():
    machine = Machine(simple())
    machine.start()
    machine.set("cut")
    machine.kill()
    machine.firewall.table = None
    machine.run(machine.firewall.apply(switch.hold_text(simple(), 7)))
    assert machine.run(machine.firewall.policies())["forward"] == "drop"
    machine.start()
    assert machine.kernel() == CUT
    assert dict(machine.status().levels) == CUT
    machine.close()


@pytest.mark.parametrize(
    "meddling", [{"dormant": True}, {"hooks": {"forward": "filter forward 300"}}]
)
def test_a_closing_into_a_table_that_judges_nothing_puts_it_in_anew(meddling):
    """Nobody told of it yet: the switch is taken, and all that it shows is as it should be."""
    machine = Machine(simple())
    machine.start()
    for name, value in meddling.items():
        setattr(machine.firewall.table, name, value)
    assert machine.set("cut").verified
    assert machine.run(machine.firewall.read_switch([])).hooks == switch.HOOKS
    assert machine.kernel() == CUT
    machine.close()
