"""An nftables program as values: what the compiler makes, what is written as text, what the oracle
evaluates.

One representation serves all three, so that the oracle judges by what the kernel is given.
Syntax: nft(8). Only constructs that nftables 1.0.6 and Linux 6.1 know are used.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from socket import inet_ntoa

TABLE = "inet ecluse"
PORTS = (6, 17, 33, 132, 136)
"""Protocols whose conntrack tuple holds ports: TCP, UDP, DCCP, SCTP, UDP-Lite (IANA protocol
numbers).
"""

Interval = tuple[int, int]
"""First and last value, both included."""

Key = tuple[Interval, ...]
"""One interval for each field of a set or map; an interface name is an interval of its own, see
`ifname_interval`.
"""


@dataclass(frozen=True, slots=True)
class Field:
    """A thing that a rule reads from a packet: how nft writes it, and nft's type of it."""

    text: str
    type: str


IIF = Field("iif", "integer")
"""Index of the link that a packet came by; 0 where it came by none: the machine itself made it."""
IIFNAME = Field("iifname", "ifname")
OIFNAME = Field("oifname", "ifname")
SDIF = Field("meta sdif", "integer")
"""Index of the link that a packet came by where `iif` is its VRF; 0 where it is not (inet_sdif;
forward and input alone).
"""
SDIFNAME = Field("meta sdifname", "ifname")
"""That link's name; empty where the packet came by no VRF, so it is asked only where `sdif` is not
0.
"""
IIFKIND = Field("meta iifkind", "ifname")
SOURCE_ROUTE = Field("fib saddr oifname", "ifname")
"""The interface by which the source would be reached (nft_fib); none for an address of the machine
itself.
"""
NFPROTO = Field("meta nfproto", "nf_proto")
L4PROTO = Field("meta l4proto", "inet_proto")
SKUID = Field("meta skuid", "uid")
CT_STATE = Field("ct state", "ct_state")
CT_STATUS = Field("ct status", "ct_status")
CT_LABEL = Field("ct label", "ct_label")
CT_DIRECTION = Field("ct direction", "ct_dir")
CT_PROTOCOL = Field("ct protocol", "inet_proto")
CT_PORT = Field("ct original proto-dst", "inet_service")
SADDR4 = Field("ip saddr", "ipv4_addr")
DADDR4 = Field("ip daddr", "ipv4_addr")
SADDR6 = Field("ip6 saddr", "ipv6_addr")
DADDR6 = Field("ip6 daddr", "ipv6_addr")
TTL4 = Field("ip ttl", "integer")
LENGTH6 = Field("ip6 length", "integer")
"""Bytes after the IPv6 header."""
HOPLIMIT6 = Field("ip6 hoplimit", "integer")
TH_DPORT = Field("th dport", "inet_service")
UDP_SPORT = Field("udp sport", "inet_service")
UDP_DPORT = Field("udp dport", "inet_service")
ICMP_TYPE = Field("icmp type", "icmp_type")
ICMPV6_TYPE = Field("icmpv6 type", "icmpv6_type")
CT_SADDR4 = Field("ct original ip saddr", "ipv4_addr")
CT_DADDR4 = Field("ct original ip daddr", "ipv4_addr")
CT_SADDR6 = Field("ct original ip6 saddr", "ipv6_addr")
CT_DADDR6 = Field("ct original ip6 daddr", "ipv6_addr")
CT_REPLY_SADDR4 = Field("ct reply ip saddr", "ipv4_addr")
CT_REPLY_SADDR6 = Field("ct reply ip6 saddr", "ipv6_addr")

Value = int | str | Interval


@dataclass(frozen=True, slots=True)
class Match:
    """The field has one of these values (an address interval is written as a range); `negate` turns
    it round.
    """

    field: Field
    values: tuple[Value, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class InSet:
    """The fields, joined, are in a named set; `negate` turns it round."""

    fields: tuple[Field, ...]
    set: str
    negate: bool = False


@dataclass(frozen=True, slots=True)
class CountByMap:
    """Count the packet into the counter that a map gives; a packet that the map does not know ends
    the rule here.
    """

    fields: tuple[Field, ...]
    map: str


@dataclass(frozen=True, slots=True)
class Counter:
    """Count the packet into a named counter."""

    counter: str


@dataclass(frozen=True, slots=True)
class AddToSet:
    """Record the packet's fields in a bounded dynamic set; a full set ends the rule here
    (nft_dynset breaks).

    lasts: how long the element stays after its last packet, as nft writes it.
    """

    fields: tuple[str, ...]
    set: str
    lasts: str = "1d"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many packets a second pass on to the rest of the rule."""

    per_second: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """accept, drop, goto CHAIN or jump CHAIN."""

    kind: str
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop with an answer: `tcp reset` or `icmpx admin-prohibited`."""

    reply: str


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """Jump where a map of verdicts says; what it does not know, or is not judged there, passes on
    to the next rule.
    """

    fields: tuple[Field, ...]
    map: str


@dataclass(frozen=True, slots=True)
class RefreshInSet:
    """Begin the time-out of an element of a learned set anew; what is not in it any more is put in."""

    field: Field
    set: str


@dataclass(frozen=True, slots=True)
class RateOver:
    """Pass on to the rest of the rule what is more than so many packets a second of one source
    (twice as many at once).
    """

    field: Field
    set: str
    per_second: int


@dataclass(frozen=True, slots=True)
class ToThisMachine:
    """The packet's destination is an address of the machine itself."""


@dataclass(frozen=True, slots=True)
class ReversePathOk:
    """The way back to the packet's source leads by the interface that it came by: nobody else wrote
    that source.
    """


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the connection to this port of the machine itself (nat chains only)."""

    port: int


@dataclass(frozen=True, slots=True)
class SetConntrack:
    """What conntrack is told of the packet or its connection; the last part of a rule that says no
    more of it.
    """

    what: str


Part = (
    Match
    | InSet
    | CountByMap
    | Counter
    | AddToSet
    | RateLimit
    | Verdict
    | Reject
    | VerdictMap
    | RefreshInSet
    | RateOver
    | ToThisMachine
    | ReversePathOk
    | Redirect
    | SetConntrack
)
Rule = tuple[Part, ...]

ACCEPT = Verdict("accept")
DROP = Verdict("drop")
RETURN = Verdict("return")
LOCAL = ToThisMachine()
NOTRACK = SetConntrack("notrack")
FROM_HERE = ReversePathOk()


def goto(chain: str) -> Verdict:
    """Go to a chain and never come back."""
    return Verdict("goto", chain)


def jump(chain: str) -> Verdict:
    """Go to a chain and come back when it has said nothing."""
    return Verdict("jump", chain)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain without a hook; base chains belong to the skeleton."""

    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set (`value` empty) or map: key types, and elements from key to value, disjoint, in order.

    value: `counter` for a map to named counters, `verdict` for a map to chains (the element's value
    is the chain of a jump), empty for a set (values empty).
    by_name: filled from addresses of host names alone, so that DNS changes no other set.
    """

    name: str
    types: tuple[str, ...]
    interval: bool
    value: str
    elements: dict[Key, str]
    by_name: bool = False

    @property
    def is_bulk(self) -> bool:
        """Say whether its elements may be many, and go to the kernel by `Firewall.elements`, not in
        a text.
        """
        return self.value == "counter"

    def empty(self) -> "NamedSet":
        """Give the same set or map without elements."""
        return replace(self, elements={})


@dataclass(frozen=True, slots=True)
class Program:
    """All that one policy needs in the kernel under one slot number. Loading it touches no traffic.

    learned: the sets that the DNS gate fills, which belong to no slot; none where the site has no
    gate.
    """

    slot: int
    counters: tuple[str, ...]
    sets: tuple[NamedSet, ...]
    chains: tuple[Chain, ...]
    learned: tuple[str, ...] = ()

    def entries(self) -> int:
        """Count the elements of all sets and maps."""
        return sum(len(named.elements) for named in self.sets)


_IFNAMSIZ = 16


def ifname_interval(pattern: str) -> Interval:
    """Give the interval of interface names that a pattern means: one name, or all that start so
    (`vlan*`).

    Names compare as 16 zero-filled bytes, as in the kernel (IFNAMSIZ, nft's wildcard interval).
    """
    wild = pattern.endswith("*")
    raw = pattern.rstrip("*").encode()
    low = int.from_bytes(raw.ljust(_IFNAMSIZ, b"\0"), "big")
    high = int.from_bytes(raw.ljust(_IFNAMSIZ, b"\xff"), "big") if wild else low
    return (low, high)


def _ifname_text(interval: Interval) -> str:
    raw = interval[0].to_bytes(_IFNAMSIZ, "big").rstrip(b"\0").decode()
    return f'"{raw}"' if interval[0] == interval[1] else f'"{raw}*"'


def _range_text(low: str, high: str) -> str:
    return low if low == high else f"{low}-{high}"


def interval_text(kind: str, interval: Interval) -> str:
    """Write an interval of an nft type.

    Numbers and addresses only: nothing that nft would look up.
    """
    low, high = interval
    match kind:
        case "ifname":
            return _ifname_text(interval)
        case "ipv4_addr" if low == high:
            return inet_ntoa(low.to_bytes(4, "big"))
        case "ipv4_addr":
            return _range_text(str(IPv4Address(low)), str(IPv4Address(high)))
        case "ipv6_addr":
            return _range_text(str(IPv6Address(low)), str(IPv6Address(high)))
        case _:
            return _range_text(str(low), str(high))


def _prefix_text(kind: str, interval: Interval) -> str:
    """Write an interval of addresses as a prefix, which the kernel compares quicker than a range;
    empty if it is none.
    """
    low, size = interval[0], interval[1] - interval[0] + 1
    bits = {"ipv4_addr": 32, "ipv6_addr": 128}.get(kind, 0)
    if not bits or size == 1 or size & (size - 1) or low % size:
        return ""
    return f"{interval_text(kind, (low, low))}/{bits - size.bit_length() + 1}"


def _value_text(field: Field, value: Value) -> str:
    if isinstance(value, tuple):
        return _prefix_text(field.type, value) or interval_text(field.type, value)
    if field.type == "ifname":
        return f'"{value}"'
    return str(value)


def _join(fields: Iterable[Field]) -> str:
    return " . ".join(field.text for field in fields)


def part_text(part: Part) -> str:  # noqa: C901, PLR0911, PLR0912 -- one line a construct of the language
    """Write one part of a rule as nft does."""
    match part:
        case Match(field, values, negate):
            texts = [_value_text(field, value) for value in values]
            right = texts[0] if len(texts) == 1 else "{ " + ", ".join(texts) + " }"
            return f"{field.text} {'!= ' if negate else ''}{right}"
        case InSet(fields, name, negate):
            return f"{_join(fields)} {'!= ' if negate else ''}@{name}"
        case CountByMap(fields, name):
            return f"counter name {_join(fields)} map @{name}"
        case Counter(counter):
            return f'counter name "{counter}"'
        case AddToSet(texts, name, lasts):
            return f"update @{name} {{ {' . '.join(texts)} timeout {lasts} counter }}"
        case RateLimit(rate):
            return f"limit rate {rate}/second"
        case Verdict(kind, chain):
            return f"{kind} {chain}" if chain else kind
        case Reject(reply):
            return f"reject with {reply}"
        case RefreshInSet(field, name):
            return f"update @{name} {{ {field.text} }}"
        case RateOver(field, name, rate):
            return f"update @{name} {{ {field.text} limit rate over {rate}/second burst {2 * rate} packets }}"
        case ToThisMachine():
            return "fib daddr type local"
        case SetConntrack(what):
            return what
        case ReversePathOk():
            return "fib saddr . iif oif exists"
        case Redirect(port):
            return f"redirect to :{port}"
        case VerdictMap(fields, name):
            return f"{_join(fields)} vmap @{name}"


def element_text(named: NamedSet, key: Key) -> str:
    """Write one element of a set or map, with its value."""
    text = " . ".join(
        interval_text(kind, part) for kind, part in zip(named.types, key, strict=True)
    )
    return text + _value(named, named.elements[key])


def _value(named: NamedSet, value: str) -> str:
    match named.value:
        case "counter":
            return f' : "{value}"'
        case "verdict":
            return f" : jump {value}"
        case _:
            return ""


def elements_text(named: NamedSet) -> str:
    """Write all elements of a set or map, a line each.

    What follows the first field is written once for all that share it.
    """
    first, others = named.types[0], named.types[1:]
    tails: dict[tuple[Key, str], str] = {}
    lines = []
    for key, value in named.elements.items():
        tail = tails.get((key[1:], value))
        if tail is None:
            rest = (
                f" . {interval_text(kind, part)}"
                for kind, part in zip(others, key[1:], strict=True)
            )
            tail = tails[key[1:], value] = "".join(rest) + _value(named, value)
        lines.append(interval_text(first, key[0]) + tail)
    return ",\n\t\t\t".join(lines)


def _set_head(named: NamedSet) -> str:
    kind = "map" if named.value else "set"
    value = f" : {named.value}" if named.value else ""
    lines = [f"\t{kind} {named.name} {{", f"\t\ttype {' . '.join(named.types)}{value}"]
    if named.interval:
        lines.append("\t\tflags interval")
    return "\n".join([*lines, ""])


def _chain_text(chain: Chain) -> str:
    rules = [f"\t\t{' '.join(part_text(part) for part in rule)}" for rule in chain.rules]
    return "\n".join([f"\tchain {chain.name} {{", *rules, "\t}"])


def texts(program: Program, *, bulk: bool = True) -> Iterator[tuple[str, bool]]:
    """Write a program piece by piece, as a text that adds it to table `inet ecluse`; same program,
    same bytes.

    With each piece: whether it is elements of a map that may be large (no name that belongs to a
    slot stands in it).
    bulk: these elements too; else the maps are empty. Sets that are filled by host names come last
    (`by_name_text`).
    """
    yield f"table {TABLE} {{\n", False
    yield "".join(f"\tcounter {name} {{\n\t}}\n" for name in program.counters), False
    for named in program.sets:
        yield _set_head(named), False
        if named.elements and not named.by_name and (bulk or not named.is_bulk):
            yield "\t\telements = {\n\t\t\t", False
            yield elements_text(named), named.is_bulk
            yield "\n\t\t}\n", False
        yield "\t}\n", False
    yield "".join(_chain_text(chain) + "\n" for chain in program.chains) + "}\n", False


def by_name_text(program: Program) -> str:
    """Write the elements of the maps that are filled by host names."""
    return "".join(
        f"add element {TABLE} {named.name} {{\n\t\t\t{elements_text(named)}\n}}\n"
        for named in program.sets
        if named.by_name and named.elements
    )


def render(program: Program) -> str:
    """Write a whole program as one text."""
    return "".join(text for text, _ in texts(program)) + by_name_text(program)


def structure(program: Program) -> str:
    """Write a program without the elements of maps that may be large."""
    return "".join(text for text, _ in texts(program, bulk=False))
