"""What the lifeline's presets mean: link housekeeping of the gateway itself (docs/security.md)."""

from ipaddress import ip_network

from ecluse.policy import Preset
from ecluse.proof.formula import Packets, Words
from ecluse.proof.packet import ICMP

_UDP, _VRRP, _OSPF = 17, 112, 89
LINK_LOCAL = (ip_network("fe80::/10"),)


def housekeeping(w: Words, presets: tuple[Preset, ...]) -> Packets:
    """Give what the presets let the gateway hear, or say."""
    said = {Preset.DHCP: _dhcp, Preset.ND: _nd, Preset.VRRP: _vrrp, Preset.OSPF: _ospf}
    passes = w.nothing
    for preset in presets:
        passes |= said[preset](w, receives=w.view.hook == "input")
    return passes


def _icmp6(w: Words, *kinds: int) -> Packets:
    types = ((kind << 8, kind << 8 | 255) for kind in kinds)
    return w.given(w.view.version == 6) & w.among("l4proto", ICMP[6]) & w.among("sport", *types)


def _dhcp(w: Words, *, receives: bool) -> Packets:
    """The gateway's own lease: asked of the link alone, heard from any server."""
    server, client = (67, 68) if w.view.version == 4 else (547, 546)
    ports = (server, client) if receives else (client, server)
    udp = w.among("l4proto", _UDP) & w.among("sport", ports[0]) & w.among("dport", ports[1])
    if receives:
        return udp & (w.given(w.view.version == 4) | w.within("saddr", LINK_LOCAL))
    to = (ip_network("255.255.255.255"), *LINK_LOCAL, ip_network("ff02::1:2"))
    return udp & w.within("daddr", to)


def _nd(w: Words, *, receives: bool) -> Packets:
    """Neighbour discovery and listener messages, which no router passes on (RFC 4861, RFC 3810)."""
    near, once = w.among("ttl", 255), w.among("ttl", 1)
    neighbours, listeners = _icmp6(w, 135, 136), _icmp6(w, 130, 131, 132, 143)
    link_local = w.within("saddr", LINK_LOCAL)
    if receives:
        return near & (neighbours | _icmp6(w, 134) & link_local) | once & listeners & link_local
    brief = w.among("len", (0, 40))
    asks = _icmp6(w, 133) & w.within("daddr", (ip_network("ff02::/16"),))
    reports = listeners & w.within("daddr", (ip_network("ff00::/8"),))
    return near & (neighbours & brief | asks) | once & reports


def _vrrp(w: Words, *, receives: bool) -> Packets:  # noqa: ARG001
    """To the VRRP groups only, with the hop limit 255 (RFC 5798)."""
    groups = (ip_network("224.0.0.18"), ip_network("ff02::12"))
    return w.among("l4proto", _VRRP) & w.among("ttl", 255) & w.within("daddr", groups)


def _ospf(w: Words, *, receives: bool) -> Packets:  # noqa: ARG001
    """IPv4: hop limit 1, so the next router is the last. IPv6: link-local, or its groups."""
    ospf = w.among("l4proto", _OSPF)
    if w.view.version == 4:
        return ospf & w.among("ttl", 1)
    to = (*LINK_LOCAL, ip_network("ff02::5"), ip_network("ff02::6"))
    return ospf & w.within("saddr", LINK_LOCAL) & w.within("daddr", to)
