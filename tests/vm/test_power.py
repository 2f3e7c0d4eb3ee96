"""The power goes at ten random moments while somebody cuts, reloads and reopens without a pause."""

import json
import random
import time
from dataclasses import dataclass

import pytest

from tests.vm import rig
from tests.vm.machine import Machine
from tests.vm.rig import Scene

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

ROUNDS = 10
OPENNESS = {"cut": 0, "open": 1}


@dataclass(frozen=True, slots=True)
class Told:
    """What was commanded and answered before the power went, as it was told outside before the
    power went.

    answered: the level that was answered last; begun: the level that was commanded and not
    answered, if one was;
    generation: the newest number that was answered; commands: how many were.
    """

    answered: str
    begun: str
    generation: int
    commands: int

    @property
    def possible(self) -> set[str]:
        """The state before or after, and never less closed than what was answered as done, unless
        an opening was under way.
        """
        return {self.answered, self.begun or self.answered}


def _told(lines: list[str], level: str, generation: int) -> Told:
    begun, commands = "", 0
    for line in lines:
        message = json.loads(line)
        if "begin" in message:
            begun = message["body"].get("level", "")
            wanted = begun or level
        else:
            assert message["status"] == 200, message
            assert not message["unrecorded"], message
            level, begun, commands = wanted, "", commands + 1
            generation = max(generation, message["generation"]["number"])
    return Told(level, begun, generation, commands)


def _wait_for(machine: Machine, begun: int, after: int) -> None:
    """Wait until so many commands were begun since line number `after`."""
    deadline = time.monotonic() + 600
    while sum('"begin"' in line for line in machine.told()[after:]) < begun:
        assert time.monotonic() < deadline, machine.told()[after:]
        time.sleep(0.005)


@pytest.mark.parametrize("scene", [{"level": "cut", "rate": 50}], indirect=True)
def test_the_outcome_of_every_power_cut_is_the_state_before_or_after(scene: Scene):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    machine, level, interrupted = scene.machine, "cut", 0
    for round_ in range(ROUNDS):
        generation, after = rig.status(machine)["generation"], len(machine.told())
        machine.sh(
            "systemd-run -q --unit=commander python3 -S -E /usr/local/sbin/commander", check=True
        )
        _wait_for(machine, draw.randint(2, 9), after)
        time.sleep(draw.uniform(0, 0.5))
        scene.power_cut()
        told = _told(machine.told()[after:], level, generation)
        interrupted += bool(told.begun)
        machine.boot(until=rig.DAEMON)
        stands = rig.status(machine)
        found = set(stands["levels"].values())
        print(f"round {round_ + 1}: {told}: {found}, generation {stands['generation']}")
        assert len(found) == 1, "a change is applied whole or not at all"
        assert found <= told.possible, (told, stands["levels"])
        assert stands["generation"] >= told.generation, "what was answered is on disk"
        assert rig.is_shut(machine) == (found == {"cut"})
        level = found.pop()
        if told.possible == {"cut"}:
            scene.must_hold()
    assert interrupted, (
        "no power cut came while a command ran: these were not ten moments of a change"
    )
