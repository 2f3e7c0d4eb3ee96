"""The hospital of tests/lab, with a virtual machine for its gateway.

Same places, same people, same internet.
"""

import json
from pathlib import Path

from tests.lab import netns
from tests.lab.hospital import Hospital
from tests.vm.images import Disk
from tests.vm.machine import Machine


class Ward(Hospital):
    """A hospital whose links end in tap devices.

    They stay when the machine goes, so a witness sees whole lives of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[tuple[str, str]] = []
        self._machines: list[Machine] = []

    def _join(self, ends: list[tuple[str, str, str]]) -> None:
        for _, theirs, role in ends:
            namespace = self.namespace(role)
            netns.run("ip", "-n", namespace, "tuntap", "add", "dev", theirs, "mode", "tap")
            # room for what the lab sends while an emulator that shares its cores stands still
            netns.run("ip", "-n", namespace, "link", "set", theirs, "txqueuelen", "20000")
            self._ends.append((namespace, theirs))

    def _dress_gateway(self) -> None:
        """Nothing: the machine dresses itself (see `guest`), and its namespace is only where the
        emulator runs.
        """

    def dropped_by_cards(self) -> dict[str, int]:
        """Count, by card, the packets that the emulator was too slow to take: no fault of the gate.

        Give those with any.
        """
        dropped = {
            theirs: json.loads(netns.run("ip", "-n", inside, "-s", "-j", "link", "show", theirs))[
                0
            ]["stats64"]["tx"]["dropped"]
            for inside, theirs in self._ends
        }
        return {card: count for card, count in dropped.items() if count}

    def machine(self, name: str, disk: Disk, backing: Path | None = None) -> Machine:
        """Make a machine with this hospital's cables in it, switched off; one runs at a time."""
        machine = Machine(
            self.directory / name,
            disk,
            home=self.namespace("gw"),
            links=self._ends,
            backing=backing,
        )
        self._machines.append(machine)
        return machine

    @property
    def machines(self) -> tuple[Machine, ...]:
        return tuple(self._machines)

    def close(self) -> None:
        for machine in self._machines:
            machine.power_cut()
        super().close()
