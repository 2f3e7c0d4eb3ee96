"""What the controller answers: frozen values that the API writes as JSON, field for field."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from ecluse.alerts import Alert
from ecluse.policy import Levels
from ecluse.records import Generation


@dataclass(frozen=True, slots=True)
class AddressState:
    """An address that a service's name has now; age in whole seconds since a resolver last gave it.

    ttl: as these resolvers said. left: since when answers are without it. used: when a connection
    to it was last found alive. kept_until: when it goes if it is not given again and nobody uses
    it; None while answers have it.
    """

    name: str
    address: str
    age: int
    expired: bool
    ttl: int = 0
    resolvers: tuple[str, ...] = ()
    left: datetime | None = None
    used: datetime | None = None
    kept_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class NameState:
    """A host name of a service now.

    addresses: how many; left: how many of them are in no answer any more.

    alias: the name at the end of its CNAMEs. failure: of the last look-up. kept_until: when its
    last known good addresses go, should it never be resolved again; None while it is resolved.
    used: when a connection to one of them was last found alive. outcomes: resolver -> outcome ->
    how often, since the daemon started. warnings: what a person can do about it; what is wrong just
    now stands in the service's.
    """

    name: str
    alias: str
    asked: datetime | None
    failure: str
    addresses: int
    left: int
    kept_until: datetime | None
    used: datetime | None
    lookups: int
    outcomes: Mapping[str, Mapping[str, int]]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service now.

    state: `kept`, `partly kept` (some of its zones are), `closed`, `open` (its zones pass
    everything).

    `no link`: a level keeps it, but no interface of its zones lives; `not known`: and they could
    not be looked at.

    packets, bytes: since the table was loaded, both directions, counted only while a level judges
    (not while open).
    last_packet: when the counter was last seen to rise (it is read every few seconds).
    """

    name: str
    title: str
    criticality: str
    owner: str
    contact: str
    state: str
    zones: tuple[str, ...]
    kept_in: tuple[str, ...]
    packets: int
    bytes: int
    last_packet: datetime | None
    addresses: tuple[AddressState, ...]
    review: date | None
    warnings: tuple[str, ...]
    names: tuple[NameState, ...] = ()


@dataclass(frozen=True, slots=True)
class Leak:
    """Connections that are not kept and yet leaked while the table was away.

    As conntrack counted them. Near enough, not exact: answers count too, and packets that were
    refused until the connection was ended; and where no other rule on the machine needs conntrack,
    the kernel tracks nothing while our table is away. packets and bytes are 0 when the kernel does
    not account (net.netfilter.nf_conntrack_acct=0).
    """

    at: datetime
    connections: int
    packets: int
    bytes: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tamper:
    """Somebody else changed or deleted our table.

    process and pid are the kernel's word (NFTA_GEN_PROC_*).
    """

    at: datetime
    process: str
    pid: int
    what: str
    restored_ms: float | None


@dataclass(frozen=True, slots=True)
class Purge:
    """The end of connections that are no longer kept, after a switch.

    state: `running`, `done`, `failed`.
    """

    generation: int
    state: str
    ended: int = 0
    kept: int = 0
    examples: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class LimitedMachine:
    """A machine that asked the DNS gate more than `client_queries` a second.

    questions: those that were dropped. last: seconds since the last of them; after an hour without
    any the machine is not listed.
    """

    source: str
    zone: str
    questions: int
    last: int


@dataclass(frozen=True, slots=True)
class DnsState:
    """The DNS gate now.

    working: it answered by its configuration a moment ago. refused: questions, since it was
    started.
    learned: addresses that it has in the kernel's sets. `strained`: why answers of dnsmasq were
    withheld, and how often.
    removed: addresses that somebody else put into those sets, and it took out; removed_last: the
    newest. adopted: those that it found there when its journal was lost, and left. All since its
    process began.
    limited: machines that asked too much, the worst first, at most ten.
    validating: DNS servers of the inside that validate (DNSSEC), by their questions of the last
    hour.
    """

    mode: str
    working: bool
    learned: int
    refused: int
    strained: Mapping[str, int]
    removed: int = 0
    removed_last: str = ""
    adopted: int = 0
    limited: tuple[LimitedMachine, ...] = ()
    validating: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableUse:
    """A table of the kernel that has a bound.

    used, most: entries. knob: the sysctl that sets `most`.
    """

    name: str
    used: int
    most: int
    knob: str


@dataclass(frozen=True, slots=True)
class ExitDeviceState:
    """What left by one outside interface since the second lock stands there, in packets.

    kept: to what the level keeps. link: what the link itself needs (ARP, neighbour discovery).
    lost: dropped; the gate did not refuse it, so it came another way.
    """

    device: str
    kept: int
    link: int
    lost: int


@dataclass(frozen=True, slots=True)
class DroppedOutside:
    """What the second lock dropped.

    source: an address; of what is no IP the sender's hardware address. ethertype: of that, else 0.
    protocol: IANA number. port: the destination's; 0 for none.
    """

    source: str
    destination: str
    protocol: int
    port: int
    ethertype: int
    packets: int


@dataclass(frozen=True, slots=True)
class SecondLockState:
    """The second lock, at the outside interfaces.

    setting: when it is to stand (`isolate`, `cut`, `off`). wanted: whether that is so now. stands:
    it was as it should be when the kernel was last read: after each change and every 10 s; the
    counts are of now. why: it does not stand. being_set: it does not yet, and no more is wrong.
    since: when it came to stand; what is counted is counted from then on.
    dropped: most packets first. dropped_full: there was no room for more; `lost` counts on.
    """

    setting: str
    wanted: bool
    stands: bool
    why: str
    since: datetime | None
    devices: tuple[ExitDeviceState, ...] = ()
    dropped: tuple[DroppedOutside, ...] = ()
    dropped_full: bool = False
    being_set: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """The whole answer to 'where are we'.

    in_step: the kernel shows what it should, last checked at `checked`. alerts: what is wrong now,
    by code; warnings: the texts of these, and of everything else that somebody should know.
    """

    site: str
    title: str
    version: str
    levels: Levels
    generation: int
    since: datetime
    by: str
    reason: str
    authorised_by: str
    armed: bool
    in_step: bool
    checked: datetime
    recorded: bool
    services: tuple[ServiceStatus, ...]
    refused_packets: int
    refused_inbound_packets: int
    purge: Purge | None
    last_tamper: Tamper | None
    last_leak: Leak | None
    warnings: tuple[str, ...]
    dns: DnsState | None = None
    tables: tuple[TableUse, ...] = ()
    alerts: tuple[Alert, ...] = ()
    second_lock: SecondLockState | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The answer to a command.

    changed: False when the state was already so (still a new line in the audit log).
    kept: services with at least one zone that keeps them and is not open. ended: services that were
    passing before and now nowhere do.
    opened: services that passed nowhere before, and do now. no_link: services that a level keeps,
    of zones without a living interface alone: no packet of theirs comes.
    not_known: services that a level keeps, and the machine's links could not be looked at.
    verified: the gate was read back from the kernel. unrecorded: what could not be put on disk, in
    words; empty when all was.
    """

    generation: Generation
    changed: bool
    verified: bool
    kept: tuple[str, ...]
    ended: tuple[str, ...]
    unrecorded: tuple[str, ...]
    took_ms: float
    warnings: tuple[str, ...] = ()
    no_link: tuple[str, ...] = ()
    not_known: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveFlow:
    """One live connection, in words: `tcp 10.10.0.5:40000 -> 203.0.113.10:443`.

    service: empty when it is not kept.
    """

    flow: str
    zone: str
    service: str


@dataclass(frozen=True, slots=True)
class GatewayFlow:
    """Connections of the gateway itself with one place outside.

    protocol: its name, or number. port: that the opener addressed; 0 for none. direction: `out`
    (the gateway opened them) or `in`. packets: 0 when the kernel does not count them.
    """

    peer: str
    protocol: str
    port: int
    direction: str
    connections: int
    packets: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change would do, with nothing done.

    digest: give it back as `expect` so that what was shown is what is applied.

    services_kept, services_ended, services_opened, no_link, not_known: as in `Change`.
    connections_opened: are refused now and would pass.
    gateway_ended: what the gateway itself uses and would lose, most packets first;
    gateway_ended_more: how many more there are.
    """

    levels: Levels
    digest: str
    diff: tuple[str, ...]
    policy_changes: tuple[str, ...]
    services_kept: tuple[str, ...]
    services_ended: tuple[str, ...]
    connections_kept: int
    connections_ended: int
    examples_ended: tuple[LiveFlow, ...]
    warnings: tuple[str, ...]
    connections_opened: int = 0
    no_link: tuple[str, ...] = ()
    not_known: tuple[str, ...] = ()
    services_opened: tuple[str, ...] = ()
    gateway_ended: tuple[GatewayFlow, ...] = ()
    gateway_ended_more: int = 0


@dataclass(frozen=True, slots=True)
class RefusedFlow:
    """A flow, or a machine, whose packets are refused; destination is empty for a machine.

    last: seconds since the last packet, by the time-out of the kernel's element.
    """

    source: str
    destination: str
    protocol: str
    port: int
    packets: int
    bytes: int
    last: int
    zone: str


@dataclass(frozen=True, slots=True)
class RefusedName:
    """A name that a machine asked for and the DNS gate did not look up.

    why: `name` (not kept), `type` or `length`. last: seconds since.
    """

    client: str
    zone: str
    name: str
    type: str
    why: str
    times: int
    last: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The refused flows, most packets first, and the machines behind them, most packets first.

    The kernel's sets are bounded: `full` says that a set has no room, so that there are more than
    are listed.
    names: what the DNS gate refused, most often first. unread: rows of either that were no such
    rows, and are left out.
    """

    flows: tuple[RefusedFlow, ...]
    sources: tuple[RefusedFlow, ...]
    full: bool
    names: tuple[RefusedName, ...] = ()
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened.

    kind: `level`, `rollback`, `reload`, `start`, `purge`, `tamper`, `fight`, `leak`, `address`,
    `link`, `exit`, `warning`, `forbidden`.
    """

    at: datetime
    kind: str
    message: str
    generation: int
    levels: Levels
