"""What carries kept traffic and would end itself: routing protocols, tunnels, a NAT64. Pure.

A gateway that learns its routes loses them when the level refuses the protocol's own packets, some
time after the switch; a tunnel that ends on the gateway dies with the packets that carry it. Both
are packets of the gateway itself, so that a service of zone `gateway` keeps them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address

from ecluse.host_reading import Device, HostReading, LearnedRoutes
from ecluse.interface_zones import InterfaceZones
from ecluse.policy import GATEWAY, IPAddress, Level, Levels, Policy, Preset, Traffic, level_named
from ecluse.routing_protocols import OSPF_PACKETS, ROUTING_PROTOCOLS, Packets

_IPIP, _IP6, _GRE, _ESP = (4, None), (41, None), (47, None), (50, None)
_TUNNELS: dict[str, tuple[Packets, ...]] = {
    "sit": (_IP6,),
    "ipip": (_IPIP,),
    "ip6tnl": (_IP6, _IPIP),
    **dict.fromkeys(("gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan"), (_GRE,)),
    **dict.fromkeys(("vti", "vti6", "xfrm"), (_ESP, (17, 4500))),
    "vxlan": ((17, 4789),),
    "geneve": ((17, 6081),),
    "wireguard": ((17, None),),
}
"""By the kind of an interface: the packets that carry it. Its port, where it has one, is read."""
THROUGH = frozenset({*_TUNNELS, "tun", "ppp"})
"""Kinds of interfaces behind which is no network of ours but the other end of a tunnel or link."""
_NAT64 = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")
"""RFC 6052 and RFC 8215."""
_TRANSLATORS = frozenset({"tun", "veth", "dummy"})
"""Kinds by which a translator on this machine gets its packets: tayga's, and a namespace's."""


@dataclass(frozen=True, slots=True)
class CarrierWarning:
    """One thing that ends, or is not what it seems, at a level.

    kind: `routing`, `tunnel`, `nat64`. where: the protocol or the interface.
    """

    kind: str
    where: str
    what: str


def carrier_warnings(
    host: HostReading, policy: Policy, levels: Levels
) -> tuple[CarrierWarning, ...]:
    """Say what would end at these levels and takes kept services with it."""
    level = level_named(policy.site, levels[GATEWAY])
    some_kept = any(
        one.keeps or one.passes_all
        for one in (level_named(policy.site, name) for name in levels.values())
    )
    found = list(_translators(host, policy))
    if some_kept and not level.passes_all:
        found += [*_routing(host, policy, level), *_tunnels(host, policy, level)]
    return tuple(found)


def _keeps(policy: Policy, level: Level, packets: Packets, peer: IPAddress | None = None) -> bool:
    """Say whether a level keeps such packets of the gateway itself.

    peer: None where it is not known; then any destination will do, as does a host name. A port of
    None in `packets` is any.
    """
    protocol, port = packets
    if packets == OSPF_PACKETS and Preset.OSPF in policy.site.lifeline.presets:
        return True

    def is_meant(one: Traffic) -> bool:
        return one.protocol == protocol and (
            port is None or one.first is None or one.first <= port <= (one.last or one.first)
        )

    return any(
        any(map(is_meant, destination.traffic))
        and (
            peer is None
            or bool(destination.hosts)
            or any(peer in network for network in destination.networks)
        )
        for service in policy.services
        if GATEWAY in service.zones and service.criticality in level.keeps
        for destination in service.destinations
    )


def _routing(host: HostReading, policy: Policy, level: Level) -> Iterator[CarrierWarning]:
    zones = InterfaceZones(policy)
    outside: dict[int, list[LearnedRoutes]] = {}
    for one in host.learned_routes:
        if one.protocol in ROUTING_PROTOCOLS and not zones.zones_of(one.device):
            outside.setdefault(one.protocol, []).append(one)
    for number, routes in outside.items():
        learned = ROUTING_PROTOCOLS[number]
        if any(_keeps(policy, level, packets) for packets in learned.packets):
            continue
        count = sum(one.count for one in routes)
        by = ", ".join(one.device for one in routes)
        default = ", the default route among them," if any(one.default for one in routes) else ""
        many = f"{count} route{'s' * (count != 1)} by {by}{default}"
        yield CarrierWarning(
            "routing",
            learned.name,
            f"{many} came by {learned.name}, whose own packets level '{level.name}' refuses: kept "
            "services lose their route when the neighbours' dead interval ends (by default "
            f"{learned.dead}). {_what_to_list(learned.packets)}, or set static routes",
        )


def _tunnels(host: HostReading, policy: Policy, level: Level) -> Iterator[CarrierWarning]:
    for one in host.devices:
        if one.kind not in _TUNNELS or not one.up or not one.own_ip or one.elsewhere:
            continue
        peer = ip_address(one.remote) if one.remote else None
        if peer is not None and policy.site.zone_of(peer):
            continue  # from the gateway to the inside: that passes at every level
        packets = _carried_by(one)
        if any(_keeps(policy, level, each, peer) for each in packets):
            continue
        to = f" to {one.remote}" if one.remote else ""
        yield CarrierWarning(
            "tunnel",
            one.name,
            f"{one.name} is a tunnel ({one.kind}{to}) whose own packets level '{level.name}' "
            "refuses: all that goes through it ends then, kept services too. "
            f"{_what_to_list(packets, one.remote)}",
        )


def _carried_by(device: Device) -> tuple[Packets, ...]:
    return ((17, device.port),) if device.port else _TUNNELS[device.kind]


def _what_to_list(packets: tuple[Packets, ...], peer: str = "") -> str:
    """Say what to write to keep such packets of the gateway."""
    ports = " or ".join(dict.fromkeys(map(_ports_word, packets)))
    if packets == (OSPF_PACKETS,):
        return "Write 'ospf' into the lifeline's presets (site.yaml)"
    whom = peer or "the other end"
    return f"List {ports} for zone gateway, to and from {whom}"


def _ports_word(packets: Packets) -> str:
    """Write packets as `ports` of a service does."""
    protocol, port = packets
    if protocol in {6, 17}:
        return f"{'tcp' if protocol == 6 else 'udp'}/{port or 'PORT'}"
    return {47: "gre", 50: "esp"}.get(protocol, f"proto/{protocol}")


def _translators(host: HostReading, policy: Policy) -> Iterator[CarrierWarning]:
    """Find NAT64s on this machine: whose zone they are decides what passes through them."""
    zones, kinds = InterfaceZones(policy), {one.name: one.kind for one in host.devices}
    for name, text in host.translations:
        prefix = IPv6Network(text)
        kind = kinds.get(name, "")
        known = any(map(prefix.subnet_of, _NAT64))
        if kind not in _TRANSLATORS or not (known or kind == "tun"):
            continue
        named = ", ".join(zone.name for zone in zones.zones_of(name))
        if named:
            what = (
                f"{name} of zone {named} is a NAT64 ({text}): what any zone sends into it leaves "
                f"as zone {named}, so every zone gets what {named} keeps. Keep there only what "
                "all zones may use"
            )
        else:
            what = (
                f"{name} is a NAT64 ({text}) in no zone: what it translates is refused at every "
                "level but open, services that are listed as kept too. Put it into a zone of its "
                "own (interfaces, and its IPv4 pool as subnets) that keeps what all zones may use"
            )
        yield CarrierWarning("nat64", name, what)
