"""The boot unit closed the gate because the boot ruleset could not be loaded: a precaution, and
nobody's command.
"""

from dataclasses import replace

import pytest

from ecluse.errors import ConfigError
from ecluse.faults import Fault
from ecluse.policy import Policy, Traffic
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.state import codec
from tests.unit.controller.machine import CUT, OPEN, Machine, simple

WHY = (
    "/var/lib/ecluse/boot.nft is not what was written; "
    "/var/lib/ecluse/closed.nft was loaded instead"
)


BUILT_IN = "table inet ecluse {\n}\ndelete table inet ecluse\n" + switch.interim_text(simple(), 7)


def rebooted(level: str, ruleset: str) -> Machine:
    """A gateway that was at this level when it went down, with a torn boot.nft, and came up with
    this ruleset.
    """
    machine = Machine(simple())
    machine.start()
    machine.set(level)
    machine.kill()
    recovered = machine.state.recover
    machine.state.recover = lambda: replace_boot(recovered(), machine)
    machine.firewall.table = None
    machine.run(machine.firewall.apply(ruleset))
    return machine


def replace_boot(found, machine):
    audited = [line for line in machine.audit.records if line.result == "done"][-1].levels
    return replace(
        found, boot_levels=None, audit_levels=audited, damage=("boot.nft is not what was written",)
    )


@pytest.mark.parametrize(
    "ruleset", [switch.closed_text(simple()), BUILT_IN], ids=["closed.nft", "built in"]
)
@pytest.mark.parametrize(("level", "wanted"), [("open", OPEN), ("cut", CUT)])
def test_the_records_say_what_it_comes_to(level, wanted, ruleset):
    machine = rebooted(level, ruleset)
    machine.start(closed_at_boot=WHY)
    assert machine.kernel() == dict(machine.status().levels) == wanted
    assert any(WHY in warning for warning in machine.status().warnings)
    machine.close()


def test_without_the_boot_units_word_it_was_somebodys_command():
    machine = rebooted("open", switch.closed_text(simple()))
    machine.start()
    assert set(machine.kernel().values()) == {"isolate"}
    machine.close()


def test_what_somebody_closed_by_hand_since_the_boot_is_followed():
    machine = rebooted("open", switch.closed_text(simple()))
    program = compile_program(simple(), {}, 1)
    levels = dict.fromkeys(simple().zone_names(), "cut")
    text = switch.NEW_TABLE + switch.load_text(program) + switch.switch_text(simple(), 1, levels)
    machine.run(machine.firewall.apply(text))
    machine.start(closed_at_boot=WHY)
    assert machine.kernel() == CUT
    machine.close()


@pytest.mark.parametrize(
    "ruleset", [switch.closed_text(simple()), BUILT_IN], ids=["closed.nft", "built in"]
)
def test_with_no_records_left_the_vital_services_are_kept_and_nothing_else(ruleset):
    machine = Machine(simple())
    machine.run(machine.firewall.apply(ruleset))
    machine.start(closed_at_boot=WHY)
    assert machine.kernel() == CUT
    machine.close()


@pytest.mark.parametrize("level", ["open", "cut"])
def test_files_that_a_new_version_refuses_leave_the_gate_as_it_was_recorded(level):
    """Management with `icmp` was taken by the version before, and recorded."""
    policy = simple()
    lifeline = replace(policy.site.lifeline, management_ports=(Traffic(6, 22, 22), Traffic(1)))
    policy = replace(policy, site=replace(policy.site, lifeline=lifeline))
    assert codec.read_json(Policy, codec.canonical(policy)) == policy, "its file is read"
    machine = Machine(policy)
    machine.start()
    machine.set(level)
    machine.kill()
    fault = Fault("site.yaml", 7, 9, "'icmp' has no ports")

    def refused():
        raise ConfigError((fault,))

    machine.source.load = refused
    machine.start()
    assert set(machine.status().levels.values()) == {level}
    assert set(machine.kernel().values()) == {level}
    assert any(
        "the site's files have 1 fault(s) and wait unused" in one for one in machine.alert_texts()
    )
    assert isinstance(machine.reload(policy), ConfigError)
    assert machine.set("isolate").verified
    machine.close()
