"""The two address families and the fields that belong to each."""

from dataclasses import dataclass
from ipaddress import ip_network

from ecluse.policy import network_interval
from ecluse.ruleset import program as p


@dataclass(frozen=True, slots=True)
class Family:
    """One of the two address families and the fields that belong to it."""

    digit: str
    nfproto: str
    type: str
    version: int
    bits: int
    original_source: p.Field
    original_destination: p.Field
    reply_source: p.Field
    source: p.Field
    destination: p.Field
    icmp_type: p.Field
    icmp_errors: tuple[int, ...]
    """Unreachable, (packet too big,) time exceeded, parameter problem (RFC 792, RFC 4443): what an
    ICMP error is.
    """


IPV4 = Family(
    "4",
    "ipv4",
    "ipv4_addr",
    4,
    32,
    p.CT_SADDR4,
    p.CT_DADDR4,
    p.CT_REPLY_SADDR4,
    p.SADDR4,
    p.DADDR4,
    p.ICMP_TYPE,
    (3, 11, 12),
)
IPV6 = Family(
    "6",
    "ipv6",
    "ipv6_addr",
    6,
    128,
    p.CT_SADDR6,
    p.CT_DADDR6,
    p.CT_REPLY_SADDR6,
    p.SADDR6,
    p.DADDR6,
    p.ICMPV6_TYPE,
    (1, 2, 3, 4),
)
FAMILIES = (IPV4, IPV6)


LINK_LOCAL6 = network_interval(ip_network("fe80::/10"))
"""fe80::/10 (RFC 4291, 2.5.6)."""
