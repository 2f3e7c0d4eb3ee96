"""What an allowlist means, apart from compiler and simulator.

Does this packet pass, and for which services?
"""

from dataclasses import replace
from fnmatch import fnmatch
from ipaddress import ip_network

from ecluse.policy import GATEWAY as GATEWAY_ZONE
from ecluse.policy import Addresses, IPAddress, Levels, Policy, Preset, Service, level_named
from ecluse.ruleset.simulator import Packet
from tests.kernel.simulator_world import INSIDE, UID
from tests.unit.ruleset.policies import keeps

_MLD = {130, 131, 132, 143}


def meaning(
    policy: Policy, addresses: Addresses, levels: Levels, packet: Packet
) -> tuple[bool, set[str]]:
    """Say whether a packet is to pass, and the counters of the services that keep it (none: it
    passes for another reason).
    """
    inside_in, inside_out = packet.iif in INSIDE, packet.oif in INSIDE
    if packet.hook != "forward":
        if packet.oif == "lo" or inside_in or inside_out or _lifeline(policy, packet):
            return True, set()
        if packet.hook == "output" and packet.connection and is_error(packet):
            one = packet.connection
            about = [z.name for z in policy.site.zones if _within(one.original.source, z.subnets)]
            about += [z.name for z in policy.site.zones if _within(one.reply.source, z.subnets)]
            for zone in about:
                passes, services = _kept(policy, addresses, levels, zone, packet)
                if passes:
                    return passes, services
        return _kept(policy, addresses, levels, GATEWAY_ZONE, packet)
    if inside_in and inside_out:
        return True, set()
    own = packet.source if inside_in else packet.destination
    zone = _zone(policy, packet.iif if inside_in else packet.oif, own)
    if zone is None:
        return all(
            level_named(policy.site, levels[z]).passes_all for z in policy.zone_names()
        ), set()
    return _kept(policy, addresses, levels, zone, packet)


def is_error(packet: Packet) -> bool:
    """Say whether a packet is an ICMP error, whatever it is about."""
    kinds = {1: {3, 11, 12}, 58: {1, 2, 3, 4}}
    return packet.icmp_type in kinds.get(packet.protocol, set())


def _zone(policy: Policy, link: str, own: IPAddress) -> str | None:
    """Name the zone of a link; where several share it, the one that the inside end's address lies
    in.
    """
    zones = [
        z for z in policy.site.zones if any(fnmatch(link, pattern) for pattern in z.interfaces)
    ]
    if len(zones) > 1:
        zones = [z for z in zones if _within(own, z.subnets)]
    return zones[0].name if zones else None


def _within(one: IPAddress, networks) -> bool:
    return any(one.version == n.version and one in n for n in networks)


def _kept(policy, addresses, levels, zone, packet) -> tuple[bool, set[str]]:
    level = level_named(policy.site, levels[zone])
    if level.passes_all:
        return True, set()
    connection = packet.connection
    if connection is None or connection.spoofed:
        return False, set()
    if zone == GATEWAY_ZONE:
        ours = (packet.hook == "output") == (packet.direction == "original")
        services = tuple(replace(s, hosts=()) for s in policy.services if zone in s.zones)
        if packet.hook == "input" and packet.direction == "original":
            # What the gateway may say to a group it may hear from it.
            groups = {n for s in services if s.criticality in level.keeps for n in _groups(s)}
            heard = ip_network(packet.destination) in groups
        else:
            heard = False
        policy = replace(policy, services=services)
        found = keeps(policy, addresses, level, zone, connection, ours)
        if heard:
            found |= keeps(policy, addresses, level, zone, connection, ours=True)
        return bool(found), found
    subnets = next(z.subnets for z in policy.site.zones if z.name == zone)
    found = set()
    for ours, inner in ((True, connection.original.source), (False, connection.reply.source)):
        if _within(inner, subnets):
            found |= keeps(policy, addresses, level, zone, connection, ours)
    return bool(found), found


def _groups(service: Service) -> list:
    return [n for d in service.destinations for n in d.networks if n.is_multicast]


def _lifeline(policy: Policy, packet: Packet) -> bool:
    """Whether a packet to or from the gateway's outside is management, a look-up of the daemon's
    own, or housekeeping.
    """
    line, connection = policy.site.lifeline, packet.connection
    if connection is not None and not connection.spoofed:
        one = connection.original
        theirs = (packet.hook == "input") == (packet.direction == "original")
        manages = any(
            t.protocol == connection.protocol and t.first <= one.destination_port <= t.last
            for t in line.management_ports
        )
        if theirs and manages and _within(one.source, line.management_networks):
            return True
        asks = (
            connection.protocol in {6, 17}
            and one.destination_port == 53
            and one.destination in policy.site.resolvers
        )
        if not theirs and asks and (packet.hook == "input" or packet.uid == UID):
            return True
    return (
        (Preset.DHCP in line.presets and _dhcp(packet))
        or (Preset.ND in line.presets and _neighbour(packet))
        or (
            Preset.VRRP in line.presets
            and (packet.protocol, packet.hop_limit) == (112, 255)
            and str(packet.destination) in {"224.0.0.18", "ff02::12"}
        )
        or (
            # OSPFv3 has link-local sources; none of these probes has one.
            Preset.OSPF in line.presets
            and (packet.protocol, packet.hop_limit, packet.source.version) == (89, 1, 4)
        )
    )


def _neighbour(packet: Packet) -> bool:
    """Whether a neighbour on the link says this, or is told it: nothing that is said may reach
    further but what it needs.
    """
    source, to = packet.source, packet.destination
    if packet.protocol != 58:
        return False
    if packet.icmp_type in _MLD:
        bound = source.is_link_local if packet.hook == "input" else to.is_multicast
        return packet.hop_limit == 1 and bound
    if packet.icmp_type in {135, 136}:
        return packet.hop_limit == 255
    if packet.hook == "input":
        return (packet.icmp_type, packet.hop_limit) == (134, 255) and source.is_link_local
    on_link = to.is_multicast and (int(to) >> 112) == 0xFF02
    return (packet.icmp_type, packet.hop_limit) == (133, 255) and on_link


def _dhcp(packet: Packet) -> bool:
    six = packet.source.version == 6
    server, client = (547, 546) if six else (67, 68)
    ports = (packet.source_port, packet.destination_port)
    if packet.protocol != 17 or ports != (
        (server, client) if packet.hook == "input" else (client, server)
    ):
        return False
    if not six:
        return packet.hook == "input" or str(packet.destination) == "255.255.255.255"
    # DHCPv6 speaks on the link alone (RFC 8415, 7.1); none of these probes has such an address.
    return (packet.source if packet.hook == "input" else packet.destination).is_link_local
