"""What the parts of the controller share: the ports, the live state, and what was noticed."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import ParamSpec, TypeVar

from ecluse.bypass import BypassFinding
from ecluse.controller.events import EventBroadcaster
from ecluse.controller.live_state import CompiledPolicy, CurrentState
from ecluse.controller.lock import PriorityLock
from ecluse.controller.table.manager import Step, TableManager
from ecluse.errors import EcluseError
from ecluse.flow_judge import ConntrackEntry, FlowJudge
from ecluse.interface_zones import InterfaceZones
from ecluse.name_advice import Knowledge, owners_of
from ecluse.policy import IPAddress, Levels, at_least_as_closed
from ecluse.ports import (
    AuditLog,
    BypassScanPort,
    Clock,
    Conntrack,
    CounterValue,
    DnsProxyPort,
    DnsReport,
    Firewall,
    Links,
    PolicySource,
    RefusedElement,
    Resolver,
    StateStore,
)
from ecluse.records import Action, Actor
from ecluse.results import Event, Leak, Purge, TableUse, Tamper
from ecluse.zone_links import LinkReading

_LINKS_SECONDS = 0.5
"""How long an answer waits for a look at the machine's links, which is a millisecond's work; then
it says that it did not see them.
"""


_DISK_THREADS = 4
"""A disk that hangs takes these threads and no others: what computes or asks the kernel goes on."""
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside that the controller talks to."""

    firewall: Firewall
    conntrack: Conntrack
    links: Links
    dns: DnsProxyPort
    resolver: Resolver
    store: StateStore
    audit: AuditLog
    source: PolicySource
    clock: Clock
    bypass_scan: BypassScanPort


@dataclass(frozen=True, slots=True)
class Options:
    """Numbers of the daemon's settings.

    seconds: how long an answer waits for the disk. tick: seconds between two looks at the kernel's
    counters.
    new_name_seconds: how long a reload waits for names that were never resolved.
    dns_uid: the user of the DNS gate, None when this machine has none.
    last_good: how long an address of a host name outlives its last answer while the resolvers fail.
    closed_at_boot: why the boot unit closed the gate as a precaution, empty when it did not: then
    what stands in the kernel at start is nobody's command.
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

    @property
    def uids(self) -> tuple[int, ...]:
        """Give the users whose look-ups to the site's resolvers no level cuts, the daemon's own
        first.
        """
        return (self.daemon_uid,) if self.dns_uid is None else (self.daemon_uid, self.dns_uid)


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it came: what to do, and by whom, why, on whose word.

    back_to: the generation that a rollback names. since: when it came (seconds of time.monotonic).
    """

    action: Action
    actor: Actor
    reason: str
    authorised_by: str
    back_to: int | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass
class Notes:
    """What was noticed and is told in `status`.

    warnings: by topic, so that one that is over can be taken away.

    Only the event loop changes it; a thread is given a `copy`.
    """

    warnings: dict[str, str] = field(default_factory=dict)
    tamper: Tamper | None = None
    leak: Leak | None = None
    purges: dict[int, Purge] = field(default_factory=dict)
    counters: dict[str, CounterValue] = field(default_factory=dict)
    last_packet: dict[str, datetime] = field(default_factory=dict)
    default_routes: tuple[str, ...] = ()
    tables: tuple[TableUse, ...] = ()
    bypasses: tuple[BypassFinding, ...] = ()
    checked: datetime | None = None
    in_step: bool = True
    dns: DnsReport | None = None
    dns_works: bool = False
    limited: tuple[RefusedElement, ...] = ()

    def copy(self) -> "Notes":
        """Give it as it is now; `counters` is another whenever it changes."""
        return replace(
            self,
            warnings=dict(self.warnings),
            purges=dict(self.purges),
            last_packet=dict(self.last_packet),
        )


class Context:
    """The one mutable state of the controller; only whoever holds `writer` changes `live` or the
    kernel.

    closings: how often something was closed in this run, or was told again to be where it stood so;
    one more where the start itself found it closed by something else than the newest record.
    """

    def __init__(self, ports: Ports, options: Options, step: Step) -> None:
        self.ports = ports
        self.options = options
        self.step = step
        self.gate = TableManager(ports.firewall, options.uids, step, partial(self.say, "warning"))
        self.hub = EventBroadcaster()
        self.notes = Notes()
        self.writer = PriorityLock()
        self.itself = Actor(os.getuid(), "eclused", os.getpid(), "eclused")
        self.tell: Callable[[Event], None] = lambda _event: None
        self.troubles: Callable[[], tuple[str, ...]] = tuple
        self._live: CurrentState | None = None
        self._judging = asyncio.Lock()
        self.closings = 0
        self._disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk")

    @property
    def live(self) -> CurrentState:
        """Give the live state. EcluseError while the daemon is still starting."""
        if self._live is None:
            raise EcluseError(
                "the daemon is still starting", retry=True, hint="try again in a moment"
            )
        return self._live

    @live.setter
    def live(self, value: CurrentState) -> None:
        before = self._live.levels if self._live else value.levels
        if not at_least_as_closed(value.policy.site, before, value.levels):
            self.closings += 1
        self._live = value

    @property
    def started(self) -> bool:
        """Say whether there is a live state yet."""
        return self._live is not None

    def say(self, kind: str, message: str) -> None:
        """Publish an event to subscribers and to the daemon's log."""
        live = self._live
        number, levels = (live.generation.number, live.levels) if live else (0, {})
        event = Event(self.ports.clock(), kind, message, number, levels)
        self.hub.publish(event)
        try:
            self.tell(event)
        except Exception as error:  # noqa: BLE001 - whoever listens to what is done never undoes it
            self.notes.warnings["tell"] = (
                f"an event could not be told to the daemon's log: {error!r}"
            )

    async def on_disk(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """Do what may wait for the disk, on a thread that only such work has.

        The writer's lock is not held meanwhile.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._disk, partial(work, *given, **named)
        )

    def close(self) -> None:
        """Let the threads end once they have done what is begun."""
        self._disk.shutdown(wait=False, cancel_futures=True)
        self.gate.end()

    async def not_kept(
        self, judge: FlowJudge, connections: Sequence[ConntrackEntry]
    ) -> list[ConntrackEntry]:
        """Give the connections that a judge refuses; on a thread, one such work at a time.

        KernelError.

        What goes from inside to inside is none of them, though an end may be in no zone's subnets:
        routes tell.
        """

        def refused(those: Sequence[ConntrackEntry]) -> tuple[list[ConntrackEntry], set[IPAddress]]:
            found = [one for one in those if judge.judge(one).verdict == "refused"]
            return found, judge.unplaced_ends(found)

        async with self._judging:
            found, strange = await asyncio.to_thread(refused, connections)
            ways = await self.ports.links.reached_by(strange)
            zones = InterfaceZones(judge.policy)
            inside = [address for address, name in ways.items() if zones.zones_of(name)]
            if not inside:
                return found
            judge.mark_inside(inside)
            return (await asyncio.to_thread(refused, found))[0]

    async def see_links(self) -> LinkReading:
        """Look at the machine's links, before an answer says what is kept.

        Never raises, and never waits for long.
        """
        try:
            async with asyncio.timeout(_LINKS_SECONDS):
                host = await self.ports.links.read_links()
        except TimeoutError:
            trouble = f"no answer within {_LINKS_SECONDS} s"
        except EcluseError as error:
            trouble = error.message
        except Exception as error:  # noqa: BLE001 - no thread, no memory: what was done is answered all the same
            trouble = str(error) or type(error).__name__
        else:
            return LinkReading(replace(host, default_routes=self.notes.default_routes))
        return LinkReading(
            None,
            f"the machine's links could not be looked at, so what is kept is not known: {trouble}",
        )

    def knowledge(self) -> Knowledge:
        """Give all that is known of host names now; to be called on a thread."""
        known = self.ports.resolver.known()
        return Knowledge(
            known,
            self.ports.resolver.tallies(),
            self.options.last_good,
            self.ports.clock(),
            owners_of(known),
        )

    async def judge(self, levels: Levels | None = None) -> FlowJudge:
        """Make a judge of connections for the live program, at these levels or the live ones."""
        live = self.live
        return await self.judge_of(live.loaded, live.levels if levels is None else levels)

    async def judge_of(self, loaded: CompiledPolicy, levels: Levels) -> FlowJudge:
        """Make a judge of connections for a compiled policy at some levels, by what the DNS gate
        has learned until now.
        """
        local = await self.ports.links.local_addresses()
        learned = await self.ports.firewall.learned() if loaded.program.learned else {}
        return loaded.judge(levels, local, self.options.daemon_uid, learned)
