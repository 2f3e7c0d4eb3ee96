"""What the controller talks to.

Each port is small; adapters in kernel/, resolve/ and state/ fill them, fakes.py too.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from ecluse.faults import Fault
from ecluse.flow_judge import ConntrackEntry
from ecluse.host_reading import HostReading
from ecluse.policy import IPAddress, Levels, Policy
from ecluse.records import AuditRecord, Generation, KnownName, NameStatistics
from ecluse.results import TableUse
from ecluse.ruleset.program import NamedSet
from ecluse.ruleset.proxy_config import ProxyConfig
from ecluse.ruleset.switch import Position


@dataclass(frozen=True, slots=True)
class CounterValue:
    """A named counter: packets and bytes since it was made."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RefusedElement:
    """One element of a refused set. destination empty and port 0 for the per-source sets.

    protocol: IANA number. idle: seconds since its last packet.
    """

    source: str
    destination: str
    protocol: int
    port: int
    packets: int
    bytes: int
    idle: int


class SetReading(NamedTuple):
    """What bounded sets of the kernel hold.

    full: one of them has no room. unread: elements that are of another kind.
    """

    rows: tuple[RefusedElement, ...]
    full: bool
    unread: int = 0


@dataclass(frozen=True, slots=True)
class KernelChange:
    """A transaction that the kernel announced (NFT_MSG_NEWGEN, nf_tables uapi).

    ours: made through our own libnftables context. touched: names the `inet ecluse` table.
    what: what it did to our table, in words (`table deleted`, `rule deleted in chain forward`).
    lost: events were lost (ENOBUFS); nothing else in it is to be trusted, compare everything.
    generation: the ruleset's generation id that it made.
    gone: it deleted our table and made none in its place.
    filled: a set of the DNS gate that it put addresses into or took some out of; that alone is no
    touch.
    """

    process: str
    pid: int
    ours: bool
    touched: bool
    what: str
    lost: bool = False
    generation: int = 0
    filled: str = ""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class SwitchReading:
    """Where the switch stands in the kernel, all of it as of one transaction.

    See `Firewall.targets`, `policies`.

    hooks: where each base chain hangs, as `ruleset.switch.HOOKS` says it; none does while the table
    is dormant.
    generation: the ruleset's generation id that it was read at.
    """

    targets: Mapping[str, str | None]
    policies: Mapping[str, str]
    hooks: Mapping[str, str]
    generation: int


class Firewall(Protocol):
    """nf_tables: texts and values go in, readings come out.

    One transaction at a time, on one thread.
    """

    async def check(self, text: str) -> None:
        """Ask the kernel whether it would take `text` (dry run).

        RulesetRejectedError with libnftables' own words.
        """

    async def apply(self, text: str) -> None:
        """Apply `text` as one transaction, whole or not at all. KernelError when it was refused."""

    async def switch(self, position: Position) -> str:
        """Put the switch into this position: one transaction, whole or not at all.

        Returns:
            What went wrong although the switch is made, in words; mostly empty.

        Raises:
            KernelError: it was refused.
        """

    async def change_elements(self, gone: Sequence[NamedSet], come: Sequence[NamedSet]) -> None:
        """Delete elements of maps and add others: one transaction, whole or not at all.

        Args:
            gone: the elements to delete, by map.
            come: the elements to add, by map.

        Raises:
            KernelError: it was refused.
        """

    def apply_closed_table(self, inside: Sequence[str]) -> bool:
        """Shut the gate by the smallest table there is, where none stands; False where one does.

        At once, on the caller's thread, whatever else is under way.

        Args:
            inside: the zones' interfaces; between them all packets pass.

        Raises:
            KernelError: it was refused.
        """

    async def read_switch(self, chains: Iterable[str]) -> SwitchReading:
        """Read these chains' targets, and the base chains' policies and hooks.

        All of it as of one transaction.
        """

    async def targets(self, chains: Iterable[str]) -> dict[str, str | None]:
        """Read chains of table `inet ecluse` back.

        Each gives its goto target if it consists of just one goto, else None.

        A chain (or table) that does not exist gives None.
        """

    async def policies(self) -> dict[str, str]:
        """Give the policy of every base chain of table `inet ecluse`: `accept` or `drop`."""

    async def chains(self) -> tuple[str, ...]:
        """Name every chain of table `inet ecluse`, sorted; empty when there is no table."""

    async def objects(self) -> dict[str, tuple[str, ...]]:
        """Name what table `inet ecluse` holds, sorted; empty when there is no table.

        Keys are `chain`, `set`, `map`, `counter`; further ones (`flowtable`, `quota`, ..., as nft
        calls them) only where somebody made such a thing.
        """

    async def fingerprint(self, sets: Iterable[str] | None = None) -> dict[str, str]:
        """Digest table `inet ecluse`, by part; empty when there is no table.

        Parts: the elements of each set or map under its name, all else under the empty name: table
        flags, chains with hook and priority, rules, sets and maps themselves. Not in it: rules of
        base and gate chains (read with `targets`), base chains' policies (`policies`), handles,
        counters, dynamic sets' elements. Digests compare within one process only.

        sets: digest the elements of these alone.
        """

    async def ruleset_generation(self) -> int:
        """Give nf_tables' generation id of this network namespace: every transaction changes it."""

    async def counters(self) -> dict[str, CounterValue]:
        """Read every named counter of table `inet ecluse`; empty when there is no table."""

    async def learned(self) -> dict[str, frozenset[int]]:
        """Read the addresses in the DNS proxy's sets, by set, as numbers; empty without a proxy."""

    async def half_expired(
        self, used: Mapping[str, frozenset[IPAddress]]
    ) -> Mapping[str, frozenset[IPAddress]]:
        """Give those of these learned addresses, by set, half of whose time is over.

        An address that is not in its set is none of them.
        """

    async def renew_learned(self, addresses: Mapping[str, frozenset[IPAddress]]) -> None:
        """Give learned addresses, by set, their whole time again; one transaction."""

    async def refused(self) -> SetReading:
        """Read the refused sets (refused4, refused6, refused_hosts4, refused_hosts6)."""

    async def limited(self) -> SetReading:
        """Read which machines asked the DNS proxy more than they may, within the last hour.

        Counted are the packets that were dropped.
        """

    def changes(self) -> AsyncIterator[KernelChange]:
        """Give every transaction from now on, in order, ours included."""


class Conntrack(Protocol):
    """The kernel's connection table of this network namespace (nfnetlink_conntrack).

    unread: entries that the last reading left out, as they are of no kind that we know.
    """

    unread: int

    async def connections(self) -> Sequence[ConntrackEntry]:
        """Read the whole table, both families."""

    async def end(self, connections: Iterable[ConntrackEntry]) -> int:
        """Delete these entries; give how many were still there.

        One that is already gone is no error.
        """

    async def enable_accounting(self) -> bool:
        """Turn on nf_conntrack_acct so that entries count packets.

        False when that was not possible.
        """


class Links(Protocol):
    """Interfaces and addresses of this network namespace (rtnetlink)."""

    async def read_links(self) -> HostReading:
        """Read devices and addresses as they are now, and nothing else. KernelError."""

    async def read_host(self) -> HostReading:
        """Read the same and the default routes; with thousands of routes it takes a while.

        KernelError.
        """

    async def table_uses(self) -> tuple[TableUse, ...]:
        """Read how full those of the kernel's tables are that have a bound. KernelError."""

    async def local_addresses(self) -> frozenset[str]:
        """Give every address of the machine itself, as text."""

    async def reached_by(self, addresses: Iterable[IPAddress]) -> dict[IPAddress, str]:
        """Say by which interface the machine would reach each address. KernelError.

        An address with no route is left out.
        """

    def changes(self) -> AsyncIterator[str]:
        """Give an item, in words, whenever an interface, an address or a route comes or goes."""


class BypassScanPort(Protocol):
    """What on this machine may carry packets past the gate.

    Sources: rtnetlink, tc, other tables of nf_tables, sysctls.
    """

    async def scan(self, host: HostReading) -> HostReading:
        """Add all of it to a reading of links and routes; takes a while, changes nothing.

        KernelError.
        """


class Resolver(Protocol):
    """Host names to addresses, ahead of time. Never asked during a trigger."""

    def known(self) -> Mapping[str, KnownName]:
        """Give all that is known now, without asking anybody."""

    def tallies(self) -> Mapping[str, NameStatistics]:
        """Give what came of the look-ups so far, by name."""

    def watch(
        self,
        names: Iterable[str],
        servers: Sequence[tuple[str, int]],
        private: AbstractSet[str] = frozenset(),
    ) -> None:
        """Keep these names fresh from now on by these servers (address, port), and forget others
        once they are old.

        private: those of them that may lead to private addresses.
        """

    def due(self) -> Mapping[str, frozenset[str]]:
        """Give the addresses whose time is over, by name: to be let go unless a connection to them
        lives.

        None leaves by itself, whatever an answer says.
        """

    def used(self, addresses: Mapping[str, AbstractSet[str]]) -> None:
        """Take note that connections to these addresses, by name, were just found alive: their time
        begins anew.
        """

    def let_go(self, addresses: Mapping[str, AbstractSet[str]]) -> None:
        """Forget these addresses, by name; `changes` tells it.

        One that an answer has given again meanwhile stays.
        """

    def changes(self) -> AsyncIterator[frozenset[str]]:
        """Give the names whose addresses changed, whenever some did."""

    async def refresh(self, names: Iterable[str], seconds: float) -> Mapping[str, KnownName]:
        """Ask for these names now, for at most `seconds`; give what is known then."""


@dataclass(frozen=True, slots=True)
class DeniedQuery:
    """A name that a machine asked the DNS gate for in vain.

    why: `name`, `type`, `length`. last: UNIX time.
    """

    client: str
    name: str
    type: str
    why: str
    times: int
    last: float


@dataclass(frozen=True, slots=True)
class DnsReport:
    """What the DNS gate's process tells.

    strained: why what its engine let through did not leave, and how often.

    removed: addresses that somebody else put into its sets, and it took out; removed_last: the
    newest, and where.
    adopted: those that it found when its record was lost, and left. unread: rows, of the engine's
    log or of the report itself, that are no such rows and are left out. validating: machines that
    asked for keys of zones in the last hour.
    """

    trouble: tuple[str, ...]
    starts: int
    learned: int
    strained: Mapping[str, int]
    refused: int
    questions: tuple[DeniedQuery, ...]
    removed: int = 0
    removed_last: str = ""
    adopted: int = 0
    unread: int = 0
    validating: tuple[str, ...] = ()


class DnsProxyPort(Protocol):
    """The process that answers the zones' DNS, seen from the daemon."""

    async def publish(self, orders: ProxyConfig | None) -> None:
        """Have it work by these orders (None: not at all).

        StateError when they could not be written.
        """

    async def check(self) -> str:
        """Ask whether it works by the orders that were published; give what is wrong, empty when
        nothing is.
        """

    async def report(self) -> DnsReport | None:
        """Read what it told last."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the state directory says at start.

    first_install: nothing was ever recorded here.
    generations: every one that can be read, by number. recorded: the newest readable one, None when
    there is none.
    boot_levels: levels that the boot ruleset says, None when it is missing or damaged.
    audit_levels: levels of the audit log's last applied change, None when unknown.
    intent: a change that was begun and not recorded as done.
    damage: each file that is missing, torn or altered, in words, with what was made of it.
    by_hand: closings that were made without the daemon, for the audit log. closed_by_hand: the
    level of the newest of them if it came after the newest generation, else empty.
    """

    first_install: bool
    generations: Mapping[int, Generation]
    recorded: Generation | None
    boot_levels: Levels | None
    audit_levels: Levels | None
    intent: Generation | None
    damage: tuple[str, ...]
    by_hand: tuple[AuditRecord, ...] = ()
    closed_by_hand: str = ""


class StateStore(Protocol):
    """The state directory.

    Every write but the intent's is durable when it returns (fsync of file and folder).

    StateError when not.
    """

    def recover(self) -> Recovered:
        """Read everything, repair what can be (a torn audit tail), say what was found."""

    def write_intent(self, generation: Generation) -> None:
        """Record a change that is about to be made, for a daemon that is killed in the middle of
        it.
        """

    def clear_intent(self) -> None:
        """Forget the intent: the change is recorded, or was not made."""

    def write_generation(self, generation: Generation) -> None:
        """File an applied state, so that one can go back to it; `point_boot` has recorded it
        already.
        """

    def digest_policy(self, policy: Policy) -> str:
        """Give the digest under which `write_policy` would store a policy; writes nothing."""

    def write_policy(self, policy: Policy) -> str:
        """Store a policy under its digest (`sha256:HEX`); give the digest.

        The same policy is stored once.
        """

    def read_policy(self, digest: str) -> Policy:
        """Read a stored policy.

        StateError when missing, CorruptError when it is not what was written.
        """

    def write_program(self, text: str, gates: Mapping[str, str]) -> str:
        """Store a compiled ruleset (the whole table) and one small ruleset file for each level;
        give its name.

        gates: level name -> the gate transaction that sets every zone to it. Each becomes
        `ruleset/LEVEL.nft`, complete by itself (`nft -f` of it needs nothing else): it includes the
        program.
        """

    def has_program(self, name: str) -> bool:
        """Say whether a program of that name is stored. Costs no reading of it."""

    def point_boot(
        self, program: str, gate: str, generation: Generation, *, spare: bool = False
    ) -> None:
        """Make `boot.nft` the named program with this gate text, and record the state that it sets:
        both or neither.

        spare: on a full disk use the room that `keep_room` keeps.
        """

    def keep_room(self) -> None:
        """Take room on the disk beforehand, for records of closings on a disk that is full by then."""

    def write_closed(self, text: str) -> None:
        """Store `closed.nft`, the ruleset of last resort."""

    def forget(self, keep_generations: int) -> None:
        """Delete generations older than the newest `keep_generations`, and policies and programs
        that nothing uses.
        """

    def forget_by_hand(self) -> None:
        """Delete the notes of closings without the daemon: they are in the audit log."""

    def read_names(self) -> Mapping[str, KnownName]:
        """Read the saved addresses of host names; empty when missing or damaged (damage shows in
        recover()).
        """

    def write_names(self, names: Mapping[str, KnownName]) -> None:
        """Save the addresses of host names."""


class AuditLog(Protocol):
    """The append-only, hash-chained record of who did what."""

    def append(self, record: AuditRecord, *, spare: bool = False) -> None:
        """Write one line, durably.

        StateError when it could not be written. spare: as for `StateStore.point_boot`.
        """


class PolicySource(Protocol):
    """The configuration directory."""

    def load(self) -> Policy:
        """Read and validate the files. ConfigError with every fault."""

    def warnings(self) -> Sequence[Fault]:
        """Give what is odd but not wrong in what was loaded last (a review date passed, overlapping
        services).

        It takes its time after a load.
        """


Clock = Callable[[], datetime]
"""Gives the time now, aware, UTC."""
