"""What carries kept services and would end itself, and what is no matter."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from ecluse.carriers import carrier_warnings
from ecluse.host_reading import Device, HostReading, LearnedRoutes
from ecluse.policy import (
    GATEWAY,
    Criticality,
    Destination,
    Direction,
    Policy,
    Preset,
    Service,
    Traffic,
)
from tests.unit.controller.machine import simple
from tests.unit.ruleset.policies import ZONES

OSPF = HostReading(learned_routes=(LearnedRoutes(188, "wan0", 3, default=True),))
SIT = HostReading(devices=(Device("six0", "sit", remote="203.0.113.1"),))


def keeping(traffic: Traffic, *networks: str, zone: str = GATEWAY, hosts=()) -> Policy:
    """Give a site that keeps one vital service of a zone."""
    nets = tuple(map(ip_network, networks))
    there = Destination(Direction.OUTBOUND, hosts, nets, (traffic,))
    service = Service("carrier", "", "", "", Criticality.VITAL, (zone,), (), (there,))
    return replace(simple(), services=(service,))


def at(host: HostReading, policy: Policy, level: str = "cut", **others: str):
    return carrier_warnings(host, policy, {**dict.fromkeys(ZONES, level), **others})


def test_routes_learned_outside_are_said_to_go_with_the_dead_interval():
    (one,) = at(OSPF, simple())
    assert (one.kind, one.where) == ("routing", "OSPF")
    assert one.what.startswith("3 routes by wan0, the default route among them, came by OSPF")
    assert "level 'cut' refuses: kept services lose their route" in one.what
    assert "(by default 40 s)" in one.what
    assert "Write 'ospf' into the lifeline's presets" in one.what


@pytest.mark.parametrize(
    ("protocol", "packets"),
    [
        (188, Traffic(89)),
        (186, Traffic(6, 179, 179)),
        (12, Traffic(89)),
        (42, Traffic(17, 1, 9999)),
    ],
)
def test_a_protocol_that_is_kept_is_nothing_to_say(protocol, packets):
    host = HostReading(learned_routes=(LearnedRoutes(protocol, "wan0", 1, default=False),))
    assert at(host, simple())
    assert not at(host, keeping(packets, "198.51.100.0/24"))
    assert at(host, keeping(packets, "198.51.100.0/24", zone="care")), "the gateway's own count"
    assert at(host, keeping(Traffic(132, 1, 65535), "0.0.0.0/0"))


def test_the_preset_keeps_ospf():
    site = simple().site
    lifeline = replace(site.lifeline, presets=(Preset.OSPF,))
    assert not at(OSPF, replace(simple(), site=replace(site, lifeline=lifeline)))


def test_nothing_is_said_where_nothing_is_lost():
    inside = HostReading(learned_routes=(LearnedRoutes(188, "care0", 3, default=False),))
    assert not at(inside, simple()), "from inside to inside passes"
    isis = HostReading(learned_routes=(LearnedRoutes(187, "wan0", 3, default=True),))
    assert not at(isis, simple()), "IS-IS needs no IP"
    assert not at(OSPF, simple(), "open")
    assert not at(OSPF, simple(), "isolate"), "nothing is kept that could be lost"
    assert at(OSPF, simple(), "isolate", care="cut")
    assert not at(OSPF, simple(), gateway="open")


@pytest.mark.parametrize(
    ("kind", "ports"),
    [
        ("sit", "proto/41"),
        ("ipip", "proto/4"),
        ("ip6tnl", "proto/41 or proto/4"),
        ("gre", "gre"),
        ("xfrm", "esp or udp/4500"),
        ("wireguard", "udp/PORT"),
        ("vxlan", "udp/4789"),
    ],
)
def test_a_tunnel_whose_own_packets_are_refused_is_named_with_what_to_list(kind, ports):
    (one,) = at(HostReading(devices=(Device("t0", kind, remote="203.0.113.1"),)), simple())
    assert (one.kind, one.where) == ("tunnel", "t0")
    assert one.what.startswith(f"t0 is a tunnel ({kind} to 203.0.113.1) whose own packets level")
    assert one.what.endswith(f"List {ports} for zone gateway, to and from 203.0.113.1")


def test_a_tunnel_that_is_kept_down_unused_or_inside_is_nothing_to_say():
    assert at(SIT, simple())
    assert not at(SIT, keeping(Traffic(41), "203.0.113.0/24"))
    assert at(SIT, keeping(Traffic(41), "198.51.100.0/24")), "kept to another end"
    assert not at(SIT, keeping(Traffic(41), hosts=("end.example",))), "a name may lead there"
    (sit,) = SIT.devices
    for idle in ({"up": False}, {"own_ip": False}, {"elsewhere": True}, {"remote": "10.10.0.7"}):
        assert not at(HostReading(devices=(replace(sit, **idle),)), simple()), idle
    port = HostReading(devices=(Device("vx0", "vxlan", remote="203.0.113.1", port=8472),))
    assert at(port, keeping(Traffic(17, 4789, 4789), "203.0.113.1/32"))
    assert not at(port, keeping(Traffic(17, 8472, 8472), "203.0.113.1/32"))


def test_a_nat64_in_no_zone_dies_and_one_in_a_zone_is_everybodys():
    tayga = HostReading(
        devices=(Device("nat64", "tun"),), translations=(("nat64", "64:ff9b::/96"),)
    )
    (one,) = at(tayga, simple())
    assert one.what.startswith("nat64 is a NAT64 (64:ff9b::/96) in no zone: what it translates is")
    site = simple().site
    zones = (replace(site.zones[0], interfaces=("care0", "nat64")), *site.zones[1:])
    (one,) = at(tayga, replace(simple(), site=replace(site, zones=zones)))
    assert "nat64 of zone care is a NAT64" in one.what
    assert "every zone gets what care keeps" in one.what


@pytest.mark.parametrize(
    ("kind", "prefix", "is_one"),
    [
        ("tun", "2001:db8:64::/96", True),
        ("veth", "64:ff9b:1:7::/96", True),
        ("veth", "2001:db8:64::/96", False),
        ("", "64:ff9b::/96", False),
    ],
)
def test_which_routes_lead_into_a_translator(kind, prefix, is_one):
    host = HostReading(devices=(Device("x0", kind),), translations=(("x0", prefix),))
    assert bool(at(host, simple())) is is_one
