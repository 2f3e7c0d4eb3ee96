"""In-memory ports, honest like the real ones: a call that fails changes nothing, and what was not
kept is not there.

Each fake has `fail`: method name -> the exception that its next calls raise, until it is taken out
again.

Parts: files and records (FakeState, FakeAudit, FakePolicySource), names and time (FakeResolver,
FakeClock), kernel beside nf_tables (FakeConntrack, FakeLinks, FakeBypassScan).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Generic, Self, TypeVar

from ecluse.dnsproxy.daemon_part import DnsProxyPart
from ecluse.dnsproxy.process_report import DnsReport
from ecluse.dnsproxy.proxy_config import ProxyConfig
from ecluse.errors import KernelError, StateError
from ecluse.exit_ports import ExitReading
from ecluse.extensions import EXTENSIONS, Extension
from ecluse.faults import Fault
from ecluse.flow_judge import ConntrackEntry
from ecluse.host_reading import Device, HostReading
from ecluse.policy import IPAddress, Levels, Policy
from ecluse.ports import Recovered
from ecluse.records import AuditRecord, Generation, KnownAddress, KnownName, NameStatistics
from ecluse.results import TableUse
from ecluse.state import codec

T = TypeVar("T")


class Failing:
    """Fails on demand. fail: method name -> the exception to raise."""

    def __init__(self) -> None:
        self.fail: dict[str, Exception] = {}

    def _may_fail(self, method: str) -> None:
        if method in self.fail:
            raise self.fail[method]


class Feed(Generic[T]):
    """What `changes()` of a fake gives: every reader gets each item that is put after it began to
    read.
    """

    def __init__(self) -> None:
        self._readers: list[asyncio.Queue[T]] = []

    def put(self, item: T) -> None:
        """Give an item to every reader."""
        for queue in self._readers:
            queue.put_nowait(item)

    def read(self) -> AsyncIterator[T]:
        """Begin to read now."""
        queue: asyncio.Queue[T] = asyncio.Queue()
        self._readers.append(queue)
        return _drain(queue)


async def _drain(queue: asyncio.Queue[T]) -> AsyncIterator[T]:
    while True:
        yield await queue.get()


# -- files and records -----------------------------------------------------------------------------


class FakeState(Failing):
    """ports.StateStore in memory.

    `damage` is what the next `recover` tells; all else is what was written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generations: dict[int, Generation] = {}
        self.policies: dict[str, Policy] = {}
        self.programs: dict[str, str] = {}
        self.levels_files: dict[str, tuple[str, str]] = {}
        self.boot: tuple[str, str, Generation] | None = None
        self.closed: str | None = None
        self.intent: Generation | None = None
        self.names: dict[str, KnownName] = {}
        self.audit_levels: Levels | None = None
        self.damage: tuple[str, ...] = ()
        self.by_hand: tuple[AuditRecord, ...] = ()

    def recover(self) -> Recovered:
        """Tell what was written. A recorded intent is none any more, as in the real store."""
        self._may_fail("recover")
        if self.boot and self.boot[2].number > max(self.generations, default=0):
            self.generations[self.boot[2].number] = self.boot[2]
        newest = max(self.generations, default=0)
        pending = self.intent if self.intent is not None and self.intent.number > newest else None
        used = bool(
            self.generations or self.policies or self.boot or self.intent or self.audit_levels
        )
        return Recovered(
            first_install=not used,
            generations=dict(self.generations),
            recorded=self.generations.get(newest),
            boot_levels=dict(self.boot[2].levels) if self.boot else None,
            audit_levels=self.audit_levels,
            intent=pending,
            damage=self.damage,
            by_hand=self.by_hand,
        )

    def remove_offline_closings(self) -> None:
        """Drop the notes."""
        self._may_fail("remove_offline_closings")
        self.by_hand = ()

    def write_intent(self, generation: Generation) -> None:
        """Keep the intent."""
        self._may_fail("write_intent")
        self.intent = generation

    def clear_intent(self) -> None:
        """Drop the intent."""
        self._may_fail("clear_intent")
        self.intent = None

    def write_generation(self, generation: Generation) -> None:
        """Keep the generation."""
        self._may_fail("write_generation")
        self.generations[generation.number] = generation

    def digest_policy(self, policy: Policy) -> str:
        """Give the digest that the real store gives it."""
        self._may_fail("digest_policy")
        return codec.policy_digest(policy)

    def write_policy(self, policy: Policy) -> str:
        """Keep the policy under its digest."""
        self._may_fail("write_policy")
        digest = codec.policy_digest(policy)
        self.policies[digest] = policy
        return digest

    def read_policy(self, digest: str) -> Policy:
        """Give a policy that was kept. StateError when there is none."""
        self._may_fail("read_policy")
        if digest not in self.policies:
            raise StateError(f"the policy {digest} is not stored")
        return self.policies[digest]

    def write_program(self, text: str, gates: Mapping[str, str]) -> str:
        """Keep the program and each level's gate text with it."""
        self._may_fail("write_program")
        name = f"program-{codec.digest(text.encode()).removeprefix('sha256:')}.nft"
        self.programs[name] = text
        self.levels_files |= {level: (name, gate) for level, gate in gates.items()}
        return name

    def has_program(self, name: str) -> bool:
        """Say whether it was kept."""
        return name in self.programs

    def point_boot(
        self,
        program: str,
        gate: str,
        generation: Generation,
        *,
        use_reserve: bool = False,
    ) -> None:
        """Keep what the machine would load at boot: program, gate text, and the record of the
        state.
        """
        self._may_fail("point_boot")
        self.boot = (program, gate, generation)

    def fill_disk_reserve(self) -> None:
        """Keep none: memory has room."""
        self._may_fail("fill_disk_reserve")

    def write_boot_lock(self, text: str) -> None:
        self.boot_lock = text
        self._may_fail("write_boot_lock")

    def write_closed(self, text: str) -> None:
        """Keep the ruleset of last resort."""
        self._may_fail("write_closed")
        self.closed = text

    def forget(self, keep_generations: int) -> None:
        """Drop old generations, and policies and programs that nothing uses."""
        self._may_fail("forget")
        kept = sorted(self.generations)[-max(1, keep_generations) :]
        self.generations = {number: self.generations[number] for number in kept}
        users = [*self.generations.values(), *([self.intent] if self.intent else [])]
        users += [self.boot[2]] if self.boot else []
        policies = {each.policy for each in users}
        self.policies = {
            digest: each for digest, each in self.policies.items() if digest in policies
        }
        programs = {f"program-{each.ruleset.removeprefix('sha256:')}.nft" for each in users}
        programs |= {program for program, _ in self.levels_files.values()} | (
            {self.boot[0]} if self.boot else set()
        )
        self.programs = {name: each for name, each in self.programs.items() if name in programs}

    def read_names(self) -> Mapping[str, KnownName]:
        """Give the kept addresses."""
        self._may_fail("read_names")
        return dict(self.names)

    def write_names(self, names: Mapping[str, KnownName]) -> None:
        """Keep the addresses."""
        self._may_fail("write_names")
        self.names = dict(names)


class FakeAudit(Failing):
    """ports.AuditLog in memory.

    records: every line that was written, in order. reserved: those that may use the reserved space.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[AuditRecord] = []
        self.reserved: list[AuditRecord] = []

    def append(self, record: AuditRecord, *, use_reserve: bool = False) -> None:
        """Keep the record."""
        self._may_fail("append")
        self.records.append(record)
        if use_reserve:
            self.reserved.append(record)


class FakePolicySource(Failing):
    """ports.PolicySource that gives `policy` and `faults`, both of which may be changed between
    loads.
    """

    def __init__(self, policy: Policy, faults: Sequence[Fault] = ()) -> None:
        super().__init__()
        self.policy = policy
        self.faults = tuple(faults)

    def load(self) -> Policy:
        """Give the policy as it is now."""
        self._may_fail("load")
        return self.policy

    def warnings(self) -> Sequence[Fault]:
        """Give the faults as they are now."""
        self._may_fail("warnings")
        return self.faults


# -- names and time --------------------------------------------------------------------------------


class FakeClock:
    """ports.Clock that stands still until it is told to go on."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)) -> None:
        self.time = start

    def __call__(self) -> datetime:
        """Give the time."""
        return self.time

    def forward(self, seconds: float) -> None:
        """Go on by so many seconds."""
        self.time += timedelta(seconds=seconds)


class FakeResolver(Failing):
    """ports.Resolver that knows what `answer` told it.

    watched, servers, private: those of the last `watch`. overdue: what `due` gives. tally: what
    `tallies` gives.
    """

    def __init__(
        self, clock: FakeClock, addresses: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        super().__init__()
        self._clock = clock
        self._known: dict[str, KnownName] = {}
        self._feed: Feed[frozenset[str]] = Feed()
        self.watched: frozenset[str] = frozenset()
        self.servers: tuple[tuple[str, int], ...] = ()
        self.private: frozenset[str] = frozenset()
        self.overdue: dict[str, frozenset[str]] = {}
        self.tally: dict[str, NameStatistics] = {}
        for name, those in (addresses or {}).items():
            self.answer(name, those)

    def answer(
        self, name: str, addresses: Iterable[str], *, ttl: float = 300, failure: str = ""
    ) -> None:
        """Let the resolvers have answered now; readers of `changes` are told when the addresses are
        others.
        """
        now = self._clock()
        expires = now + timedelta(seconds=ttl)
        self.put(
            KnownName(
                name, tuple(KnownAddress(each, now, expires) for each in addresses), now, failure
            )
        )

    def put(self, known: KnownName) -> None:
        """Know just this of a name from now on; readers of `changes` are told when the addresses
        are others.
        """
        name = known.name
        before = self._known.get(name)
        self._known[name] = known
        if before is None or {a.address for a in before.addresses} != {
            a.address for a in known.addresses
        }:
            self._feed.put(frozenset({name}))

    def known(self) -> Mapping[str, KnownName]:
        """Give all that was answered."""
        return dict(self._known)

    def tallies(self) -> Mapping[str, NameStatistics]:
        """Give `tally`."""
        return dict(self.tally)

    def watch(
        self,
        names: Iterable[str],
        servers: Sequence[tuple[str, int]],
        private: AbstractSet[str] = frozenset(),
    ) -> None:
        """Remember the names and the servers."""
        self._may_fail("watch")
        self.watched = frozenset(names)
        self.servers = tuple(servers)
        self.private = frozenset(private)

    def due(self) -> Mapping[str, frozenset[str]]:
        """Give `overdue`."""
        return dict(self.overdue)

    def used(self, addresses: Mapping[str, AbstractSet[str]]) -> None:
        """Note the time of use."""
        for name, found in addresses.items():
            entry = self._known[name]
            marked = (
                replace(e, used=self._clock()) if e.address in found else e for e in entry.addresses
            )
            self.put(replace(entry, addresses=tuple(marked)))

    def let_go(self, addresses: Mapping[str, AbstractSet[str]]) -> None:
        """Forget what is in `overdue` too."""
        for name, gone in addresses.items():
            entry = self._known[name]
            left = gone & self.overdue.pop(name, frozenset())
            self.put(
                replace(entry, addresses=tuple(e for e in entry.addresses if e.address not in left))
            )

    def changes(self) -> AsyncIterator[frozenset[str]]:
        """Give the names of every `answer` from now on that changed addresses."""
        return self._feed.read()

    async def refresh(self, names: Iterable[str], seconds: float) -> Mapping[str, KnownName]:
        """Give what is known of these names."""
        self._may_fail("refresh")
        return {name: self._known[name] for name in names if name in self._known}


# -- kernel beside nf_tables -----------------------------------------------------------------------


class FakeConntrack(Failing):
    """ports.Conntrack over `table`, a list of connections."""

    def __init__(self, connections: Iterable[ConntrackEntry] = ()) -> None:
        super().__init__()
        self.table = list(connections)
        self.accounting = False
        self.unread = 0

    async def connections(self) -> Sequence[ConntrackEntry]:
        """Give the table."""
        self._may_fail("connections")
        return tuple(self.table)

    async def end(self, connections: Iterable[ConntrackEntry]) -> int:
        """Take these out; give how many were still there."""
        self._may_fail("end")
        ended = set(connections) & set(self.table)
        self.table = [each for each in self.table if each not in ended]
        return len(ended)

    async def enable_accounting(self) -> bool:
        """Turn accounting on, unless told to fail."""
        self.accounting = "enable_accounting" not in self.fail
        return self.accounting


class FakeLinks(Failing):
    """ports.Links over three values: every interface is up and has an IP.

    `change` replaces some of them and tells it.

    host: what `read_links` gives instead, where a test sets it. full: what `table_uses` gives.
    """

    def __init__(
        self,
        interfaces: Iterable[str] = (),
        addresses: Iterable[str] = (),
        routes: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self._interfaces = tuple(sorted(interfaces))
        self._addresses = frozenset(addresses)
        self._routes = tuple(sorted(routes))
        self.ways: dict[IPAddress, str] = {}
        self._feed: Feed[str] = Feed()
        self.host: HostReading | None = None
        self.full: tuple[TableUse, ...] = ()

    def change(
        self,
        words: str,
        *,
        interfaces: Iterable[str] | None = None,
        addresses: Iterable[str] | None = None,
        routes: Iterable[str] | None = None,
    ) -> None:
        """Put new values in place and tell it in `words`."""
        if interfaces is not None:
            self._interfaces = tuple(sorted(interfaces))
        if addresses is not None:
            self._addresses = frozenset(addresses)
        if routes is not None:
            self._routes = tuple(sorted(routes))
        self._feed.put(words)

    async def read_links(self) -> HostReading:
        """Give the interfaces."""
        self._may_fail("read_links")
        return self.host or HostReading(devices=tuple(map(Device, self._interfaces)))

    async def read_host(self) -> HostReading:
        """Give the interfaces and those that carry a default route."""
        self._may_fail("read_host")
        return replace(await self.read_links(), default_routes=self._routes)

    async def table_uses(self) -> tuple[TableUse, ...]:
        """Give what a test put into `full`."""
        self._may_fail("table_uses")
        return self.full

    async def local_addresses(self) -> frozenset[str]:
        """Give the machine's own addresses."""
        self._may_fail("local_addresses")
        return self._addresses

    async def reached_by(self, addresses: Iterable[IPAddress]) -> dict[IPAddress, str]:
        """Give of these what a test put into `ways`."""
        self._may_fail("reached_by")
        return {one: self.ways[one] for one in addresses if one in self.ways}

    def changes(self) -> AsyncIterator[str]:
        """Give the words of every `change` from now on."""
        return self._feed.read()


class FakeDnsGate(Failing):
    """dnsproxy.client.DnsProxyClient in memory.

    wrong: what `check` gives. reported: what `report` gives. orders: what was published last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.orders: ProxyConfig | None = None
        self.wrong = ""
        self.reported: DnsReport | None = None

    async def publish(self, orders: ProxyConfig | None) -> None:
        """Take the orders."""
        self._may_fail("publish")
        self.orders = orders

    async def check(self) -> str:
        """Give what a test put into `wrong`."""
        self._may_fail("check")
        return self.wrong

    async def report(self) -> DnsReport | None:
        """Give what a test put into `reported`."""
        return self.reported


class FakeDnsExtension(Extension):
    """The DNS proxy as the registry has it, with a client in memory: see `proxy`."""

    def __new__(cls) -> Self:
        gate = next(one for one in EXTENSIONS if one.name == "dns_gate")
        made = super().__new__(cls, *gate)
        made.proxy = FakeDnsGate()
        return made

    def load(self) -> SimpleNamespace:
        """Give a module whose part talks to `proxy`."""
        return SimpleNamespace(
            make_part=lambda environment: DnsProxyPart(environment, self.proxy, has_user=True)
        )


class FakeBypassScan(Failing):
    """ports.BypassScanPort over `host`, which a test replaces."""

    def __init__(self, host: HostReading | None = None) -> None:
        super().__init__()
        self.host = host or HostReading()

    async def scan(self, host: HostReading) -> HostReading:
        """Give the host that a test put here, whatever was read of the links."""
        self._may_fail("scan")
        return self.host


class FakeExitTable:
    """The second lock's table: holds the lock that was applied last."""

    def __init__(self) -> None:
        self.lock = None
        self.applied: list = []
        self.wholes: list[bool] = []
        self.fail = ""
        self.counts: tuple = ()
        self.dropped: tuple = ()

    def _may_fail(self) -> None:
        if self.fail:
            raise KernelError(self.fail)

    async def apply(self, lock, *, whole=False) -> None:
        self._may_fail()
        self.lock = lock
        self.applied.append(lock)
        self.wholes.append(whole)

    async def remove(self) -> None:
        self._may_fail()
        self.lock = None
        self.applied.append(None)

    async def read_counts(self, _lock) -> ExitReading:
        self._may_fail()
        return ExitReading(self.lock is not None, counts=self.counts, dropped=self.dropped)

    async def read_table(self, lock) -> ExitReading:
        self._may_fail()
        faults = () if self.lock == lock else ("it is another",)
        return ExitReading(
            stands=self.lock is not None,
            faults=faults,
            counts=self.counts if self.lock else (),
            dropped=self.dropped if self.lock else (),
        )
