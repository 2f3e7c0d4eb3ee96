"""The status: answered whatever cannot be read."""

from ecluse.errors import KernelError
from tests.unit.controller.machine import CUT


def test_status_answers_when_the_kernel_cannot_be_read(machine):
    machine.set("cut")
    machine.firewall.fail["ruleset_generation"] = KernelError("busy")
    status = machine.status()
    assert dict(status.levels) == CUT
    assert any("busy" in warning for warning in status.warnings)
    del machine.firewall.fail["ruleset_generation"]
    assert not any("busy" in warning for warning in machine.status().warnings)
