"""One gateway for many tests: a boot under emulation costs too much for one each.

A test finds it up and cut, and may leave it anyhow.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.vm import traffic
from tests.vm.images import Disk
from tests.vm.machine import Machine
from tests.vm.traffic import Traffic
from tests.vm.ward import Ward
from tests.vm.witness import Verdict, Witness

DAEMON = "ecluse.service"
FORWARD = "nft list chain inet ecluse forward"


def levels(machine: Machine) -> set[str]:
    """Give the levels that the daemon says the zones have: one, as a rule."""
    return set(status(machine)["levels"].values())


def status(machine: Machine) -> dict:
    return json.loads(machine.sh("ecluse status --json", check=True).out)


def is_shut(machine: Machine) -> bool:
    """Ask the kernel itself."""
    return "policy drop" in machine.sh(FORWARD).out


def command(machine: Machine, *words: str) -> int:
    """Command something inside; give when it was answered (time_ns of this machine)."""
    machine.sh(f"ecluse {' '.join(words)} --reason test", check=True)
    return time.time_ns()


@dataclass
class Scene:
    """What a test plays with.

    The machine is cut since `since`, and everybody tries to get out and in.
    """

    ward: Ward
    witness: Witness
    machine: Machine
    traffic: Traffic
    since: int

    def verdict(self, since: int = 0) -> Verdict:
        return self.witness.judge(since or self.since)

    def must_hold(self) -> None:
        """Fail unless the gate held since `since`.

        Nothing of nobody's left or entered, and the kept services answer now.
        """
        verdict = self.verdict()
        assert not verdict.nobodys, str(verdict)
        unserved = traffic.unserved(self.ward)
        assert not unserved, f"kept, and not served: {unserved}"

    def must_stay_shut(self) -> None:
        """Fail unless the kernel's gate is shut now and nothing of nobody's passed since `since`.

        Who is kept may still wait.
        """
        assert is_shut(self.machine)
        verdict = self.verdict()
        assert not verdict.nobodys, str(verdict)

    def power_cut(self) -> None:
        """Have the power go. From now on the witness looks at the next boot."""
        self.machine.power_cut()
        self.since = time.time_ns()

    def must_be_cut(self) -> None:
        """Wait for the daemon, and fail unless it stands at cut as well."""
        self.machine.wait_until_up(until=DAEMON)
        assert levels(self.machine) == {"cut"}


class Rig:
    """A hospital and the machine that runs in it, if one does."""

    def __init__(self, disk: Disk) -> None:
        self.ward = Ward()
        self.ward.__enter__()
        self.witness = Witness(self.ward)
        self._disk = disk
        self._machine: Machine | None = None
        self._made = 0

    def close(self) -> None:
        self.ward.close()

    def discard(self) -> None:
        """Throw the machine away: who knows what a failed test left in it."""
        if self._machine is not None:
            self._machine.power_cut()
            self._machine.disk.unlink(missing_ok=True)
            self._machine = None

    def _up(self) -> Machine:
        if self._machine is None:
            self._made += 1
            self._machine = self.ward.machine(f"gateway-{self._made}", self._disk)
        if not self._machine.running:
            self._machine.power_cut()
            self._machine.start()
        self._machine.wait_until_up(until=DAEMON)
        return self._machine

    @contextmanager
    def at(self, level: str, rate: int = traffic.RATE) -> Iterator[Scene]:
        """Have a machine up, at that level, with traffic and a fresh witness."""
        machine = self._up()
        if levels(machine) != {level}:
            command(machine, level, *(["--yes"] if level == "open" else []))
        self.witness.forget()
        with traffic.running(self.ward, rate=rate) as going:
            yield Scene(self.ward, self.witness, machine, going, time.time_ns())
