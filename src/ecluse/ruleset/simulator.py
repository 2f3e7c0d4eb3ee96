"""Judge a packet by a compiled program, in Python.

It models the kernel; property tests hold the two against each other.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ecluse.policy import IPAddress
from ecluse.ruleset import program as p
from ecluse.ruleset import table_names
from ecluse.ruleset.conntrack_entry import ConntrackEntry
from ecluse.ruleset.program import Key, NamedSet, Part, Program
from ecluse.ruleset.source_check import LABEL


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as a hook sees it. Addresses are the packet's own.

    hook: forward, input, output or postrouting. What output accepts is judged at postrouting too.
    connection: has the tuples; None for a packet that is untracked or invalid.
    direction: original or reply, of this packet in its connection.
    from_here: the route back to its source leads by `iif`.
    route: the interface by which its source is reached, empty for none.
    slave: the interface that it came by where `iif` is a VRF.
    """

    hook: str
    iif: str
    oif: str
    source: IPAddress
    destination: IPAddress
    protocol: int
    connection: ConntrackEntry | None
    direction: str = "original"
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int | None = None
    hop_limit: int = 64
    length: int = 32
    uid: int | None = None
    invalid: bool = False
    from_here: bool = False
    route: str = ""
    slave: str = ""

    @property
    def labels(self) -> frozenset[int]:
        """Give the labels of its connection."""
        one = self.connection
        marks = (one and one.spoofed, table_names.SPOOFED), (one and one.ours, table_names.OURS)
        return frozenset(label for there, label in marks if there)


@dataclass(frozen=True, slots=True)
class Judgement:
    """accept, drop or reject, and the counters that the packet was counted in, in order."""

    verdict: str
    counters: tuple[str, ...] = ()

    @property
    def service(self) -> str:
        """Name the counter of the service that keeps the packet, empty when none does."""
        found = [c for c in self.counters if c.startswith(table_names.SERVICE_COUNTER)]
        return found[-1] if self.verdict == "accept" and found else ""


class _Index:
    """Look-ups in one set or map.

    Exact keys are found in its own elements, others in intervals sorted by their first field (they
    are disjoint). A hash in the kernel (`interval` false) has exact keys alone and is not looked
    through, however large it is.
    """

    def __init__(self, named: NamedSet) -> None:
        self.named = named
        elements = named.elements.items() if named.interval else ()
        wide = sorted((key, value) for key, value in elements if not _single(key))
        self._wide = wide
        self._starts = [key[0][0] for key, _ in wide]

    def find(self, point: tuple[int, ...]) -> str | None:
        value = self.named.elements.get(tuple(zip(point, point, strict=True)))
        if value is not None:
            return value
        # First fields of two elements are equal or apart (see disjoint()), so walk back only over
        # equal starts.
        at = bisect_right(self._starts, point[0]) - 1
        start = self._starts[at] if at >= 0 else None
        while at >= 0 and self._starts[at] == start:
            key, value = self._wide[at]
            if all(lo <= x <= hi for (lo, hi), x in zip(key, point, strict=True)):
                return value
            at -= 1
        return None


def _single(key: Key) -> bool:
    return all(lo == hi for lo, hi in key)


class Indices:
    """Look-ups in the sets of a program, made when first asked for and kept for the next one.

    Programs of one slot that differ by addresses of host names share all other sets, and so their
    indices.
    """

    def __init__(self) -> None:
        self._made: dict[str, _Index] = {}

    def of(self, named: NamedSet) -> _Index:
        """Give the look-ups in this very set."""
        made = self._made.get(named.name)
        if made is None or made.named is not named:
            made = self._made[named.name] = _Index(named)
        return made


@dataclass
class Simulator:
    """A program with its gates switched.

    targets: where each base chain and gate goes (`switch.switch_targets`). learned: elements that
    the DNS proxy put into its sets. The redirect is another hook's and is not judged here: callers
    give the packet as it is after it.
    """

    program: Program
    targets: Mapping[str, str]
    policy: str = "drop"
    learned: Mapping[str, frozenset[int]] = field(default_factory=dict)
    indices: Indices = field(default_factory=Indices)

    @cached_property
    def _chains(self) -> dict[str, tuple[p.Rule, ...]]:
        chains = {chain.name: chain.rules for chain in self.program.chains}
        # A base chain without a rule has the policy accept: it stands so at `open` alone.
        chains.update(
            {
                name: ((p.goto(target) if target else p.ACCEPT,),)
                for name, target in self.targets.items()
            }
        )
        return chains

    @cached_property
    def _sets(self) -> dict[str, NamedSet]:
        return {named.name: named for named in self.program.sets}

    def judge(self, packet: Packet) -> Judgement:
        """Give the verdict on a packet at its hook."""
        counters: list[str] = []
        verdict = self._walk(packet.hook, packet, counters) or self.policy
        if packet.hook == "output" and verdict == "accept":
            verdict = self._walk("postrouting", packet, counters) or self.policy
        return Judgement(verdict, tuple(counters))

    def is_tracked(self, packet: Packet) -> bool:
        """Say whether conntrack tracks a packet that comes in.

        Not while a level judges, when an inside machine wrote an outside source.
        """
        return self._walk(table_names.RAW, packet, []) != p.NOTRACK.what

    def is_spoofed(self, packet: Packet) -> bool:
        """Say whether the connection that a packet opens gets the label SPOOFED.

        It does when its source does not live where it came from.
        """
        return self._walk(table_names.PREROUTING, packet, []) == LABEL.what

    def keeping_service(self, chain: str, packet: Packet) -> str:
        """Name the counter of the service for which a chain of look-ups keeps a packet.

        Empty when it does not keep it.
        """
        counters: list[str] = []
        verdict = self._walk(chain, packet, counters)
        return Judgement(verdict or "", tuple(counters)).service

    def find(self, name: str, point: tuple[int, ...]) -> str | None:
        """Look a point up in a set or map: its value (empty in a set), None when missing."""
        if table_names.is_learned_set(name):
            return "" if point[0] in self.learned.get(name, ()) else None
        return self.indices.of(self._sets[name]).find(point)

    def _walk(self, chain: str, packet: Packet, counters: list[str]) -> str | None:
        for rule in self._chains[chain]:
            outcome = self._rule(rule, packet, counters)
            if outcome is not None:
                return outcome or None
        return None

    def _rule(  # noqa: PLR0911 -- one line a kind of part
        self, rule: p.Rule, packet: Packet, counters: list[str]
    ) -> str | None:
        """Run one rule.

        Gives a verdict; "" when the chain ends without one; None when the next rule follows.
        """
        for part in rule:
            match part:
                case p.Verdict("jump", chain):
                    return self._walk(chain, packet, counters)
                case p.Verdict("goto", chain):
                    return self._walk(chain, packet, counters) or ""
                case p.Verdict("return"):
                    return ""
                case p.Verdict(word):
                    return word
                case p.SetConntrack(word) if part is rule[-1]:
                    return word
                case p.Reject():
                    return "reject"
                case p.VerdictMap(fields, name):
                    chain_or_none = self._find(fields, name, packet)
                    return (
                        None
                        if chain_or_none is None
                        else self._walk(chain_or_none, packet, counters)
                    )
                case _ if not self._passes(part, packet, counters):
                    return None
        return None

    def _passes(  # noqa: PLR0911 -- one line a kind of part
        self, part: Part, packet: Packet, counters: list[str]
    ) -> bool:
        match part:
            case p.Match(p.CT_LABEL, (label,)):
                return label in packet.labels
            case p.Match(what, values, negate):
                value = field_value(what, packet)
                return value is not None and any(_equal(value, v) for v in values) != negate
            case p.InSet(fields, name, negate):
                point = self._point(fields, packet)
                return point is not None and (self.find(name, point) is not None) != negate
            case p.CountByMap(fields, name):
                counter = self._find(fields, name, packet)
                if counter is not None:
                    counters.append(counter)
                return counter is not None
            case p.Counter(counter):
                counters.append(counter)
            case p.ReversePathOk():
                return packet.from_here
            case p.RateOver():
                return False  # of one packet there is never too much
            case p.ToThisMachine():
                return packet.hook == "input"
        return True

    def _find(self, fields: tuple[p.Field, ...], name: str, packet: Packet) -> str | None:
        point = self._point(fields, packet)
        return None if point is None else self.find(name, point)

    def _point(self, fields: tuple[p.Field, ...], packet: Packet) -> tuple[int, ...] | None:
        values = [field_value(what, packet) for what in fields]
        if any(value is None for value in values):
            return None
        return tuple(
            p.ifname_interval(v)[0] if isinstance(v, str) else v for v in values if v is not None
        )


def _equal(value: int | str, wanted: p.Value) -> bool:
    if isinstance(wanted, tuple):
        return isinstance(value, int) and wanted[0] <= value <= wanted[1]
    if isinstance(wanted, str) and wanted.endswith("*"):
        return isinstance(value, str) and value.startswith(wanted[:-1])
    return value == wanted


def _is_error(packet: Packet) -> bool:
    """Say whether a packet is an ICMP error about a connection.

    Source: nf_conntrack_icmpv4_error, nf_conntrack_icmpv6_error.
    """
    errors = {p.ICMP: {3, 4, 5, 11, 12}, p.ICMPV6: set(range(128))}
    return packet.connection is not None and packet.icmp_type in errors.get(packet.protocol, ())


def _status(connection: ConntrackEntry) -> str:
    """Tell whether the destination was translated.

    Whether the connection is confirmed is asked of the first packet alone, which is not.
    """
    sent, answers = connection.original, connection.reply
    there = (sent.destination, sent.destination_port)
    return "" if there == (answers.source, answers.source_port) else "dnat"


def _v4(address: IPAddress) -> int | None:
    return int(address) if address.version == 4 else None


def _v6(address: IPAddress) -> int | None:
    return int(address) if address.version == 6 else None


def _state(packet: Packet) -> str:
    if packet.connection is None:
        return "invalid" if packet.invalid else "untracked"
    return "related" if _is_error(packet) else "tracked"


_FIELD_VALUES: dict[p.Field, Callable[[Packet], int | str | None]] = {
    p.IIF: lambda k: int(bool(k.iif)),
    p.IIFNAME: lambda k: k.iif,
    p.SDIF: lambda k: int(bool(k.slave)),
    p.SDIFNAME: lambda k: k.slave,
    p.OIFNAME: lambda k: k.oif,
    p.NFPROTO: lambda k: f"ipv{k.source.version}",
    p.L4PROTO: lambda k: k.protocol,
    p.SKUID: lambda k: k.uid,
    p.CT_STATE: _state,
    p.TH_SPORT: lambda k: k.source_port if k.protocol in p.PORTS else None,
    p.TH_DPORT: lambda k: k.destination_port if k.protocol in p.PORTS else None,
    p.UDP_SPORT: lambda k: k.source_port if k.protocol == p.UDP else None,
    p.UDP_DPORT: lambda k: k.destination_port if k.protocol == p.UDP else None,
    p.ICMP_TYPE: lambda k: k.icmp_type if k.protocol == p.ICMP else None,
    p.ICMPV6_TYPE: lambda k: k.icmp_type if k.protocol == p.ICMPV6 else None,
    p.SADDR4: lambda k: _v4(k.source),
    p.DADDR4: lambda k: _v4(k.destination),
    p.SADDR6: lambda k: _v6(k.source),
    p.DADDR6: lambda k: _v6(k.destination),
    p.TTL4: lambda k: k.hop_limit if k.source.version == 4 else None,
    p.LENGTH6: lambda k: k.length if k.source.version == 6 else None,
    p.HOPLIMIT6: lambda k: k.hop_limit if k.source.version == 6 else None,
    p.SOURCE_ROUTE: lambda k: k.route,
    p.IIFKIND: lambda _: None,  # asked before routing alone, of a packet's second pass there
    p.CT_STATUS: lambda k: _status(k.connection) if k.connection else None,
    p.CT_DIRECTION: lambda k: k.direction if k.connection else None,
    p.CT_PROTOCOL: lambda k: k.connection.protocol if k.connection else None,
    p.CT_PORT: lambda k: k.connection.original.destination_port if k.connection else None,
    p.CT_SADDR4: lambda k: _v4(k.connection.original.source) if k.connection else None,
    p.CT_DADDR4: lambda k: _v4(k.connection.original.destination) if k.connection else None,
    p.CT_SADDR6: lambda k: _v6(k.connection.original.source) if k.connection else None,
    p.CT_DADDR6: lambda k: _v6(k.connection.original.destination) if k.connection else None,
    p.CT_REPLY_SADDR4: lambda k: _v4(k.connection.reply.source) if k.connection else None,
    p.CT_REPLY_SADDR6: lambda k: _v6(k.connection.reply.source) if k.connection else None,
}


def field_value(what: p.Field, packet: Packet) -> int | str | None:
    """Give a field's value; None where the kernel's expression breaks.

    It breaks for another family, without a connection, or without such a header.
    """
    return _FIELD_VALUES[what](packet)
