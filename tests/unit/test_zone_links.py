"""Interfaces and zones: what is odd between them."""

from dataclasses import replace

from ecluse.host_reading import Device, HostReading
from ecluse.policy import GATEWAY
from ecluse.zone_links import LinkReading
from tests.unit.controller.machine import simple


def test_of_what_a_wildcard_stands_for_one_is_enough():
    site = simple()
    pattern = "vlan*"
    one = site.site.zones[0]
    zones = (replace(one, interfaces=(pattern,)), *site.site.zones[1:])
    policy = replace(site, site=replace(site.site, zones=zones))
    some = (Device("vlan1", running=False), Device("vlan2"))
    assert LinkReading(HostReading(devices=some)).living_zones(policy)[one.name] is True
    assert not any(
        "vlan" in text for text in LinkReading(HostReading(devices=some)).link_warnings(policy)
    )
    assert LinkReading(HostReading(devices=some[:1])).living_zones(policy)[one.name] is False
    assert LinkReading(HostReading(devices=some[:1])).living_zones(policy)[GATEWAY] is True
    trunk = (Device("lan0", own_ip=False), Device("lan0.10", kind="vlan", parent="lan0"))
    zones = (replace(one, interfaces=("lan0",)), *site.site.zones[1:])
    (told,) = (
        t
        for t in LinkReading(HostReading(devices=trunk)).link_warnings(
            replace(site, site=replace(site.site, zones=zones))
        )
        if "lan0" in t
    )
    assert told.startswith(
        "zone care: lan0 has no address and no route of its own (above it: lan0.10)"
    )


def in_vrf(*interfaces, also=("wan0",)):
    """Give the remarks on VRFs where care's interfaces are these, and lan0 and others are in the
    VRF vall.
    """
    site = simple()
    zones = (replace(site.site.zones[0], interfaces=interfaces), *site.site.zones[1:])
    policy = replace(site, site=replace(site.site, zones=zones))
    members = tuple(Device(name, master="vall") for name in ("lan0", *also))
    host = HostReading(devices=(*members, Device("vall", kind="vrf", own_ip=False)))
    sight = LinkReading(host)
    return sight.living_zones(policy)["care"], [
        text for text in sight.link_warnings(policy) if "VRF" in text
    ]


def test_a_vrf_in_no_zone_is_named_with_what_to_write():
    alive, (told,) = in_vrf("lan0")
    assert alive, "what is forwarded is judged by the real interface"
    assert told.startswith("lan0 of zone care is in the VRF vall, which is in no zone")
    assert told.endswith("add vall to the zone's interfaces too")


def test_a_vrf_of_a_zone_that_holds_something_else_is_named():
    alive, (told,) = in_vrf("lan0", "vall")
    assert alive
    assert told.startswith("the VRF vall of zone care holds wan0 too, which is in no zone")
    assert in_vrf("lan0", "vall", also=()) == (True, []), "nothing to say"


def test_a_zone_that_names_its_vrf_alone_is_dead():
    alive, (told,) = in_vrf("vall")
    assert not alive
    assert told.startswith("zone care: vall is a VRF")
    assert "(lan0, wan0)" in told
    assert told.endswith("no packet of this zone is kept")


def test_a_way_out_that_a_zones_wildcard_takes_for_the_inside_is_a_way_past_the_gate():
    site = simple()
    zones = (replace(site.site.zones[0], interfaces=("lan0", "vlan*")), *site.site.zones[1:])
    policy = replace(site, site=replace(site.site, zones=zones))
    (told,) = LinkReading(
        HostReading(devices=(Device("lan0"), Device("vlan9")), default_routes=("vlan9",))
    ).default_route_bypasses(policy)
    assert told.startswith("a default route leaves by vlan9, which is in zone care (vlan*)")
    assert "passes at every level" in told
    host = HostReading(devices=(Device("lan0"), Device("wan0")), default_routes=("wan0",))
    assert LinkReading(host).default_route_bypasses(policy) == ()


def test_a_tunnel_in_no_zone_is_not_called_closed_and_what_is_idle_is_not_named():
    devices = (
        Device("wg0", "wireguard"),
        Device("dsl0", "ppp"),
        Device("docker0", "bridge"),
        Device("sit0", "sit", up=False),
        Device("tunl0", "ipip", own_ip=False),
        Device("eth1", own_ip=False),
        Device("bond0", "bond"),
        Device("eth2", master="bond0"),
    )
    told = LinkReading(HostReading(devices=devices)).machine_warnings(simple(), cut=True)
    assert "closed while any zone is: bond0, docker0 (in no zone of site.yaml)" in told
    (through,) = (text for text in told if "wg0" in text)
    assert through.startswith("outside, as in no zone of site.yaml: dsl0, wg0: what services keep")
    for idle in ("sit0", "tunl0", "eth1", "eth2"):
        assert not any(idle in text for text in told)
