"""What the property tests draw: sites, allowlists, NAT, and flows that often meet them, at their
edges above all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from random import Random
from typing import TypeVar

from hypothesis import strategies as st

from ecluse.policy import GATEWAY as GATEWAY_ZONE
from ecluse.policy import (
    Addresses,
    Criticality,
    Destination,
    Direction,
    IPAddress,
    Levels,
    Lifeline,
    Policy,
    Preset,
    Service,
    Traffic,
)
from tests.kernel.simulator_packets import Ends
from tests.kernel.simulator_rig import GATEWAY, WAN, leads_to
from tests.kernel.simulator_world import INSIDE, LINK_OF_ALL, OUTSIDE, STICK, UID, Case, Nat, Probe
from tests.unit.ruleset import policies as w

T = TypeVar("T")
LIFELINES = (
    w.LIFELINE,
    Lifeline((), (), ()),
    Lifeline(
        (ip_network("192.0.2.64/28"), ip_network("2001:db8:1:64::/64")),
        (Traffic(6, 22, 22), Traffic(17, 1000, 1001)),
        (Preset.ND, Preset.OSPF),
    ),
)
RESOLVERS = (ip_address("192.0.2.53"), ip_address("2001:db8:1::53"))
PORTS = (21, 22, 23, 53, 67, 68, 442, 443, 444, 445, 500, 501, 999, 1000, 1001, 2575)
NETWORKS = (*w.NETWORKS, "192.0.2.0/24", "2001:db8:1::/48", "::/0")
"""The last but one hold the gateway's own outside address too."""
GROUPS = ("224.0.0.5", "224.0.0.18", "ff02::5", "ff02::12")
KINDS = ("syn", "syn", "ack", "udp", "udp", "echo", "esp", "gre", "l2tp", "sctp", "stray", "error")
_HOUSEKEEPING = (133, 134, 135, 136, 137, 130, 143)


class _Dice(Random):
    """What a case is drawn with.

    From a number, and not choice by choice: hypothesis would spend five of six examples on copies
    of parts of the one before, and the test has a way of its own to make a case small.
    """

    def some(self, of: Sequence[T], least: int, most: int) -> tuple[T, ...]:
        return tuple(self.sample(list(of), self.randint(least, min(most, len(of)))))

    def one_in(self, n: int) -> bool:
        return self.randrange(n) == 0


_HOSTS = (
    "10.10.0.5/32",
    "10.20.0.0/28",
    "2001:db8:10::5/128",
    "10.30.0.128/25",
    "2001:db8:20::/64",
)
_SERVERS = tuple(
    map(ip_address, ("10.10.0.9", "10.20.0.5", "10.30.0.200", "2001:db8:10::5", "2001:db8:20::5"))
)
_KIND_OF = {6: "syn", 17: "udp", 132: "sctp", 50: "esp", 47: "gre", 1: "echo", 115: "l2tp"}


def _traffic(dice: _Dice) -> Traffic:
    if dice.one_in(4):
        return Traffic(dice.choice([50, 47, 1, 115]))
    one, two = dice.choice(w.PORTS), dice.choice(w.PORTS)
    if dice.one_in(2):
        two = one
    return Traffic(dice.choice([6, 17, 132]), min(one, two), max(one, two))


def _destination(dice: _Dice) -> Destination:
    hosts, networks = dice.some(w.NAMES, 0, 1), dice.some(NETWORKS, 0, 3)
    traffic = tuple(_traffic(dice) for _ in range(dice.randint(1, 3)))
    return Destination(
        dice.choice(list(Direction)), hosts, tuple(map(ip_network, networks)), traffic
    )


def _service(dice: _Dice, name: str) -> Service:
    zones = dice.some(w.ZONES, 0, 3)
    hosts = tuple(map(ip_network, dice.some(_HOSTS, 0 if zones else 1, 2)))
    routes = dice.one_in(6)
    if routes:
        zones, hosts = (GATEWAY_ZONE,), ()
    criticality = dice.choice(
        [Criticality.VITAL, Criticality.VITAL, Criticality.IMPORTANT, Criticality.DEFERRABLE]
    )
    destinations = tuple(_destination(dice) for _ in range(dice.randint(1, 2)))
    if routes:
        named = tuple(ip_network(group) for group in dice.some(GROUPS, 1, 3))
        said = (Traffic(dice.choice([89, 112])), _traffic(dice))
        destinations += (Destination(Direction.OUTBOUND, (), named, said),)
    return Service(name, name, "", "", criticality, zones, hosts, destinations)


def _policy(dice: _Dice) -> Policy:
    resolvers = dice.choice([RESOLVERS, RESOLVERS[:1], ()])
    site = replace(w.SITE, lifeline=dice.choice(LIFELINES), resolvers=resolvers)
    return Policy(site, tuple(_service(dice, f"svc-{n}") for n in range(dice.randint(1, 4))))


def _nat(dice: _Dice, policy: Policy) -> Nat:
    """Draw the site's NAT; port forwards are often of what the allowlist lets in."""
    inward = [
        d.traffic
        for s in policy.services
        for d in s.destinations
        if d.direction is Direction.INBOUND
    ]
    ports = [(t.protocol, t.last) for traffic in inward for t in traffic if t.last] * 2
    ports += [(6, 22), (6, 443), (17, 500), (132, 1000)]
    forwards = {}
    for _ in range(dice.randint(0, 6)):
        (protocol, port), server = dice.choice(ports), dice.choice(_SERVERS)
        forwards[protocol, port, server.version] = (
            protocol,
            port,
            server,
            dice.choice([443, 8443]),
        )
    masquerade = dice.choice([frozenset[int](), frozenset({4}), frozenset({4, 6})])
    return Nat(masquerade, tuple(forwards.values()), dice.one_in(2))


def _levels(dice: _Dice) -> Levels:
    return {
        zone: dice.choice(["open", "reduced", "reduced", "cut", "cut", "isolate"])
        for zone in w.ZONES
    }


def _of_family(addresses: Iterable[str], version: int) -> list[str]:
    return [a for a in addresses if (":" in a) == (version == 6)]


_TO_GATEWAY = (*("10.10.0.1", "2001:db8:10::1", "10.20.0.1", "2001:db8:20::1", "10.30.0.1"),)
_EVERYWHERE = tuple(a for addresses in LINK_OF_ALL.values() for a in addresses)


@dataclass(frozen=True, slots=True)
class _Try:
    """A flow in the making: what kind, from where, between whom, to which port (0: none)."""

    kind: str
    link: str
    source: IPAddress
    destination: IPAddress
    port: int = 0


def _foreign(dice: _Dice, link: str, destination: IPAddress) -> IPAddress:
    """Give a source that does not live where it comes from."""
    others = [a for k, v in LINK_OF_ALL.items() if k != link for a in v if a != str(destination)]
    return ip_address(dice.choice(_of_family(others, destination.version)))


def _anything(dice: _Dice) -> _Try:
    """Anybody to anybody: mostly from inside out, or from outside to the gateway."""
    version = dice.choice([4, 4, 6])
    link = dice.choice(
        [GATEWAY, "wan0", "wan0", "care0", "care0", "core0", "core0", "wlan7", "stick0"]
    )
    inner = link in {*INSIDE, GATEWAY}
    if dice.one_in(5):
        there: Sequence[str] = (*_EVERYWHERE, *_TO_GATEWAY)
    elif inner:
        there = (*OUTSIDE, *STICK)
    else:
        there = (*(str(WAN[version]),) * 5, *(a for v in INSIDE.values() for a in v))
    destination = ip_address(dice.choice(_of_family(there, version)))
    homes = [str(WAN[version])] if link == GATEWAY else _of_family(LINK_OF_ALL[link], version)
    homes = [a for a in homes if a != str(destination)]
    source = (
        ip_address(dice.choice(homes))
        if homes and not dice.one_in(6)
        else _foreign(dice, link, destination)
    )
    return _Try(dice.choice(KINDS), link, source, destination, dice.choice(PORTS))


def _aimed(dice: _Dice, policy: Policy, addresses: Addresses, nat: Nat) -> _Try | None:
    """Aim at a claim of the allowlist: its protocol, an edge of its ports, an end of its networks;
    None when it has no target.
    """
    service = dice.choice(policy.services)
    claim = dice.choice(service.destinations)
    known = [a for host in claim.hosts for a in addresses.get(host, ())]
    everybody = tuple(map(ip_address, (*OUTSIDE, *STICK)))
    known += [
        a for a in everybody if any(a.version == n.version and a in n for n in claim.networks)
    ]
    if not known:
        return None
    outside, traffic = dice.choice(known), dice.choice(claim.traffic)
    inbound = claim.direction is Direction.INBOUND
    ports = [0]
    if traffic.first is not None and traffic.last is not None:
        ports = [traffic.first, traffic.last, (traffic.first + traffic.last) // 2] * 2
        ports += [max(1, traffic.first - 1), traffic.last + 1]
        if inbound:
            ports += [p for protocol, p, _, _ in nat.forwards if protocol == traffic.protocol] * 2
    everywhere = _of_family([a for v in INSIDE.values() for a in v], outside.version)
    own = [n for z in policy.site.zones if z.name in service.zones for n in z.subnets]
    own = [n for n in (*own, *service.hosts) if n.version == outside.version]
    inner = [a for a in everywhere if any(ip_address(a) in n for n in own)]
    if "gateway" in service.zones or inbound:
        inner += [str(WAN[outside.version])] * (len(inner) or 1)
    inside = ip_address(dice.choice(inner if inner and not dice.one_in(5) else everywhere))
    home = (
        GATEWAY
        if inside in WAN.values()
        else next(k for k, v in INSIDE.items() if str(inside) in v)
    )
    kind, port = _KIND_OF[traffic.protocol], dice.choice(ports)
    # Now and then opened from the wrong end: what is kept one way is not kept the other.
    if inbound != dice.one_in(6):
        found = _Try(kind, leads_to(outside), outside, inside, port)
    else:
        found = _Try(kind, home, inside, outside, port)
    if dice.one_in(8):
        found = replace(found, source=_foreign(dice, found.link, found.destination))
    return replace(found, port=dice.choice(PORTS)) if dice.one_in(10) and port else found


def _lifeline(dice: _Dice, policy: Policy) -> _Try | None:
    """Aim at management of the gateway or at a look-up; None when the site has neither."""
    version = dice.choice([4, 6])
    line = policy.site.lifeline
    if dice.one_in(2) and line.management_ports:
        traffic = dice.choice(line.management_ports)
        source = dice.choice(
            _of_family([a for a in OUTSIDE if "192.0.2" in a or ":64:" in a], version)
        )
        port = dice.choice([traffic.first or 0, traffic.last or 0, (traffic.last or 0) + 1])
        return _Try(_KIND_OF[traffic.protocol], "wan0", ip_address(source), WAN[version], port)
    resolvers = [r for r in policy.site.resolvers if r.version == version]
    if not resolvers:
        return None
    return _Try(dice.choice(["syn", "udp"]), GATEWAY, WAN[version], dice.choice(resolvers), 53)


def _housekeeping(dice: _Dice, tried: _Try) -> Probe | None:
    """Turn a try into what links say by themselves, now and then."""
    link, source, to = tried.link, tried.source, tried.destination
    if source.version == 6 and dice.one_in(8):
        if dice.one_in(2):
            link, source, to = "wan0", RESOLVERS[1], WAN[6]
        # A router does not pass on what has no hop left, whatever the rules say.
        ours = GATEWAY in {link, leads_to(to)}
        kind = f"icmp6-{dice.choice(_HOUSEKEEPING)}"
        return Probe(kind, link, Ends(source, to), dice.choice([255, 64, 1] if ours else [255, 64]))
    if link in {GATEWAY, "wan0"} and dice.one_in(6):
        kind, right = dice.choice([("vrrp", 255), ("ospf", 1)])
        group = ip_address(dice.choice(_of_family(GROUPS, source.version)))
        to = group if kind == "vrrp" or dice.one_in(2) else to
        # A router does not pass on what has no hop left, whatever the rules say.
        limits = [right, right, 1 if right == 255 else 64]
        ours = to.is_multicast or GATEWAY in {link, leads_to(to)}
        return Probe(kind, link, Ends(source, to), dice.choice(limits) if ours else 64)
    return None


def _probe(dice: _Dice, policy: Policy, addresses: Addresses, nat: Nat, number: int) -> Probe:
    """Draw one flow. number: from 0 up, so that no two share ports or identifiers."""
    how = dice.choice(["anything", "anything", "aimed", "aimed", "aimed", "aimed", "lifeline"])
    tried = None
    if how == "aimed":
        tried = _aimed(dice, policy, addresses, nat)
    elif how == "lifeline":
        tried = _lifeline(dice, policy)
    if tried is None:
        tried = _anything(dice)
        special = _housekeeping(dice, tried)
        if special:
            return special
    kind, source = tried.kind, tried.source
    own_port, port = 20000 + number, tried.port
    if kind == "udp" and dice.one_in(10):
        # DHCP's ports, both ways round (RFC 2131, RFC 8415).
        own_port, port = dice.choice(
            [(67, 68), (68, 67)] if source.version == 4 else [(547, 546), (546, 547)]
        )
    if kind in {"esp", "gre", "l2tp"}:
        own_port = 0
    if kind in {"esp", "gre", "l2tp", "echo"}:
        port = 0
    uid = dice.choice([0, UID]) if tried.link == GATEWAY else 0
    return Probe(kind, tried.link, Ends(source, tried.destination, own_port, port), 64, uid)


def _distinct(probes: Iterable[Probe]) -> tuple[Probe, ...]:
    """Leave out flows that conntrack or NAT can't tell from one before them: nothing but addresses
    tells ESP and GRE apart.
    """
    taken: set[object] = set()
    result = []
    for probe in probes:
        one = probe.ends
        keys: set[object] = set()
        if one.source_port < 1000:
            ports = sorted((one.source_port, one.destination_port))
            keys = {
                (probe.kind, *ports, a)
                for a in (one.source, one.destination)
                if a not in WAN.values()
            }
        if not taken & keys:
            taken |= keys
            result.append(probe)
    return tuple(result)


def case_of(number: int, flows: int = 40) -> Case:
    """Draw the case of a number: a whole example of at most so many flows."""
    dice = _Dice(number)
    policy = _policy(dice)
    everybody = tuple(map(ip_address, w.OUTSIDE))
    addresses = {name: dice.some(everybody, 0, 3) for name in w.NAMES if not dice.one_in(5)}
    nat = _nat(dice, policy)
    # With everything open first, there are connections for the next levels to end.
    levels = dict.fromkeys(w.ZONES, "open") if dice.one_in(2) else _levels(dice)
    probes = [_probe(dice, policy, addresses, nat, n) for n in range(flows)]
    return Case(policy, addresses, levels, _levels(dice), nat, _distinct(probes))


cases = st.integers(0, 2**64 - 1).map(case_of)
