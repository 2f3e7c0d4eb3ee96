"""The port of the second lock's table, and what is read of it."""

from dataclasses import dataclass
from typing import Protocol

from ecluse.ports import CounterValue
from ecluse.ruleset.exit_values import ExitLock


@dataclass(frozen=True, slots=True)
class ExitCounts:
    """What one device let out and refused since the lock stands there."""

    device: str
    kept4: CounterValue
    kept6: CounterValue
    link: CounterValue
    lost: CounterValue


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """Something that the lock dropped.

    IP: source, destination, protocol, port (0 for none). Other frames: source is the sender's
    link-layer address and `ethertype` is not 0.
    """

    source: str
    destination: str = ""
    protocol: int = 0
    port: int = 0
    ethertype: int = 0
    packets: int = 0

    @property
    def way(self) -> str:
        """Name who sends what where, whatever the ports."""
        return f"{self.source} {self.destination} {self.ethertype}"

    def __str__(self) -> str:
        """Say it in words."""
        if self.ethertype:
            return f"frames of ethertype {self.ethertype:#06x} by {self.source} ({self.packets})"
        return f"{self.source} to {self.destination} ({self.packets} packets)"


@dataclass(frozen=True, slots=True)
class ExitReading:
    """What stands in the kernel.

    Args:
        stands: there is a table `netdev ecluse_exit`.
        faults: what is not as it was meant, in words. Empty: chains, rules and sets' elements were
            looked at, and are as meant.
        hooks_read: the kernel said which devices it really hooks, too. One that can't (no
            nfnetlink_hook) lists a chain as before when its device was renamed: there only a
            restatement at each event of a link is sure.
        full: a set of dropped rows has no room; `lost` counts on.
    """

    stands: bool
    faults: tuple[str, ...] = ()
    hooks_read: bool = False
    counts: tuple[ExitCounts, ...] = ()
    dropped: tuple[DroppedRow, ...] = ()
    full: bool = False


class ExitTable(Protocol):
    """Table `netdev ecluse_exit`: the second lock. Each transaction is whole or not at all."""

    async def apply(self, lock: ExitLock, *, whole: bool = False) -> None:
        """Make the table, or restate the one that stands; counters stay. KernelError.

        whole: not only what differs from what was applied last: a device was renamed, whose chain
        then hangs nowhere and is listed as ever, or somebody changed the table.
        """

    async def remove(self) -> None:
        """Remove the table; none there is no error. KernelError."""

    async def read_counts(self, lock: ExitLock) -> ExitReading:
        """Read what left and what was dropped, and compare nothing: quick. KernelError."""

    async def read_table(self, lock: ExitLock | None) -> ExitReading:
        """Read what stands, and compare it with what is meant (None: no table). KernelError."""
