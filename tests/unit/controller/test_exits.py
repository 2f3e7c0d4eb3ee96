"""Ways past the gate over fakes: named once as an event and in the audit log, for as long as they last in status."""

from ecluse.errors import KernelError
from ecluse.exits import Device, Filter, Host, findings
from tests.unit.controller.machine import Machine
from tests.unit.controller.test_machine import simple


def look(machine: Machine) -> tuple[str, ...]:
    machine.run(machine.controller._keeper._links._look_for_exits())
    machine.settle()
    return machine.status().warnings


def test_a_way_out_is_named_while_it_is_there():
    machine = Machine(simple())
    machine.start()
    assert not any("past the gate" in text for text in look(machine))
    machine.exits.host = Host(filters=(Filter("care0", "ingress", "bpf"),), default_routes=("wan0", "wan1"),
                              devices=(Device("wan0"), Device("wan1")))  # fmt: skip
    for _ in range(3):
        warnings = look(machine)
        assert sum("BPF program" in text for text in warnings) == 1
        assert sum("default routes leave by wan0, wan1" in text for text in warnings) == 1
    assert [event.kind for event in machine.events].count("exit") == 1
    assert [record.event for record in machine.audit.records].count("exit") == 1
    machine.exits.host = Host()
    assert not any("past the gate" in text for text in look(machine))
    assert machine.audit.records[-1].what.startswith("no more: a tc filter")
    machine.close()


def test_a_look_that_fails_is_said_and_forgets_nothing():
    machine = Machine(simple())
    machine.exits.host = Host(devices=(Device("wan0", xdp="generic"),))
    machine.start()
    assert any("XDP" in text for text in look(machine))
    machine.exits.fail["look"] = KernelError("dump interrupted")
    warnings = look(machine)
    assert any("dump interrupted" in text for text in warnings)
    assert any("XDP" in text for text in warnings)
    machine.close()


def test_shared_interfaces_and_inside_bridges_are_no_exits():
    inside = Host(
        devices=(
            Device("lo"),
            Device("care0"),
            Device("core0", kind="bridge"),
            Device("eth1", master="core0"),
            Device("eth2", master="core0"),
            Device("tap0", kind="macvtap", parent="care0"),
        )
    )
    assert findings(inside, simple()) == ()
