"""The controller's surroundings: the ports to the outside, and the daemon's settings."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ecluse.exit_ports import ExitTable
from ecluse.extensions import Extension
from ecluse.ports import (
    AuditLog,
    BypassScanPort,
    Clock,
    Conntrack,
    Firewall,
    Links,
    PolicySource,
    Resolver,
    StateStore,
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside that the controller talks to."""

    firewall: Firewall
    conntrack: Conntrack
    links: Links
    resolver: Resolver
    store: StateStore
    audit: AuditLog
    source: PolicySource
    clock: Clock
    bypass_scan: BypassScanPort
    exit_table: ExitTable


@dataclass(frozen=True, slots=True)
class Options:
    """Numbers of the daemon's settings.

    seconds: how long an answer waits for the disk.
    tick: seconds between two readings of the kernel's counters.
    new_name_seconds: how long a reload waits for names that were never resolved.
    dns_uid: the user of the DNS proxy, None when this machine has none.
    last_good: how long an address of a host name outlives its last answer while the resolvers fail.
    extensions: all that there are (`extensions.EXTENSIONS`). settings: the daemon's, for them.
    closed_at_boot: why the boot unit closed the gate as a precaution, empty when it did not: then
    what the kernel shows at start is nobody's command.
    """

    version: str
    daemon_uid: int = 0
    dns_uid: int | None = None
    keep_generations: int = 100
    keep_in_kernel: int = 3
    seconds: float = 5.0
    tick: float = 10.0
    new_name_seconds: float = 5.0
    last_good: timedelta = timedelta(days=30)
    closed_at_boot: str = ""
    extensions: tuple[Extension, ...] = ()
    settings: Any = None

    @property
    def uids(self) -> tuple[int, ...]:
        """Give the users whose look-ups to the resolvers no level cuts, the daemon's first."""
        return (self.daemon_uid,) if self.dns_uid is None else (self.daemon_uid, self.dns_uid)
