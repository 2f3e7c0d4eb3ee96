"""Links over fakes: nothing is called kept that was not looked at just now, and no switch waits for
a look.
"""

import asyncio
from dataclasses import replace

import pytest

from ecluse.controller.tasks import links
from ecluse.errors import KernelError
from ecluse.host_reading import Device, HostReading
from ecluse.policy import GATEWAY
from ecluse.ruleset import switch
from ecluse.zone_links import LinkReading
from tests.unit.controller.machine import Machine
from tests.unit.controller.test_machine import simple
from tests.unit.ruleset.policies import SITE


@pytest.fixture
def machine():
    made = Machine(simple())
    made.start()
    yield made
    made.close()


def plan(machine, level):
    return machine.run(
        machine.controller.plan(level=level, zones=None, rollback=None, reload=False)
    )


def names(machine):
    return tuple(one.name for one in machine.controller._live.current.policy.services)


def kept_nowhere(machine, answer):
    assert not answer.kept
    assert set(answer.not_known) == set(names(machine))
    assert not answer.no_link
    assert any("could not be looked at" in text for text in answer.warnings)


@pytest.mark.parametrize(
    "error", [KernelError("dump interrupted"), RuntimeError("can't start new thread")]
)
def test_a_look_that_fails_keeps_nothing_and_says_so(machine, error):
    assert set(machine.set("cut").kept) == set(names(machine)), "positive control"
    machine.set("open")
    machine.links.fail["read_links"] = error
    change = machine.set("cut")
    assert change.verified
    kept_nowhere(machine, change)
    kept_nowhere(machine, machine.set("cut"))  # it is so already
    assert {one.state for one in machine.status().services} == {"not known"}
    assert plan(machine, "cut").not_known == names(machine)
    del machine.links.fail["read_links"]
    assert {one.state for one in machine.status().services} == {"kept"}
    assert not any("looked at" in text for text in machine.status().warnings)


def test_a_look_that_hangs_holds_up_neither_the_switch_nor_the_answer_for_long(
    machine, monkeypatch
):
    monkeypatch.setattr(links, "_LINKS_SECONDS", 0.05)
    levels_when_asked = []
    real = machine.links.read_links

    async def hang():
        levels_when_asked.append(await kernel())
        await asyncio.Event().wait()

    async def kernel():
        chains = await machine.firewall.chains()
        return switch.read_levels(simple(), await machine.firewall.targets(chains))

    machine.links.read_links = hang
    change = machine.set("cut")
    assert change.verified
    kept_nowhere(machine, change)
    assert set(levels_when_asked[0].values()) == {"cut"}, (
        "it was asked for when the kernel had the switch"
    )
    machine.links.read_links = real
    assert machine.status().services[0].state == "kept"


def test_a_zone_without_a_living_interface_keeps_nothing(machine):
    care = SITE.zones[0]
    others = tuple(Device(name) for zone in SITE.zones[1:] for name in zone.interfaces)
    for dead in (
        (),
        (Device(care.interfaces[0], up=False, running=False),),
        (Device(care.interfaces[0], running=False),),
        (Device(care.interfaces[0], own_ip=False),),
        (Device(care.interfaces[0], master="br0"), Device("br0", kind="bridge")),
        (Device(care.interfaces[0], elsewhere=True),),
    ):
        machine.links.host = HostReading(devices=(*others, *dead))
        assert plan(machine, "cut").no_link == names(machine), dead
        change = machine.set("cut")
        assert (change.kept, change.no_link) == ((), names(machine)), dead
        assert any(text.startswith("zone care: ") for text in change.warnings)
        assert machine.status().services[0].kept_in == ()
        machine.set("open")
    machine.links.host = HostReading(
        devices=(*others, Device(care.interfaces[0], master="vrf0"), Device("vrf0", kind="vrf"))
    )
    assert plan(machine, "cut").services_kept == names(machine)


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


def test_an_interface_that_was_meant_for_a_zone_is_told_once():
    """Its address says which zone: that it is in no zone and closed stands in the same words."""
    care = SITE.zones[0]
    text = f"{care.subnets[0][1]}/{care.subnets[0].prefixlen}"
    devices = (Device("lan9"), Device("docker9"))
    words = LinkReading(HostReading(devices=devices, addresses=(("lan9", text),))).machine_warnings(
        simple(), cut=True
    )
    assert len([one for one in words if "lan9" in one]) == 1, words
    assert "closed while any zone is: docker9 (in no zone of site.yaml)" in words, (
        "positive control"
    )
