"""Upkeep of the files: tidied, renewed, and not in the way of commands."""

import asyncio

from ecluse.controller.context import Options
from tests.unit.controller import machine as machines
from tests.unit.controller.machine import Machine, allowlist, command


def test_old_records_are_tidied_at_the_regular_look_and_not_right_after_a_change(monkeypatch):
    few = {"keep_generations": 2}  # no regular look comes by itself in the time of a test
    monkeypatch.setattr(machines, "Options", lambda **given: Options(**(given | few)))
    machine = Machine(allowlist())
    machine.start()
    for level in ("cut", "open", "isolate", "open"):
        machine.set(level)
    assert len(machine.state.generations) == 5
    machine.run(machine.controller.parts.upkeep.tidy())
    assert sorted(machine.state.generations) == [4, 5]
    assert [one.number for one in machine.controller.generations()] == [5, 4]
    machine.close()


def test_old_records_go_although_somebody_commands_all_the_time(monkeypatch):
    few = {"tick": 0.05, "keep_generations": 2}
    monkeypatch.setattr(machines, "Options", lambda **given: Options(**(given | few)))
    machine = Machine(allowlist())
    machine.start()

    async def busy() -> int:
        """Hold the writer's lock at every regular look: as commands do, one after the other, on a
        slow disk.
        """
        for number in range(30):
            await machine.controller.set_level(("cut", "open")[number % 2], None, command())
        async with machine.controller._live.lock.hold():
            await asyncio.sleep(0.3)
            return len(machine.state.generations)

    assert machine.run(busy()) <= 2 + 20
    machine.close()


def test_the_boot_ruleset_has_the_addresses_that_are_live_after_they_came_and_went(machine):
    machine.reload(allowlist("lab", hosts=("lab.example",)))
    for address in ("203.0.113.9", "203.0.113.10", "203.0.113.9"):
        machine.resolver.answer("lab.example", [address])
        machine.settle()
        machine.run(machine.controller.parts.upkeep.renew_boot())
        program, _, _ = machine.state.boot
        assert address in machine.state.programs[program]
        assert machine.state.levels_files["cut"][0] == program
    assert "203.0.113.10" not in machine.state.programs[program]
