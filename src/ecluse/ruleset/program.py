"""An nftables program as values: what the compiler makes, what is written as text, what the oracle evaluates.

One representation serves all three, so that the oracle judges by what the kernel is given.
Syntax: nft(8). Only constructs that nftables 1.0.6 and Linux 6.1 know are used.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

TABLE = "inet ecluse"
PORTS = (6, 17, 33, 132, 136)
"""Protocols whose conntrack tuple holds ports: TCP, UDP, DCCP, SCTP, UDP-Lite (IANA protocol numbers)."""

Interval = tuple[int, int]
"""First and last value, both included."""

Key = tuple[Interval, ...]
"""One interval for each field of a set or map; an interface name is an interval of its own, see `ifname_interval`."""


@dataclass(frozen=True, slots=True)
class Field:
    """A thing that a rule reads from a packet: how nft writes it, and nft's type of it."""

    text: str
    type: str


IIFNAME = Field("iifname", "ifname")
OIFNAME = Field("oifname", "ifname")
NFPROTO = Field("meta nfproto", "nf_proto")
L4PROTO = Field("meta l4proto", "inet_proto")
SKUID = Field("meta skuid", "uid")
CT_STATE = Field("ct state", "ct_state")
CT_DIRECTION = Field("ct direction", "ct_dir")
CT_PROTOCOL = Field("ct protocol", "inet_proto")
CT_PORT = Field("ct original proto-dst", "inet_service")
SADDR4 = Field("ip saddr", "ipv4_addr")
DADDR4 = Field("ip daddr", "ipv4_addr")
SADDR6 = Field("ip6 saddr", "ipv6_addr")
DADDR6 = Field("ip6 daddr", "ipv6_addr")
TTL4 = Field("ip ttl", "integer")
HOPLIMIT6 = Field("ip6 hoplimit", "integer")
UDP_SPORT = Field("udp sport", "inet_service")
UDP_DPORT = Field("udp dport", "inet_service")
ICMPV6_TYPE = Field("icmpv6 type", "icmpv6_type")
CT_SADDR4 = Field("ct original ip saddr", "ipv4_addr")
CT_DADDR4 = Field("ct original ip daddr", "ipv4_addr")
CT_SADDR6 = Field("ct original ip6 saddr", "ipv6_addr")
CT_DADDR6 = Field("ct original ip6 daddr", "ipv6_addr")
CT_REPLY_SADDR4 = Field("ct reply ip saddr", "ipv4_addr")
CT_REPLY_SADDR6 = Field("ct reply ip6 saddr", "ipv6_addr")

Value = int | str | Interval


@dataclass(frozen=True, slots=True)
class Is:
    """The field has one of these values (an address interval is written as a range); `negate` turns it round."""

    field: Field
    values: tuple[Value, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class In:
    """The fields, joined, are in a named set; `negate` turns it round."""

    fields: tuple[Field, ...]
    set: str
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """Count the packet into the counter that a map gives; a packet that the map does not know ends the rule here."""

    fields: tuple[Field, ...]
    map: str


@dataclass(frozen=True, slots=True)
class Bump:
    """Count the packet into a named counter."""

    counter: str


@dataclass(frozen=True, slots=True)
class Note:
    """Record the packet's fields in a bounded dynamic set; a full set ends the rule here (nft_dynset breaks)."""

    fields: tuple[str, ...]
    set: str


@dataclass(frozen=True, slots=True)
class Limit:
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
class Dispatch:
    """Go where a map of verdicts says; a packet that the map does not know passes on to the next rule."""

    fields: tuple[Field, ...]
    map: str


Part = Is | In | Count | Bump | Note | Limit | Verdict | Reject | Dispatch
Rule = tuple[Part, ...]

ACCEPT = Verdict("accept")
DROP = Verdict("drop")


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

    value: `counter` for a map to named counters, `verdict` for a map to chains (the element's value is
    the chain of a goto), empty for a set (values empty).
    """

    name: str
    types: tuple[str, ...]
    interval: bool
    value: str
    elements: dict[Key, str]


@dataclass(frozen=True, slots=True)
class Program:
    """All that one policy needs in the kernel under one slot number. Loading it touches no traffic."""

    slot: int
    counters: tuple[str, ...]
    sets: tuple[NamedSet, ...]
    chains: tuple[Chain, ...]

    def entries(self) -> int:
        """Count the elements of all sets and maps."""
        return sum(len(named.elements) for named in self.sets)


_IFNAMSIZ = 16


def ifname_interval(pattern: str) -> Interval:
    """Give the interval of interface names that a pattern means: one name, or all that start so (`vlan*`).

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
    """Write an interval of an nft type. Numbers and addresses only: nothing that nft would look up."""
    low, high = interval
    match kind:
        case "ifname":
            return _ifname_text(interval)
        case "ipv4_addr":
            return _range_text(str(IPv4Address(low)), str(IPv4Address(high)))
        case "ipv6_addr":
            return _range_text(str(IPv6Address(low)), str(IPv6Address(high)))
        case _:
            return _range_text(str(low), str(high))


def _value_text(field: Field, value: Value) -> str:
    if isinstance(value, tuple):
        return interval_text(field.type, value)
    if field.type == "ifname":
        return f'"{value}"'
    return str(value)


def _join(fields: Iterable[Field]) -> str:
    return " . ".join(field.text for field in fields)


def part_text(part: Part) -> str:  # noqa: PLR0911 -- one line a construct of the language
    """Write one part of a rule as nft does."""
    match part:
        case Is(field, values, negate):
            texts = [_value_text(field, value) for value in values]
            right = texts[0] if len(texts) == 1 else "{ " + ", ".join(texts) + " }"
            return f"{field.text} {'!= ' if negate else ''}{right}"
        case In(fields, name, negate):
            return f"{_join(fields)} {'!= ' if negate else ''}@{name}"
        case Count(fields, name):
            return f"counter name {_join(fields)} map @{name}"
        case Bump(counter):
            return f'counter name "{counter}"'
        case Note(texts, name):
            return f"update @{name} {{ {' . '.join(texts)} timeout 1d counter }}"
        case Limit(rate):
            return f"limit rate {rate}/second"
        case Verdict(kind, chain):
            return f"{kind} {chain}" if chain else kind
        case Reject(reply):
            return f"reject with {reply}"
        case Dispatch(fields, name):
            return f"{_join(fields)} vmap @{name}"


def element_text(named: NamedSet, key: Key) -> str:
    """Write one element of a set or map, with its value."""
    text = " . ".join(interval_text(kind, part) for kind, part in zip(named.types, key, strict=True))
    match named.value:
        case "counter":
            return f'{text} : "{named.elements[key]}"'
        case "verdict":
            return f"{text} : goto {named.elements[key]}"
        case _:
            return text


def _set_text(named: NamedSet) -> str:
    kind = "map" if named.value else "set"
    value = f" : {named.value}" if named.value else ""
    lines = [f"\t{kind} {named.name} {{", f"\t\ttype {' . '.join(named.types)}{value}"]
    if named.interval:
        lines.append("\t\tflags interval")
    if named.elements:
        elements = ",\n\t\t\t".join(element_text(named, key) for key in named.elements)
        lines.append(f"\t\telements = {{\n\t\t\t{elements}\n\t\t}}")
    return "\n".join([*lines, "\t}"])


def _chain_text(chain: Chain) -> str:
    rules = [f"\t\t{' '.join(part_text(part) for part in rule)}" for rule in chain.rules]
    return "\n".join([f"\tchain {chain.name} {{", *rules, "\t}"])


def render(program: Program) -> str:
    """Write a program as a text that adds it to table `inet ecluse`; same program, same bytes."""
    parts = [f"table {TABLE} {{"]
    parts += [f"\tcounter {name} {{\n\t}}" for name in program.counters]
    parts += [_set_text(named) for named in program.sets]
    parts += [_chain_text(chain) for chain in program.chains]
    return "\n".join([*parts, "}", ""])
