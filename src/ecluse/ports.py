"""What the controller talks to: one Protocol for each part of the outside.

Adapters in kernel/, dnsproxy/, resolve/, state/ and config/ implement them; tests have fakes.
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
from ecluse.results import RefusedFlow, TableUse
from ecluse.ruleset.program import NamedSet
from ecluse.ruleset.switch import SwitchState


@dataclass(frozen=True, slots=True)
class CounterValue:
    """A named counter: packets and bytes since it was made."""

    packets: int
    bytes: int


class SetReading(NamedTuple):
    """What bounded sets of the kernel hold.

    rows: their zone is not known here, and empty. full: one of them has no room. unread: elements
    that are of another kind.
    """

    rows: tuple[RefusedFlow, ...]
    full: bool
    unread: int = 0


@dataclass(frozen=True, slots=True)
class KernelChange:
    """A transaction that the kernel announced (NFT_MSG_NEWGEN, linux/netfilter/nf_tables.h).

    ours: made through our own libnftables context. touched: names the `inet ecluse` table.
    what: what it did to our table, in words (`table deleted`, `rule deleted in chain forward`).
    lost: events were lost (ENOBUFS); nothing else in it is to be trusted, compare everything.
    generation: the generation id that it made. gone: it deleted our table and made none instead.
    filled: a set of the DNS proxy that it added to or took from; that alone is not touched.
    second_lock: what it did to the table of the second lock, in words; what is learned is left out.
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
    second_lock: str = ""


@dataclass(frozen=True, slots=True)
class SwitchReading:
    """Where the switch stands in the kernel, all of it as of one transaction.

    targets, policies: as `Firewall.targets` and `Firewall.policies` give them.
    hooks: where each base chain hangs, as `ruleset.switch.HOOKS` says it; none while the table is
    dormant.
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

    async def switch(self, position: SwitchState) -> str:
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

    @property
    def flowtable_may_stand(self) -> bool:
        """Say whether a flowtable of ours may stand (`ruleset.flowtable`).

        Every transaction above that may take something away ends it.
        """

    async def make_flowtable(self, devices: Sequence[str]) -> None:
        """Put a new flowtable, without flows, in the place of the one before: one transaction.

        KernelError: it was refused, and what stood stands.
        """

    async def end_flowtable(self) -> None:
        """Take the flowtable away, whether it stands or not: one transaction. KernelError."""

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
        """Read chains of table `inet ecluse` back, by name.

        Each gives its goto target if it consists of just one goto, else None. A chain (or table)
        that does not exist gives None. `table_names.IDLE_CHAINS` give "" where they have no rule.
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
        """Delete these entries; give how many were still there. One that is gone is no error."""

    async def enable_accounting(self) -> bool:
        """Turn on nf_conntrack_acct so that entries count packets. False when that failed."""


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
        """Give all that is known now, without a question to any resolver."""

    def tallies(self) -> Mapping[str, NameStatistics]:
        """Give the statistics of the look-ups so far, by name."""

    def watch(
        self,
        names: Iterable[str],
        servers: Sequence[tuple[str, int]],
        private: AbstractSet[str] = frozenset(),
    ) -> None:
        """Keep these names fresh from now on, and forget others once they are old.

        Args:
            names: all names to keep fresh.
            servers: the resolvers to ask, as address and port.
            private: those of the names that may lead to private addresses.
        """

    def due(self) -> Mapping[str, frozenset[str]]:
        """Give the addresses whose time is over, by name.

        They are to be let go (`let_go`) unless a connection to them lives: none leaves by itself,
        whatever an answer says.
        """

    def used(self, addresses: Mapping[str, AbstractSet[str]]) -> None:
        """Begin the time of these addresses, by name, again: connections to them are alive."""

    def let_go(self, addresses: Mapping[str, AbstractSet[str]]) -> None:
        """Forget these addresses, by name; `changes` gives the names.

        An address that an answer has given again meanwhile stays.
        """

    def changes(self) -> AsyncIterator[frozenset[str]]:
        """Give the names whose addresses changed, whenever some did."""

    async def refresh(self, names: Iterable[str], seconds: float) -> Mapping[str, KnownName]:
        """Ask for these names now, for at most `seconds`; give what is known then."""


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

    Every write but the intent's is durable when it returns (fsync of file and folder); StateError
    when it is not.
    """

    def recover(self) -> Recovered:
        """Read everything, repair what can be (a torn audit tail), say what was found."""

    def write_intent(self, generation: Generation) -> None:
        """Record a change that is about to be made, should the daemon be killed in the middle."""

    def clear_intent(self) -> None:
        """Forget the intent: the change is recorded, or was not made."""

    def write_generation(self, generation: Generation) -> None:
        """File an applied state, which `point_boot` recorded already, so that one can go back."""

    def digest_policy(self, policy: Policy) -> str:
        """Give the digest under which `write_policy` would store a policy; writes nothing."""

    def write_policy(self, policy: Policy) -> str:
        """Store a policy under its digest (`sha256:HEX`), once; give the digest."""

    def read_policy(self, digest: str) -> Policy:
        """Read a stored policy.

        Raises:
            StateError: it is missing.
            CorruptError: it is not what was written.
        """

    def write_program(self, text: str, gates: Mapping[str, str]) -> str:
        """Store a compiled ruleset and one small ruleset file for each level; give its name.

        Args:
            text: the whole table.
            gates: level name -> the transaction that sets every zone to it. Each becomes
                `ruleset/LEVEL.nft`, which includes the program: `nft -f` of it needs nothing else.
        """

    def has_program(self, name: str) -> bool:
        """Say whether a program of that name is stored. Costs no reading of it."""

    def point_boot(
        self, program: str, gate: str, generation: Generation, *, use_reserve: bool = False
    ) -> None:
        """Make `boot.nft` the named program at a state, and record that state: both or neither.

        Args:
            program: its name (`write_program`).
            gate: the transaction that sets the levels.
            generation: the state.
            use_reserve: on a full disk, use the space that `fill_disk_reserve` reserved.
        """

    def fill_disk_reserve(self) -> None:
        """Reserve disk space for records of closings on a disk that is full by then."""

    def write_boot_lock(self, text: str) -> None:
        """Store `boot-lock.nft`, the second lock at boot; an empty text removes it."""

    def write_closed(self, text: str) -> None:
        """Store `closed.nft`, the ruleset of last resort."""

    def forget(self, keep_generations: int) -> None:
        """Delete all but the newest generations, and policies and programs that nothing uses."""

    def remove_offline_closings(self) -> None:
        """Delete the notes of closings without the daemon: they are in the audit log."""

    def read_names(self) -> Mapping[str, KnownName]:
        """Read the saved addresses of host names; empty when missing or damaged.

        Damage shows in `recover`.
        """

    def write_names(self, names: Mapping[str, KnownName]) -> None:
        """Save the addresses of host names."""


class AuditLog(Protocol):
    """The append-only, hash-chained record of who did what."""

    def append(self, record: AuditRecord, *, use_reserve: bool = False) -> None:
        """Write one line, durably. StateError. use_reserve: as for `StateStore.point_boot`."""


class PolicySource(Protocol):
    """The configuration directory."""

    def load(self) -> Policy:
        """Read and validate the files. ConfigError with every fault."""

    def warnings(self) -> Sequence[Fault]:
        """Give what is odd but not wrong in what was loaded last, such as a past review date.

        It takes its time after a load.
        """


Clock = Callable[[], datetime]
"""Gives the time now, aware, UTC."""
