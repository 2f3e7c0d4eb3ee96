"""The words of the field as values: zone, service, destination, level, lifeline, policy."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

Addresses = Mapping[str, tuple[IPAddress, ...]]
"""Host name (lower case, no trailing dot) -> its addresses, both families together."""

Levels = Mapping[str, str]
"""Zone name -> level name, every zone of the site and `gateway` included."""

ADDED_LATER = MappingProxyType({"added": True})
"""Metadata of a field that came later than records were first written: it is not written while it
has its default.

So what an earlier version recorded is read as before, and keeps its digest.
"""

GATEWAY = "gateway"
"""The zone that is the machine itself. Always there, never in a file."""


class Criticality(enum.StrEnum):
    """How much care depends on a service; the site decides."""

    VITAL = "vital"
    IMPORTANT = "important"
    DEFERRABLE = "deferrable"


class FastPath(enum.StrEnum):
    """By which way packets of a kept flow pass: each by our chains, or by a flowtable."""

    CHAINS = "chains"
    FLOWTABLE = "flowtable"


class Direction(enum.StrEnum):
    """Who opens the connection: OUTBOUND the hospital, INBOUND the partner outside."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class DnsMode(enum.StrEnum):
    """When the gate answers the zones' DNS.

    never; at levels that keep only some services; or at `open` as well.
    """

    NEVER = "never"
    CUT = "cut"
    ALWAYS = "always"


class Preset(enum.StrEnum):
    """Link housekeeping that the lifeline may keep on the gateway itself."""

    DHCP = "dhcp"
    ND = "nd"
    VRRP = "vrrp"
    OSPF = "ospf"


class LinkProtocol(enum.StrEnum):
    """What a link outside needs beside IP, only where the site names it (`lifeline: link`)."""

    LACP = "lacp"
    LLDP = "lldp"
    STP = "stp"
    EAPOL = "eapol"


class SecondLock(enum.StrEnum):
    """When the second lock stands at the outside devices.

    isolate: while every zone is at a level that keeps nothing. cut: while no zone is open. off:
    never.
    """

    ISOLATE = "isolate"
    CUT = "cut"
    OFF = "off"


@dataclass(frozen=True, slots=True, order=True)
class Traffic:
    """A protocol (IANA number) and its destination ports, `first` to `last`, both included.

    Both are None for a protocol without ports (ESP, GRE, ICMP, all by number). ICMP is protocol 1
    here for both families; the compiler writes 58 for IPv6. For an inbound destination the ports
    are those that the partner connects to, before any port forward.
    """

    protocol: int
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """The outside end of a service: names and networks, and the traffic to (or from) them.

    An address is a network of full length. A multicast group of the link (OUTBOUND, the gateway
    alone) stands for what the gateway sends to it and hears from it. INBOUND: `hosts` and
    `networks` are the sources outside.
    private: host names may lead to private addresses (a partner behind a tunnel), see
    `special_addresses.py`.
    wildcards: `operator.example` stands for every name below it, not for itself; OUTBOUND alone.
    records: types of DNS records (`MX`, `SRV`) that the DNS gate answers for its names, beside
    addresses.
    """

    direction: Direction
    hosts: tuple[str, ...]
    networks: tuple[IPNetwork, ...]
    traffic: tuple[Traffic, ...]
    private: bool = field(default=False, metadata=ADDED_LATER)
    wildcards: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)
    records: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True)
class Service:
    """An external system as people know it, and who inside may use it.

    zones: every host of these zones. hosts: these inside hosts too, whatever their zone.
    """

    name: str
    title: str
    owner: str
    contact: str
    criticality: Criticality
    zones: tuple[str, ...]
    hosts: tuple[IPNetwork, ...]
    destinations: tuple[Destination, ...]
    review: date | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """A named part of the inside: interface names (a trailing `*` is a wildcard) and subnets.

    Zones may share an interface; then a packet's own address tells them apart. Subnets of two zones
    never overlap.
    """

    name: str
    title: str
    interfaces: tuple[str, ...]
    subnets: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """Which services pass.

    keeps: criticalities that pass. passes_all: everything passes, whatever the services (`open`).
    """

    name: str
    title: str
    keeps: frozenset[Criticality]
    passes_all: bool = False


@dataclass(frozen=True, slots=True)
class Lifeline:
    """What no level ever cuts: management of the gateway itself, and link housekeeping."""

    management_networks: tuple[IPNetwork, ...]
    management_ports: tuple[Traffic, ...]
    presets: tuple[Preset, ...]
    link: tuple[LinkProtocol, ...] = field(default=(), metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True)
class InternalDomains:
    """Domains of the inside (names and all below them), and the DNS servers that answer them."""

    names: tuple[str, ...]
    servers: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class DnsLimits:
    """How much one machine, and one allowed wildcard, may ask of the DNS gate.

    It bounds what can be carried out in names.

    client_queries: per second and address. wildcard_names: new names per second under one wildcard.
    label, name: characters.
    """

    client_queries: int = 50
    wildcard_names: int = 10
    label: int = 48
    name: int = 128


@dataclass(frozen=True, slots=True)
class DnsProxySettings:
    """How the gateway answers the zones' DNS.

    port: where dnsmasq listens; packets reach it only by the redirect.
    """

    mode: DnsMode = DnsMode.NEVER
    port: int = 5300
    internal: tuple[InternalDomains, ...] = ()
    limits: DnsLimits = DnsLimits()


@dataclass(frozen=True, slots=True)
class Site:
    """The hospital's side: zones, lifeline, resolvers, levels.

    levels: from `open` to `isolate`, in that order.
    """

    name: str
    title: str
    zones: tuple[Zone, ...]
    lifeline: Lifeline
    resolvers: tuple[IPAddress, ...]
    levels: tuple[Level, ...]
    dns: DnsProxySettings = field(default=DnsProxySettings(), metadata=ADDED_LATER)
    fast_path: FastPath = field(default=FastPath.CHAINS, metadata=ADDED_LATER)
    second_lock: SecondLock = field(default=SecondLock.ISOLATE, metadata=ADDED_LATER)

    def zone_of(self, address: IPAddress) -> str:
        """Name the zone in whose subnets an address lies; empty when it is in none."""
        inside = (
            zone.name
            for zone in self.zones
            if any(
                subnet.version == address.version and address in subnet for subnet in zone.subnets
            )
        )
        return next(inside, "")


@dataclass(frozen=True, slots=True)
class Policy:
    """A site and its allowlist, in the order of the files.

    All that the compiler needs but the addresses of host names.
    """

    site: Site
    services: tuple[Service, ...]

    def zone_names(self) -> tuple[str, ...]:
        """Give every zone's name in file order, then `gateway`."""
        return (*(zone.name for zone in self.site.zones), GATEWAY)

    def host_names(self) -> tuple[str, ...]:
        """Give every host name that a service uses, sorted, once each."""
        return tuple(
            sorted({h for service in self.services for d in service.destinations for h in d.hosts}),
        )

    def private_names(self) -> frozenset[str]:
        """Give the host names that some destination allows to lead to private addresses."""
        every = (d for service in self.services for d in service.destinations if d.private)
        return frozenset(host for destination in every for host in destination.hosts)
