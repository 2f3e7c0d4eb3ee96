"""Dying while a small table holds the line: the recorded levels come back, not the shut table taken for one."""

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
