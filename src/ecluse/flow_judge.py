"""Judges connections: which ones a level keeps, by the program that the kernel judges packets by.

Pure.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from ecluse.policy import GATEWAY, IPAddress, Levels, Policy, level_named
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple
from ecluse.ruleset.dns_redirect import DNS_PORT, is_on, redirects
from ecluse.ruleset.lifeline import OSPF
from ecluse.ruleset.program import CT_PORT, PORTS, CountByMap, Program
from ecluse.ruleset.simulator import Indices, Packet, Simulator
from ecluse.ruleset.switch import switch_targets
from ecluse.ruleset.table_names import SERVICE_COUNTER, learned_set, level_chain

__all__ = ["ConntrackEntry", "Flow", "FlowJudge", "Tuple", "describe_connection"]

_PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    58: "icmpv6",
    112: "vrrp",
    132: "sctp",
}


@dataclass(frozen=True, slots=True)
class Flow:
    """A judged connection.

    Args:
        zone: where its inside end is.
        verdict: `inside`, `open`, `kept`, `lifeline`, `refused`, or `unknown` (neither end is
            ours).
        service: the service that keeps it (its counter's name without prefix), or empty.
    """

    connection: ConntrackEntry
    zone: str
    verdict: str
    service: str = ""


IGMP = 2
NEIGHBOUR = ""
"""Where an address lives that is in no zone's subnets and yet routed to the inside."""

_NEAR = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "224.0.0.0/4"),
        *("fc00::/7", "fe80::/10", "ff00::/8"),
    )
)
"""Private, link-local and multicast addresses (RFC 1918, 3927, 4193, 4291, 5771)."""


def _is_near(address: IPAddress) -> bool:
    return any(address in network for network in _NEAR if network.version == address.version)


def protocol_name(protocol: int) -> str:
    """Give the usual name of an IANA protocol number, or the number."""
    return _PROTOCOLS.get(protocol, str(protocol))


def describe_connection(connection: ConntrackEntry) -> str:
    """Say a connection in words: `tcp 10.10.0.5:40000 -> 203.0.113.10:443`."""
    one = connection.original
    source, destination = (
        f"[{a}]" if a.version == 6 else str(a) for a in (one.source, one.destination)
    )
    if one.destination_port:
        source, destination = f"{source}:{one.source_port}", f"{destination}:{one.destination_port}"
    return f"{protocol_name(connection.protocol)} {source} -> {destination}"


@dataclass(frozen=True, slots=True)
class _LookUp:
    """One look-up of a zone's chain in a map, by outside end and protocol.

    ports: by the port as well. inner: by the inside end as well.
    """

    map: str
    ports: bool
    inner: bool


@dataclass
class FlowJudge:
    """Judges connections by one program at given levels.

    Conntrack does not say by which interface a connection came, so the address of its inside end
    decides the zone. Where neither end is known the verdict is `unknown`: such a connection is
    never ended.

    Args:
        local: every address of the gateway itself, as text.
        indices: of the program's maps, kept with the program for its next judge.
        learned: addresses in the DNS proxy's sets, as numbers, by set.
    """

    policy: Policy
    program: Program
    levels: Levels
    local: frozenset[str]
    daemon_uid: int = 0
    indices: Indices = field(default_factory=Indices)
    learned: Mapping[str, frozenset[int]] = field(default_factory=dict)
    _places: dict[IPAddress, str | None] = field(default_factory=dict)
    _outside: set[IPAddress] = field(default_factory=set)
    _rules: dict[tuple[str, bool, int], tuple[_LookUp, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = switch_targets(self.policy, self.program.slot, self.levels)
        self._simulator = Simulator(self.program, where, learned=self.learned, indices=self.indices)
        self._local = {ip_address(text) for text in self.local}
        self._interface = {
            z.name: z.interfaces[0].replace("*", "0") for z in self.policy.site.zones
        }

    def unplaced_ends(self, connections: Iterable[ConntrackEntry]) -> set[IPAddress]:
        """Give the ends that are in no zone's subnets and not the gateway's.

        They are outside, unless routes lead to them by an inside interface (`mark_inside`).
        """
        ends = {end for one in connections for end in (one.original.source, one.reply.source)}
        return {end for end in ends if self._place_of(end) is None}

    def is_gateways(self, address: IPAddress) -> bool:
        """Say whether an address is the gateway's own."""
        return self._place_of(address) == GATEWAY

    def is_opened_inside(self, connection: ConntrackEntry) -> bool:
        """Say whether a machine inside or the gateway opened it."""
        return self._place_of(connection.original.source) is not None

    def near_peers(self, connections: Iterable[ConntrackEntry]) -> set[IPAddress]:
        """Give near addresses of no zone that the gateway itself talks to.

        Its routes say whether they are outside (`mark_outside`). Multicast and link-local ones have
        no route of their own.
        """
        return {
            theirs
            for one in connections
            for ours, theirs in (
                (one.original.source, one.reply.source),
                (one.reply.source, one.original.source),
            )
            if self.is_gateways(ours)
            and _is_near(theirs)
            and not (theirs.is_multicast or theirs.is_link_local)
            and self._place_of(theirs) is None
        }

    def groups_reached(
        self, connections: Iterable[ConntrackEntry], own: Collection[IPAddress]
    ) -> set[IPAddress]:
        """Give the multicast groups that the gateway sends to from one of its addresses in `own`.

        The address tells the link, as no route does. IGMP's reports are no use that anybody makes.
        """
        return {
            one.reply.source
            for one in connections
            if one.original.source in own and one.reply.source.is_multicast and one.protocol != IGMP
        }

    def mark_outside(self, addresses: Iterable[IPAddress]) -> None:
        """Count these near addresses as outside: an interface in no zone leads there."""
        self._outside.update(addresses)

    def mark_inside(self, addresses: Iterable[IPAddress]) -> None:
        """Count these addresses of no zone's subnets as inside: an inside interface leads there."""
        self._places.update(dict.fromkeys(addresses, NEIGHBOUR))

    def judge(self, connection: ConntrackEntry) -> Flow:
        """Judge one connection as the kernel will judge its next packet."""
        ours, theirs = (
            self._place_of(connection.original.source),
            self._place_of(connection.reply.source),
        )
        if ours not in {None, GATEWAY, NEIGHBOUR} and self._is_misdirected_dns(
            connection, ours or ""
        ):
            return Flow(connection, ours or "", "refused")
        if ours is not None and theirs is not None:
            return Flow(connection, ours, "inside")
        zone = ours if ours is not None else theirs
        if zone == NEIGHBOUR:
            return Flow(connection, "", "unknown")
        outer = connection.reply.source if ours is not None else connection.original.source
        if zone is not None and connection.spoofed and not self._is_open(zone):
            return Flow(connection, zone, "refused")
        # A near address in no zone's subnets may be a neighbour by an inside interface, which the
        # rules let pass: conntrack names no interface, so such a connection is not judged.
        if zone is None or (zone == GATEWAY and outer not in self._outside and _is_near(outer)):
            return Flow(connection, zone or "", "unknown")
        return self._judge_in(zone, connection, opened_inside=ours is not None)

    def _judge_in(self, zone: str, connection: ConntrackEntry, *, opened_inside: bool) -> Flow:
        """Judge a connection between a zone, or the gateway, and the outside."""
        if self._is_open(zone):
            return Flow(connection, zone, "open")
        if zone == GATEWAY:
            return self._judge_gateway(connection, opened_inside=opened_inside)
        service = self._keeping_service(connection, zone, opened_inside=opened_inside)
        return Flow(connection, zone, "kept" if service else "refused", service)

    def _is_open(self, zone: str) -> bool:
        return level_named(self.policy.site, self.levels[zone]).passes_all

    def _is_misdirected_dns(self, connection: ConntrackEntry, zone: str) -> bool:
        """Say whether a DNS connection of a zone goes elsewhere than it should at this level.

        The first packet decides whether it goes to the DNS proxy. A connection from before the
        change is ended, so that the next question takes the right way.
        """
        one, gate = connection.original, self.policy.site.dns
        if (
            one.destination_port != DNS_PORT
            or connection.protocol not in {6, 17}
            or not is_on(self.policy)
        ):
            return False
        answered = redirects(self.policy, self.levels, zone)
        if connection.reply.source_port == gate.port:
            return not answered
        outward = {self._place_of(one.destination), self._place_of(connection.reply.source)} <= {
            None,
            GATEWAY,
        }
        return answered and outward

    def _judge_gateway(self, connection: ConntrackEntry, *, opened_inside: bool) -> Flow:
        """Judge a connection of the gateway itself by all its rules, the lifeline's among them."""
        judgement = self._simulator.judge(
            self._packet(connection, GATEWAY, opened_inside=opened_inside)
        )
        service = judgement.service.removeprefix(SERVICE_COUNTER)
        if judgement.verdict == "accept":
            return Flow(connection, GATEWAY, "kept" if service else "lifeline", service)
        return Flow(connection, GATEWAY, "refused")

    def _keeping_service(
        self, connection: ConntrackEntry, zone: str, *, opened_inside: bool
    ) -> str:
        """Name the service that keeps a zone's connection, empty when none does.

        Only the look-ups of the zone's own chain at its level are made: 200,000 connections take a
        second or two, where walking all rules took twenty.
        """
        one = connection.original
        peer, inner = (
            (one.destination, one.source)
            if opened_inside
            else (one.source, connection.reply.source)
        )
        where = (zone, opened_inside, peer.version)
        if where not in self._rules:
            self._rules[where] = self._look_ups(
                zone, f"{'out' if opened_inside else 'in'}{peer.version}"
            )
        for look in self._rules[where]:
            if look.ports and connection.protocol not in PORTS:
                continue
            point = [int(peer), connection.protocol]
            if look.ports:
                point.insert(1, one.destination_port)
            if look.inner:
                point.append(int(inner))
            counter = self._simulator.find(look.map, tuple(point))
            if counter is not None:
                return counter.removeprefix(SERVICE_COUNTER)
        digit = str(peer.version)
        if opened_inside and int(peer) in self.learned.get(learned_set(digit), ()):
            chain = f"{level_chain(self.program.slot, self.levels[zone], zone)}.named{digit}"
            if any(c.name == chain for c in self.program.chains):
                packet = self._packet(connection, zone, opened_inside=True)
                return self._simulator.keeping_service(chain, packet).removeprefix(SERVICE_COUNTER)
        return ""

    def _look_ups(self, zone: str, word: str) -> tuple[_LookUp, ...]:
        chain = f"{level_chain(self.program.slot, self.levels[zone], zone)}.{word}"
        rules = next((c.rules for c in self.program.chains if c.name == chain), ())
        counts = [part for rule in rules for part in rule if isinstance(part, CountByMap)]
        return tuple(
            _LookUp(
                map=part.map,
                ports=CT_PORT in part.fields,
                inner=part.fields[-1].type.endswith("_addr"),
            )
            for part in counts
        )

    def _packet(self, connection: ConntrackEntry, zone: str, *, opened_inside: bool) -> Packet:
        interface = self._interface.get(zone, "")
        if zone == GATEWAY:
            hook, iif, oif = ("output" if opened_inside else "input"), "", ""
        else:
            hook = "forward"
            iif, oif = (interface, "") if opened_inside else ("", interface)
        one = connection.original
        return Packet(
            hook=hook,
            iif=iif,
            oif=oif,
            source=one.source,
            destination=one.destination if opened_inside else connection.reply.source,
            protocol=connection.protocol,
            connection=connection,
            source_port=one.source_port,
            destination_port=one.destination_port,
            uid=self.daemon_uid,
            # Conntrack does not keep it; the rules that ask (in the lifeline) want these.
            hop_limit=1 if connection.protocol == OSPF else 255,
        )

    def _place_of(self, address: IPAddress) -> str | None:
        if address not in self._places:
            self._places[address] = self._find_place(address)
        return self._places[address]

    def _find_place(self, address: IPAddress) -> str | None:
        if address.is_loopback or address in self._local:
            return GATEWAY
        for zone in self.policy.site.zones:
            if any(address in subnet for subnet in zone.subnets):
                return zone.name
        return None
