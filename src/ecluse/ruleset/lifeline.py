"""What no level ever cuts: management of the gateway, link housekeeping, the daemon's own look-ups.

These rules stand before every gate, in input and output only: nothing that is forwarded is
lifeline.
"""

from ecluse.policy import (
    IPAddress,
    IPNetwork,
    Lifeline,
    Preset,
    Site,
    Traffic,
    network_interval,
)
from ecluse.ruleset import program as p
from ecluse.ruleset import table_names
from ecluse.ruleset.disjoint import Box, disjoint
from ecluse.ruleset.families import LINK_LOCAL6
from ecluse.ruleset.program import Chain, Key, NamedSet, Rule
from ecluse.ruleset.source_check import SPOOFED

_OURS = p.SetConntrack(f"ct label set {table_names.OURS}")
_IS_OURS = p.Match(p.CT_LABEL, (table_names.OURS,))

_DNS = (Traffic(17, 53, 53), Traffic(6, 53, 53))
_DHCP6_SERVERS = 0xFF02_0000_0000_0000_0000_0000_0001_0002
"""ff02::1:2, all DHCP relay agents and servers (RFC 8415, 7.1)."""
_VRRP4 = 0xE000_0012
"""224.0.0.18 (RFC 5798, 5.1.1.2)."""
_VRRP6 = 0xFF02_0000_0000_0000_0000_0000_0000_0012
"""ff02::12 (RFC 5798, 5.1.2.2)."""
_VRRP = 112
OSPF = 89
_OSPF6 = tuple((0xFF02 << 112 | group, 0xFF02 << 112 | group) for group in (5, 6))
"""ff02::5 and ff02::6, all OSPF routers and the designated ones (RFC 5340, 4.2)."""
_MULTICAST6 = (0xFF << 120, (1 << 128) - 1)
_LINK_MULTICAST6 = (0xFF02 << 112, (0xFF03 << 112) - 1)
"""ff02::/16 (RFC 4291, 2.7)."""
_BROADCAST4 = 0xFFFF_FFFF
_ROUTER_ASKED, _ROUTER_SAYS = 133, 134
_NEIGHBOURS = (135, 136)
"""Neighbour solicitation and advertisement (RFC 4861); redirects are not needed to keep a link
alive.
"""
_NEIGHBOUR_BYTES = 40
"""24, a link-layer address, a nonce (RFC 7527)."""
_MLD = (130, 131, 132, 143)
"""Multicast listener queries, reports and done (RFC 2710, RFC 3810): without them a switch forgets
who listens.
"""


def _ends(
    version: int, networks: tuple[IPNetwork, ...], ports: tuple[Traffic, ...]
) -> dict[Key, str]:
    boxes: list[Box] = [
        (
            (
                network_interval(net),
                (port.first or 0, port.last or 0),
                (port.protocol, port.protocol),
            ),
            "",
        )
        for net in networks
        if net.version == version
        for port in ports
    ]
    return dict(disjoint(boxes))


def _resolver_keys(version: int, resolvers: tuple[IPAddress, ...]) -> dict[Key, str]:
    keys: set[Key] = {
        (
            (int(address), int(address)),
            (port.first or 0, port.last or 0),
            (port.protocol, port.protocol),
        )
        for address in resolvers
        if address.version == version
        for port in _DNS
    }
    return dict.fromkeys(sorted(keys), "")


def lifeline_sets(site: Site, slot: int) -> list[NamedSet]:
    """Give the sets of management ends and of resolvers, only where the site names any."""
    line = site.lifeline
    sets = []
    for digit, version in (("4", 4), ("6", 6)):
        types = (f"ipv{digit}_addr", "inet_service", "inet_proto")
        management = _ends(version, line.management_networks, line.management_ports)
        if management:
            sets.append(
                NamedSet(
                    f"{table_names.prefix(slot)}management{digit}", types, True, "", management
                )
            )
        resolvers = _resolver_keys(version, site.resolvers)
        if resolvers:
            sets.append(
                NamedSet(f"{table_names.prefix(slot)}resolvers{digit}", types, False, "", resolvers)
            )
    return sets


def _conversations(site: Site, slot: int, hook: str, uids: tuple[int, ...]) -> list[Rule]:
    """Keep management (opened from outside to the gateway) and DNS look-ups.

    Look-ups are those of the daemon's own user and of the DNS proxy's. What the kernel sends for a
    socket that has gone (the end of a TCP connection, unsent data, an ICMP error) carries no user
    (nft_meta_get_eval_skugid): it passes by the label of a connection that one of them asked by.
    Another user's packet does not, though it has the same ports.
    """
    theirs, ours = ("original", "reply") if hook == "input" else ("reply", "original")
    made = {named.name for named in lifeline_sets(site, slot)}
    ports = p.Match(p.CT_PROTOCOL, p.PORTS)
    rules: list[Rule] = []
    asked: list[Rule] = []
    for digit, source, destination in (
        ("4", p.CT_SADDR4, p.CT_DADDR4),
        ("6", p.CT_SADDR6, p.CT_DADDR6),
    ):
        family = p.Match(p.NFPROTO, (f"ipv{digit}",))
        management = f"{table_names.prefix(slot)}management{digit}"
        if management in made:
            key = (source, p.CT_PORT, p.CT_PROTOCOL)
            rules.append(
                (
                    p.Match(p.CT_DIRECTION, (theirs,)),
                    family,
                    ports,
                    p.InSet(key, management),
                    p.ACCEPT,
                )
            )
        resolvers = f"{table_names.prefix(slot)}resolvers{digit}"
        if resolvers in made:
            key = (destination, p.CT_PORT, p.CT_PROTOCOL)
            asked.append((p.Match(p.CT_DIRECTION, (ours,)), family, ports, p.InSet(key, resolvers)))
    if hook == "input" or not asked:
        return rules + [(*one, p.ACCEPT) for one in asked]
    who = p.Match(p.SKUID, uids)
    return [
        *rules,
        *((who, *one, _OURS, p.ACCEPT) for one in asked),
        (p.Match(p.SKUID, uids, negate=True), p.RETURN),
        *((_IS_OURS, *one, p.ACCEPT) for one in asked),
    ]


def open_output(site: Site, slot: int) -> str:
    """Name the chain for output while every zone is open.

    With resolvers it labels our own look-ups, so that a cut in the middle of one knows it.
    """
    return table_names.prefix(slot) + ("open.output" if site.resolvers else "open")


def _open_output_chains(site: Site, slot: int, uids: tuple[int, ...]) -> list[Chain]:
    labels = tuple(rule for rule in _conversations(site, slot, "output", uids) if _OURS in rule)
    if not labels:
        return []
    return [Chain(open_output(site, slot), (*labels, (p.ACCEPT,)))]


def _housekeeping(line: Lifeline, hook: str) -> list[Rule]:
    rules: list[Rule] = []
    v4, v6 = p.Match(p.NFPROTO, ("ipv4",)), p.Match(p.NFPROTO, ("ipv6",))
    if Preset.DHCP in line.presets:
        if hook == "input":
            rules += [
                (
                    v4,
                    p.Match(p.UDP_SPORT, (67,)),
                    p.Match(p.UDP_DPORT, (68,)),
                    p.ACCEPT,
                ),  # a relay's server is anywhere
                (
                    v6,
                    p.Match(p.SADDR6, (LINK_LOCAL6,)),
                    p.Match(p.UDP_SPORT, (547,)),
                    p.Match(p.UDP_DPORT, (546,)),
                    p.ACCEPT,
                ),
            ]
        else:
            servers = (LINK_LOCAL6, (_DHCP6_SERVERS, _DHCP6_SERVERS))
            rules += [
                # Not to a single server, which may be far: a lease that can't be renewed so is by
                # broadcast (RFC 2131, 4.4.5).
                (
                    v4,
                    p.Match(p.DADDR4, ((_BROADCAST4, _BROADCAST4),)),
                    p.Match(p.UDP_SPORT, (68,)),
                    p.Match(p.UDP_DPORT, (67,)),
                    p.ACCEPT,
                ),
                (
                    v6,
                    p.Match(p.DADDR6, servers),
                    p.Match(p.UDP_SPORT, (546,)),
                    p.Match(p.UDP_DPORT, (547,)),
                    p.ACCEPT,
                ),
            ]
    if Preset.ND in line.presets:
        rules += _neighbours(hook)
    if Preset.VRRP in line.presets:
        rules += [
            (
                v4,
                p.Match(p.DADDR4, ((_VRRP4, _VRRP4),)),
                p.Match(p.TTL4, (255,)),
                p.Match(p.L4PROTO, (_VRRP,)),
                p.ACCEPT,
            ),
            (
                v6,
                p.Match(p.DADDR6, ((_VRRP6, _VRRP6),)),
                p.Match(p.HOPLIMIT6, (255,)),
                p.Match(p.L4PROTO, (_VRRP,)),
                p.ACCEPT,
            ),
        ]
    if Preset.OSPF in line.presets:
        rules += _ospf(v4, v6)
    return rules


def _ospf(v4: p.Part, v6: p.Part) -> list[Rule]:
    """Keep OSPF with the routers on the gateway's outside links.

    OSPFv2 has the hop limit 1, to its groups and to a neighbour (RFC 2328, appendix A.1): the
    packet ends at the next router. OSPFv3 speaks by link-local addresses (RFC 5340, 2.5), which no
    router passes on.
    """
    link_local = p.Match(p.SADDR6, (LINK_LOCAL6,))
    near = p.Match(p.DADDR6, (LINK_LOCAL6, *_OSPF6))
    ospf = p.Match(p.L4PROTO, (OSPF,))
    return [
        (v4, p.Match(p.TTL4, (1,)), ospf, p.ACCEPT),
        (v6, link_local, near, ospf, p.ACCEPT),
    ]


def _neighbours(hook: str) -> list[Rule]:
    """Keep neighbour discovery and MLD between the gateway and its outside neighbours.

    A hop limit of 255 cannot come from beyond the link (RFC 4861, 7.1), but a packet sent with it
    may go there. So the gateway asks for routers on the link alone, and announces itself as a
    router to nobody outside. A neighbour is asked at whatever address it has (7.3.3), in a packet
    too short to carry anything else. A listener's report has the hop limit 1.
    """
    v6, near, said = p.Match(p.NFPROTO, ("ipv6",)), p.Match(p.HOPLIMIT6, (255,)), p.ICMPV6_TYPE
    # So short that nothing can be carried out in it.
    brief = p.Match(p.LENGTH6, ((0, _NEIGHBOUR_BYTES),))
    link_local, group = p.Match(p.SADDR6, (LINK_LOCAL6,)), p.Match(p.DADDR6, (_MULTICAST6,))
    if hook == "input":
        return [
            (v6, near, p.Match(said, _NEIGHBOURS), p.ACCEPT),
            (v6, near, link_local, p.Match(said, (_ROUTER_SAYS,)), p.ACCEPT),
            (v6, p.Match(p.HOPLIMIT6, (1,)), link_local, p.Match(said, _MLD), p.ACCEPT),
        ]
    return [
        (v6, near, brief, p.Match(said, _NEIGHBOURS), p.ACCEPT),
        (
            v6,
            near,
            p.Match(p.DADDR6, (_LINK_MULTICAST6,)),
            p.Match(said, (_ROUTER_ASKED,)),
            p.ACCEPT,
        ),
        (v6, p.Match(p.HOPLIMIT6, (1,)), group, p.Match(said, _MLD), p.ACCEPT),
    ]


def lifeline_chains(site: Site, slot: int, uids: tuple[int, ...]) -> list[Chain]:
    """Give the lifeline's chains for input and output."""
    return [
        *_open_output_chains(site, slot, uids),
        *(
            Chain(
                f"{table_names.prefix(slot)}lifeline.{hook}",
                (
                    *_housekeeping(site.lifeline, hook),
                    (SPOOFED, p.RETURN),
                    *_conversations(site, slot, hook, uids),
                ),
            )
            for hook in ("input", "output")
        ),
    ]
