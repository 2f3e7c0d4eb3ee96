"""A connection as the kernel's conntrack has it: the tuples that every packet is judged by."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a connection as conntrack has it (nf_conntrack_tuple).

    Ports are 0 where the protocol has none.
    """

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    destination_port: int


@dataclass(frozen=True, slots=True)
class ConntrackEntry:
    """An entry of the kernel's connection table.

    protocol: IANA number. packets, bytes: both directions together, 0 when the kernel does not
    account.
    answered: the other end has answered (IPS_SEEN_REPLY).
    spoofed: who opened it wrote an address that does not live where the packet came from (the label
    `names.SPOOFED`).
    ours: one of our own programs asked a resolver by it (`names.OURS`; not read from the kernel,
    which alone has to know).
    handle: the kernel's own attribute bytes (tuple, zone, id) that a delete has to send back;
    opaque.
    """

    protocol: int
    original: Tuple
    reply: Tuple
    handle: bytes = b""
    packets: int = 0
    bytes: int = 0
    answered: bool = True
    spoofed: bool = False
    ours: bool = False
