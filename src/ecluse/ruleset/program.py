"""An nftables program as values: the compiler makes it, text and simulator are made from it.

One representation serves all three, so that the simulator judges by what the kernel is given. Only
constructs that nftables 1.0.6 and Linux 6.1 know are used (nft(8)).
"""

from dataclasses import dataclass

TABLE = "inet ecluse"
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
"""Protocol numbers (IANA)."""
PORTS = (TCP, UDP, 33, SCTP, 136)
"""Protocols whose conntrack tuple has ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""

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
TH_SPORT = Field("th sport", "inet_service")
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
    """The field has one of these values; `negate` inverts the test.

    An interval of addresses is written as a prefix or a range.
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
    """Count the packet into the counter that a map gives.

    For a packet whose key is not in the map, the rule ends here.
    """

    fields: tuple[Field, ...]
    map: str


@dataclass(frozen=True, slots=True)
class Counter:
    """Count the packet into a named counter."""

    counter: str


@dataclass(frozen=True, slots=True)
class AddToSet:
    """Record the packet's fields in a bounded dynamic set.

    When the set is full, the rule ends here (nft_dynset breaks). lasts: how long the element stays
    after its last packet, as nft writes it.
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
    """Jump to the chain that a map of verdicts gives.

    A packet whose key is not in the map, or that returns from the chain, goes on to the next
    rule.
    """

    fields: tuple[Field, ...]
    map: str


@dataclass(frozen=True, slots=True)
class RefreshInSet:
    """Restart the time-out of an element of a learned set; add it when it is missing."""

    field: Field
    set: str


@dataclass(frozen=True, slots=True)
class RateOver:
    """Pass to the rest of the rule what exceeds a rate per source.

    per_second: packets; twice as many may come at once.
    """

    field: Field
    set: str
    per_second: int


@dataclass(frozen=True, slots=True)
class ToThisMachine:
    """The packet's destination is an address of the machine itself."""


@dataclass(frozen=True, slots=True)
class ReversePathOk:
    """The route back to the source leads out by the interface that the packet came by.

    So nobody on another link wrote that source.
    """


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the connection to this port of the machine itself (nat chains only)."""

    port: int


@dataclass(frozen=True, slots=True)
class SetConntrack:
    """An order to conntrack about the packet or its connection.

    The last part of its rule, or before the verdict.
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
    """A set (`value` empty) or a map, with its elements: key to value, disjoint, in order.

    types: nft types of the key's fields. value: `counter` for a map to named counters, `verdict`
    for a map to chains (an element's value is the chain of a jump). from_host_names: filled from
    addresses of host names alone, so that DNS changes no other set.
    """

    name: str
    types: tuple[str, ...]
    interval: bool
    value: str
    elements: dict[Key, str]
    from_host_names: bool = False

    @property
    def is_bulk(self) -> bool:
        """Say whether it may have many elements.

        Those go to the kernel by `Firewall.change_elements`, not in a text.
        """
        return self.value == "counter"


@dataclass(frozen=True, slots=True)
class Program:
    """All that one policy needs in the kernel under one slot. Loading it affects no traffic.

    learned: the sets that the DNS proxy fills. They belong to no slot; none where the site has no
    DNS gate.
    """

    slot: int
    counters: tuple[str, ...]
    sets: tuple[NamedSet, ...]
    chains: tuple[Chain, ...]
    learned: tuple[str, ...] = ()


IFNAME_BYTES = 16


def ifname_interval(pattern: str) -> Interval:
    """Give the interval of interface names that a pattern means.

    pattern: one name, or a prefix and `*` (`vlan*`). Names compare as 16 zero-filled bytes, as in
    the kernel (IFNAMSIZ, nft's wildcard interval).
    """
    wild = pattern.endswith("*")
    raw = pattern.rstrip("*").encode()
    low = int.from_bytes(raw.ljust(IFNAME_BYTES, b"\0"), "big")
    high = int.from_bytes(raw.ljust(IFNAME_BYTES, b"\xff"), "big") if wild else low
    return (low, high)


def ifname_pattern(interval: Interval) -> str:
    """Give the name or pattern that an interval of interface names means."""
    low, high = interval
    name = low.to_bytes(IFNAME_BYTES, "big").rstrip(b"\0").decode()
    return name if low == high else f"{name}*"
