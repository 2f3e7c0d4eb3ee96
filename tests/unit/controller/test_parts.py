"""The parts: none is given the whole, none waits for a status, and what stands is an alert."""

import ast
from pathlib import Path

import ecluse.controller
from ecluse.errors import StateError

ROOT = Path(ecluse.controller.__file__).parent


def imports():
    """Give every import from one module of the controller to another."""
    modules = {
        ".".join(("ecluse", "controller", *file.relative_to(ROOT).with_suffix("").parts)): file
        for file in ROOT.rglob("*.py")
        if file.name != "__init__.py"
    }
    for module, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "ecluse.controller"
            ):
                for name in node.names:
                    full = f"{node.module}.{name.name}"
                    yield module, full if full in modules else node.module


def test_only_the_facade_knows_the_parts_and_arrows_stay_few():
    arrows = set(imports())
    assert {one for one, other in arrows if other.endswith(".parts")} == {
        "ecluse.controller.controller"
    }
    assert len(arrows) <= 58, sorted(arrows)


def test_no_import_goes_in_a_circle():
    arrows = set(imports())
    modules = {module for arrow in arrows for module in arrow}
    while modules:
        free = {one for one in modules if not any((one, other) in arrows for other in modules)}
        assert free, f"a circle among {sorted(modules)}"
        modules -= free


def test_what_is_not_on_disk_is_an_alert_until_it_is(machine):
    machine.state.fail["point_boot"] = StateError("the disk is full")
    machine.set("cut")
    (alert,) = [one for one in machine.status().alerts if one.code == "not-recorded"]
    assert "boot ruleset" in alert.text
    assert alert.text in machine.status().warnings
    del machine.state.fail["point_boot"]
    machine.run(machine.controller._records.queue.write([]))
    assert not [one for one in machine.status().alerts if one.code == "not-recorded"]


def test_a_kernel_that_is_out_of_step_is_an_alert_and_the_first_warning(machine):
    machine.set("cut")
    observed = machine.controller.parts.observe()
    assert observed.in_step
    assert observed.alerts == ()
    machine.controller._live.in_step = False
    observed = machine.controller.parts.observe()
    assert [one.code for one in observed.alerts] == ["out-of-step"]
    assert observed.alerts[0].severity == "critical"


def test_what_a_status_once_saw_is_no_warning_of_a_later_command(machine):
    machine.state.fail["point_boot"] = StateError("the disk is full")
    machine.set("cut")
    machine.controller._live.in_step = False
    codes = {one.code for one in machine.controller.parts.observe().alerts}
    assert codes == {"not-recorded", "out-of-step"}, "positive control"
    del machine.state.fail["point_boot"]
    machine.run(machine.controller._records.queue.write([]))
    machine.controller._live.in_step = True
    change = machine.set("isolate")
    assert not [text for text in change.warnings if "on disk" in text or "put back" in text]
