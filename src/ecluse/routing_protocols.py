"""Routing protocols: the number that the kernel has for each, and by which packets it lives.

Source: linux/rtnetlink.h (RTPROT_*). IS-IS needs no IP: the gate never sees it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Packets = tuple[int, int | None]
"""A protocol (IANA number) and a destination port; None: it has no ports, or any is meant."""

OSPF_PACKETS: Packets = (89, None)
EIGRP_PACKETS: Packets = (88, None)
BGP_PACKETS: Packets = (6, 179)
RIP_PACKETS: Packets = (17, 520)
RIPNG_PACKETS: Packets = (17, 521)
BABEL_PACKETS: Packets = (17, 6696)
_ANY = OSPF_PACKETS, BGP_PACKETS, RIP_PACKETS, RIPNG_PACKETS, BABEL_PACKETS


@dataclass(frozen=True, slots=True)
class RoutingProtocol:
    """One that puts routes into the kernel.

    packets: what its neighbours tell it by; one of them is enough. dead: how long its routes
    outlive them by default, in words.
    """

    name: str
    packets: tuple[Packets, ...]
    dead: str


ROUTING_PROTOCOLS: Mapping[int, RoutingProtocol] = MappingProxyType(
    {
        11: RoutingProtocol("zebra", _ANY, "OSPF: 40 s, BGP: 180 s"),
        12: RoutingProtocol("bird", _ANY, "OSPF: 40 s, BGP: 240 s"),
        42: RoutingProtocol("Babel", (BABEL_PACKETS,), "some 14 s"),
        186: RoutingProtocol("BGP", (BGP_PACKETS,), "180 s"),
        188: RoutingProtocol("OSPF", (OSPF_PACKETS,), "40 s"),
        189: RoutingProtocol("RIP", (RIP_PACKETS, RIPNG_PACKETS), "180 s"),
        192: RoutingProtocol("EIGRP", (EIGRP_PACKETS,), "15 s"),
    }
)
"""By rtm_protocol. zebra and bird stand for whichever protocol those programs speak."""
