"""What the site's files mean: which packets pass at each place (docs/configuration.md).

This is the specification. It knows neither the compiler nor its ruleset. "Opened by", "towards" and
the ports of a connection are those of its first packet as it was sent (`ct original`), whatever was
translated since; so an answer, and an ICMP error about a connection, is judged as the connection.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from ecluse.policy import (
    GATEWAY,
    Addresses,
    Destination,
    Direction,
    DnsMode,
    IPAddress,
    IPNetwork,
    Level,
    Levels,
    Policy,
    Service,
    Traffic,
    Zone,
    level_named,
    network_interval,
    private_kind,
    reserved_kind,
)
from ecluse.proof.formula import Packets, Words
from ecluse.proof.housekeeping import LINK_LOCAL, housekeeping
from ecluse.proof.packet import CONFIRMED, ICMP, INVALID, OURS, RELATED, SPOOFED
from ecluse.proof.regions import Box, Interval

_ORIGINAL, _REPLY = 0, 1
_TCP, _UDP, _DNS = 6, 17, 53
_ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
"""Unreachable, too big, time exceeded, parameter problem (RFC 792, RFC 4443)."""

End = tuple[Interval, Interval, Interval]
"""An outside end: addresses, ports of the connection, protocol."""


@dataclass(frozen=True, eq=False)
class Meaning:
    """What a policy means at these levels.

    Args:
        addresses: of host names. learned: what the DNS gate learned for each service.
        uids: the daemon's user, then the DNS gate's.
    """

    policy: Policy
    addresses: Addresses
    levels: Levels
    learned: Mapping[str, frozenset[IPAddress]] = field(default_factory=dict)
    uids: tuple[int, ...] = (0,)
    _known: dict[tuple[str, Direction, int], list[End]] = field(default_factory=dict)

    def at(self, place: str, w: Words) -> tuple[Packets, dict[str, Packets]]:
        """Give what passes a place, and what else is done to which packets."""
        places: dict[str, Callable[[Words], tuple[Packets, dict[str, Packets]]]] = {
            "forward": self._forwarded,
            "input": self._received,
            "output": self._sent,
            "postrouting": self._leaves,
            "raw": lambda w: (w.everything, {"notrack": self._untracked(w)}),
            "prerouting": lambda w: (w.everything, {f"label {SPOOFED}": self._spoofed(w)}),
            "dns": self._asked,
        }
        return places[place](w)

    # What is forwarded.

    def _forwarded(self, w: Words) -> tuple[Packets, dict[str, Packets]]:
        """Inside to inside passes; what is between inside and outside, if its zone keeps it."""
        passes = w.given(self._all_open) | self._from_inside(w) & self._to_inside(w)
        for zone in self._zones:
            passes |= self._between(w, zone) & self._kept(w, zone)
        return passes, {"answer": self._from_machine(w) & _answered(w, ~passes)}

    def _from_machine(self, w: Words) -> Packets:
        """What an inside machine sent by an address of the inside.

        An answer to another address would go outside, with what was refused in it.
        """
        return self._from_inside(w) & w.within("saddr", self._subnets)

    def _between(self, w: Words, zone: Zone) -> Packets:
        """Between a zone and the outside: by its interfaces; of shared ones by its addresses."""
        near = self._leaves_by(w, zone) & ~self._from_inside(w)
        return near | self._came_by(w, zone) & ~self._to_inside(w)

    def _leaves_by(self, w: Words, zone: Zone) -> Packets:
        own, shared = self._interfaces(zone)
        return w.link("oifname", own) | w.link("oifname", shared) & w.within("daddr", zone.subnets)

    def _came_by(self, w: Words, zone: Zone) -> Packets:
        own, shared = self._interfaces(zone)
        return _came(w, own) | _came(w, shared) & w.within("saddr", zone.subnets)

    def _kept(self, w: Words, zone: Zone) -> Packets:
        """A zone that is open keeps everything; at other levels, connections of kept services."""
        level = self._level(zone.name)
        if level.passes_all:
            return w.everything
        return ~w.is_set("ct.label", SPOOFED) & (
            w.within("ct.original.saddr", zone.subnets)
            & self._opened(w, zone.name, Direction.OUTBOUND)
            | w.within("ct.reply.saddr", zone.subnets)
            & self._opened(w, zone.name, Direction.INBOUND)
        )

    def _opened(self, w: Words, zone: str, direction: Direction) -> Packets:
        """Connections that a zone's level keeps, towards outside ends or opened by them."""
        outbound = direction is Direction.OUTBOUND
        peer, own = ("ct.original.daddr", "ct.original.saddr") if outbound else (
            "ct.original.saddr", "ct.reply.saddr")  # fmt: skip
        version, what = w.view.version, (self, zone, direction)
        ends = (peer, "ct.original.proto-dst", "ct.protocol")
        return w.together(
            ends, lambda: self._for_all(zone, direction, version), ("all", *what)
        ) | w.together(
            (*ends, own), lambda: self._for_some(zone, direction, version), ("some", *what)
        )

    def _for_all(self, zone: str, direction: Direction, version: int) -> Iterator[Box]:
        """Give the ends that every machine of a zone may use."""
        for service, hosts in self._services(zone):
            if hosts is None:
                yield from self._ends(service, direction, version)
                if zone != GATEWAY:
                    yield from self._learned(service, direction, version)

    def _for_some(self, zone: str, direction: Direction, version: int) -> Iterator[Box]:
        """Give the ends that some hosts may use, with these."""
        for service, hosts in self._services(zone):
            ends = () if hosts is None else (
                *self._ends(service, direction, version),
                *self._learned(service, direction, version),
            )  # fmt: skip
            for host in _intervals(hosts or (), version):
                yield from ((*end, host) for end in ends)

    def _services(self, zone: str) -> Iterator[tuple[Service, tuple[IPNetwork, ...] | None]]:
        """Give what a zone's level keeps for it: for all its machines, or for some hosts."""
        for service in self.policy.services:
            if service.criticality in self._level(zone).keeps:
                if zone in service.zones:
                    yield service, None
                elif service.hosts and zone != GATEWAY:
                    yield service, service.hosts

    def _ends(self, service: Service, direction: Direction, version: int) -> list[End]:
        """Give each outside end of a service: addresses, port of the connection, protocol."""
        key = (service.name, direction, version)
        if key not in self._known:
            self._known[key] = [
                (end, *_traffic(traffic, version))
                for one in service.destinations
                if one.direction is direction
                for end in _intervals((*one.networks, *self._named(one)), version)
                for traffic in one.traffic
            ]
        return self._known[key]

    def _learned(self, service: Service, direction: Direction, version: int) -> Iterator[End]:
        """What was learned for a service is kept for all that it does with names.

        So for zones, which ask the DNS gate: the gateway's own programs do not.
        """
        by_name = [
            traffic
            for one in service.destinations
            if one.direction is Direction.OUTBOUND and (one.hosts or one.wildcards)
            for traffic in one.traffic
        ]
        known = self._has_gate and direction is Direction.OUTBOUND
        for address in self.learned.get(service.name, ()) if known else ():
            if address.version == version:
                for traffic in by_name:
                    yield (int(address), int(address)), *_traffic(traffic, version)

    def _named(self, one: Destination) -> Iterator[IPNetwork]:
        """Give addresses of host names: private ones where it says so, reserved ones nowhere."""
        for host in one.hosts:
            for address in self.addresses.get(host, ()):
                if not reserved_kind(address) and (one.private or not private_kind(address)):
                    yield ip_network(address)

    # What the gateway itself receives and sends.

    def _received(self, w: Words) -> tuple[Packets, dict[str, Packets]]:
        """What the inside sends is received; of the outside, lifeline and own services."""
        excess = self._to_proxy(w) & self._from_inside(w) & self._too_many(w)
        if self._all_open:
            always = self.policy.site.dns.mode is DnsMode.ALWAYS
            return (~excess if always else w.everything), {}
        # Only what was redirected is answered: a connection whose first packet went elsewhere.
        port = self.policy.site.dns.port
        elsewhere = w.among("ct.original.proto-dst", (0, port - 1), (port + 1, 0xFFFF))
        directly = self._to_proxy(w) & ~elsewhere
        passes = w.link("iifname", ["lo"]) | ~directly & ~excess & (
            self._from_inside(w) | self._lifeline(w) | self._gateways(w)
        )
        refused = self._from_machine(w) & ~passes & (directly | ~excess)
        return passes, {"answer": _answered(w, refused)}

    def _sent(self, w: Words) -> tuple[Packets, dict[str, Packets]]:
        """What goes inside is sent; to the outside, lifeline and own services.

        ICMP errors about what a zone keeps are sent too.
        """
        passes = self._to_own(w) | self._lifeline(w) | self._errors(w) | self._gateways(w)
        ours = self._our_questions(w)
        if self._all_open:
            return w.everything, {f"label {OURS}": ours}
        # dnsmasq is refused at once what no list names.
        refused = self._name_of_no_list(w)
        before = self._to_own(w) | self._housekeeping(w) | refused | w.is_set("ct.label", SPOOFED)
        passes &= ~refused
        answer = _answered(w, ~passes & ~refused)
        return passes, {f"label {OURS}": ours & ~before, "answer": answer}

    def _leaves(self, w: Words) -> tuple[Packets, dict[str, Packets]]:
        """Once more by the interface that it leaves by in the end; not what was forwarded."""
        if self._all_open:
            return w.everything, {}
        came = ~w.among("iif", 0)
        passes = self._to_own(w) | self._lifeline(w) | self._errors(w) | self._gateways(w)
        before = came | self._to_own(w) | self._housekeeping(w) | w.is_set("ct.label", SPOOFED)
        return came | passes, {f"label {OURS}": self._our_questions(w) & ~before}

    def _to_own(self, w: Words) -> Packets:
        return w.link("oifname", ["lo"]) | self._to_inside(w)

    def _gateways(self, w: Words) -> Packets:
        """Connections of the services of zone `gateway`: who opened it tells the direction."""
        if self._level(GATEWAY).passes_all:
            return w.everything
        receives = w.view.hook == "input"
        ours, theirs = (_REPLY, _ORIGINAL) if receives else (_ORIGINAL, _REPLY)
        opened = self._opened(w, GATEWAY, Direction.OUTBOUND)
        kept = w.among("ct.direction", ours) & opened
        kept |= w.among("ct.direction", theirs) & self._opened(w, GATEWAY, Direction.INBOUND)
        if receives:
            # Nobody answers a group: what the gateway may send there, it hears from its neighbours.
            groups = [n for s, _ in self._services(GATEWAY) for d in s.destinations
                      for n in d.networks if n.is_multicast]  # fmt: skip
            kept |= w.among("ct.direction", _ORIGINAL) & w.within("daddr", groups) & opened
        return ~w.is_set("ct.label", SPOOFED) & kept

    def _errors(self, w: Words) -> Packets:
        """An ICMP error of the gateway about a flow of a zone passes if the zone keeps the flow."""
        error = _is_error(w) & w.is_set("ct.state", RELATED)
        if error.region is w.nothing.region:
            return error
        passes = w.nothing
        for zone in self._zones:
            inner = w.within("ct.original.saddr", zone.subnets) | w.within(
                "ct.reply.saddr", zone.subnets
            )
            passes |= inner & self._kept(w, zone)
        return error & passes

    # The lifeline: what no level cuts.

    def _lifeline(self, w: Words) -> Packets:
        line, receives = self.policy.site.lifeline, w.view.hook == "input"
        theirs = w.among("ct.direction", _ORIGINAL if receives else _REPLY)
        ends: list[Box] = [
            (network, *_traffic(port, w.view.version))
            for network in _intervals(line.management_networks, w.view.version)
            for port in line.management_ports
        ]
        fields = ("ct.original.saddr", "ct.original.proto-dst", "ct.protocol")
        manages = theirs & w.together(fields, lambda: ends)
        # A packet that no user sent passes by the label of a connection that ours asked by.
        orphan = ~w.among("skuid", (0, (1 << 32) - 1)) & w.is_set("ct.label", OURS)
        asks = (
            self._answers(w) if receives else self._our_questions(w) | self._questions(w) & orphan
        )
        return self._housekeeping(w) | ~w.is_set("ct.label", SPOOFED) & (manages | asks)

    def _to_resolver(self, w: Words) -> Packets:
        to = w.within("ct.original.daddr", map(ip_network, self.policy.site.resolvers))
        dns = w.among("ct.protocol", _TCP, _UDP) & w.among("ct.original.proto-dst", _DNS)
        return to & dns

    def _questions(self, w: Words) -> Packets:
        return w.among("ct.direction", _ORIGINAL) & self._to_resolver(w)

    def _answers(self, w: Words) -> Packets:
        return w.among("ct.direction", _REPLY) & self._to_resolver(w)

    def _our_questions(self, w: Words) -> Packets:
        return self._questions(w) & w.among("skuid", *self.uids[: None if self._has_gate else 1])

    def _housekeeping(self, w: Words) -> Packets:
        return housekeeping(w, self.policy.site.lifeline.presets)

    # The DNS gate.

    def _to_proxy(self, w: Words) -> Packets:
        udp_tcp = w.among("l4proto", _TCP, _UDP)
        return w.given(self._has_gate) & udp_tcp & w.among("dport", self.policy.site.dns.port)

    def _too_many(self, w: Words) -> Packets:
        """Beyond the rate of its machine.

        Sources in no zone share one rate. Listed servers have none, nor has a machine beyond as
        many as are counted.
        """
        servers = [ip_network(a) for one in self.policy.site.dns.internal for a in one.servers]
        known = w.within("saddr", self._subnets) | w.within("saddr", LINK_LOCAL)
        counted = known & ~w.within("saddr", servers) & w.variable("room")
        return ~w.variable("within") & (~known | counted)

    def _name_of_no_list(self, w: Words) -> Packets:
        there = w.link("oifname", ["lo"]) & w.within("daddr", (ip_network("127.0.0.2"),))
        asks = w.among("l4proto", _UDP) & w.among("dport", self.policy.site.dns.port + 1)
        return w.given(self._has_gate) & there & asks

    def _asked(self, w: Words) -> tuple[Packets, dict[str, Packets]]:
        """A zone's question is redirected where its level keeps only some services.

        To any server outside or on the gateway; not of a made-up source.
        """
        here = w.variable("local")
        dns = w.among("l4proto", _TCP, _UDP) & w.among("dport", _DNS)
        redirected = lost = w.nothing
        for zone in self._zones:
            own, shared = self._interfaces(zone)
            known = w.within("saddr", zone.subnets)
            asks = dns & (w.link("iifname", own) | w.link("iifname", shared) & known)
            level = self._level(zone.name)
            if level.passes_all:
                redirected |= asks & w.given(
                    self._all_open and self.policy.site.dns.mode is DnsMode.ALWAYS)  # fmt: skip
            elif self._has_gate and level.keeps:
                known |= w.within("saddr", LINK_LOCAL)
                redirected |= asks & known
                lost |= asks & ~known & here
        outside = here | ~w.within("daddr", self._subnets)
        return ~lost, {f"redirect {self.policy.site.dns.port}": redirected & outside}

    # Where a source lives.

    def _spoofed(self, w: Words) -> Packets:
        """Who opens a connection by an address that does not live where the packet came from."""
        opens = ~w.is_set("ct.status", CONFIRMED) & ~w.link("iifkind", ["vrf"])
        inside = w.link("iifname", self._patterns)
        routed = w.link("srcroute", self._patterns)
        mine = w.within("saddr", self._subnets)
        return opens & (inside & self._foreign(w) | ~inside & mine & routed)

    def _untracked(self, w: Words) -> Packets:
        """What an inside machine sends in an outside name, while something is shut.

        So it collides with nobody's connection. ICMP errors, and questions to the gateway, are
        tracked.
        """
        question = w.among("l4proto", _TCP, _UDP) & w.among("dport", _DNS) & w.variable("local")
        tracked = _is_error(w) | w.given(self._has_gate) & question
        inside = w.link("iifname", self._patterns)
        return w.given(not self._all_open) & inside & self._foreign(w) & ~tracked

    def _foreign(self, w: Words) -> Packets:
        """A source in no zone's subnets, not routed inside, nor one that lives on every link."""
        every_link = w.within("saddr", (ip_network(0), *LINK_LOCAL))
        return ~w.within("saddr", self._subnets) & ~every_link & ~w.link("srcroute", self._patterns)

    # Words.

    @property
    def _zones(self) -> tuple[Zone, ...]:
        return self.policy.site.zones

    @property
    def _patterns(self) -> list[str]:
        return [pattern for zone in self._zones for pattern in zone.interfaces]

    @property
    def _subnets(self) -> list[IPNetwork]:
        return [subnet for zone in self._zones for subnet in zone.subnets]

    @property
    def _all_open(self) -> bool:
        return all(self._level(zone).passes_all for zone in self.policy.zone_names())

    @property
    def _has_gate(self) -> bool:
        return self.policy.site.dns.mode is not DnsMode.NEVER

    def _level(self, zone: str) -> Level:
        return level_named(self.policy.site, self.levels[zone])

    def _interfaces(self, zone: Zone) -> tuple[list[str], list[str]]:
        """Give a zone's interfaces: its own, and those that it shares."""
        others = {p for other in self._zones if other is not zone for p in other.interfaces}
        own = [p for p in zone.interfaces if p not in others]
        return own, [p for p in zone.interfaces if p in others]

    def _from_inside(self, w: Words) -> Packets:
        return _came(w, self._patterns)

    def _to_inside(self, w: Words) -> Packets:
        return w.link("oifname", self._patterns)


def _came(w: Words, patterns: list[str]) -> Packets:
    """By which interface it came itself; of one in a VRF, `iifname` is the VRF's name."""
    alone = w.among("sdif", 0)
    return w.link("iifname", patterns) & alone | w.link("sdifname", patterns) & ~alone


def _intervals(networks: tuple[IPNetwork, ...], version: int) -> list[Interval]:
    return [network_interval(n) for n in networks if n.version == version]


def _traffic(one: Traffic, version: int) -> tuple[Interval, Interval]:
    """Give ports and protocol; `icmp` is that of the family."""
    number = ICMP[version] if one.protocol == ICMP[4] else one.protocol
    ports = (0, 0xFFFF) if one.first is None or one.last is None else (one.first, one.last)
    return ports, (number, number)


def _answered(w: Words, refused: Packets) -> Packets:
    """A reset for TCP, an ICMP error for the rest at a rate.

    None to what belongs to no connection: a reset could end a kept one.
    """
    told = w.among("l4proto", _TCP) | w.variable("within")
    return refused & told & ~w.is_set("ct.state", INVALID)


def _is_error(w: Words) -> Packets:
    """An ICMP error; its type is the first byte of the transport header."""
    kinds = ((kind << 8, kind << 8 | 255) for kind in _ERRORS[w.view.version])
    return w.among("l4proto", ICMP[w.view.version]) & w.among("sport", *kinds)
