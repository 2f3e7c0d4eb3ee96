"""Links over fakes: nothing is called kept that no packet can reach; each bypass is told once."""

import asyncio

import pytest

from ecluse.alerts import OF_THE_MACHINE
from ecluse.api.metrics import SocketCounts, metrics_text
from ecluse.bypass import find_bypasses
from ecluse.controller.tasks import links
from ecluse.errors import KernelError
from ecluse.host_reading import Device, Filter, HostReading, LearnedRoutes
from ecluse.ruleset import switch
from ecluse.zone_links import LinkReading
from tests.unit.controller.machine import Machine, simple
from tests.unit.ruleset.policies import SITE


def look(machine: Machine) -> tuple[str, ...]:
    machine.run(machine.controller.parts.links._look())
    machine.settle()
    return machine.status().warnings


def test_a_way_out_is_named_while_it_is_there(monkeypatch):
    machine = Machine(simple())
    machine.start()
    assert not any("past the gate" in text for text in look(machine))
    machine.bypass_scan.host = HostReading(
        filters=(Filter("care0", "ingress", "bpf"),),
        default_routes=("wan0", "wan1"),
        devices=(Device("wan0"), Device("wan1")),
    )
    for _ in range(3):
        warnings = look(machine)
        assert sum("BPF program" in text for text in warnings) == 1
        assert sum("default routes leave by wan0, wan1" in text for text in warnings) == 1
    assert [event.kind for event in machine.events].count("exit") == 1
    assert [record.event for record in machine.audit.records].count("exit") == 1
    machine.bypass_scan.host = HostReading()
    assert not any("past the gate" in text for text in look(machine))
    assert not machine.audit.records[-1].what.startswith("no more"), "one line a minute of each"
    monkeypatch.setattr(links, "_ONCE", 0.0)
    look(machine)
    assert machine.audit.records[-1].what.startswith("no more: a tc filter")
    machine.close()


def containers(number: int) -> HostReading:
    """What stands while that container runs: its macvlan, its port of the bridge."""
    ports = (
        Device("care0", master="br0"),
        Device(f"veth{number}", master="br0"),
        Device("br0", kind="bridge"),
    )
    return HostReading(
        devices=(*ports, Device("wan0"), Device(f"mv{number}", kind="macvlan", parent="wan0"))
    )


def test_containers_that_come_and_go_make_no_line_each(monkeypatch):
    machine = Machine(simple())
    machine.start()

    def lines() -> int:
        return [record.event for record in machine.audit.records].count("exit")

    for number in range(5):
        machine.bypass_scan.host = containers(number)
        assert sum(f"veth{number}" in text for text in look(machine)) == 1, (
            "status tells what is there now"
        )
        machine.bypass_scan.host = HostReading()
        look(machine)
    assert lines() == 1
    assert [event.kind for event in machine.events].count("exit") == 2
    machine.bypass_scan.host = HostReading(devices=(Device("wan0", xdp="generic"),))
    look(machine)
    assert lines() == 2, "another way is told at once"
    monkeypatch.setattr(links, "_ONCE", 0.0)
    look(machine)
    assert lines() == 3
    assert machine.audit.records[-1].what.startswith("no more: ")
    machine.bypass_scan.host = HostReading(
        filters=tuple(Filter("care0", side, "bpf") for side in ("ingress", "egress"))
    )
    look(machine)
    assert "past the gate (and 1 more there)" in machine.audit.records[-1].what
    machine.bypass_scan.host = HostReading()
    look(machine)
    monkeypatch.setattr(links, "_ONCE", 60.0)
    look(machine)
    assert lines() == 5
    machine.close()


def test_a_look_that_fails_is_said_and_forgets_nothing():
    machine = Machine(simple())
    machine.bypass_scan.host = HostReading(devices=(Device("wan0", xdp="generic"),))
    machine.start()
    assert any("XDP" in text for text in look(machine))
    machine.bypass_scan.fail["scan"] = KernelError("dump interrupted")
    warnings = look(machine)
    assert any("dump interrupted" in text for text in warnings)
    assert any("XDP" in text for text in warnings)
    machine.close()


def test_shared_interfaces_and_inside_bridges_are_no_exits():
    inside = HostReading(
        devices=(
            Device("lo"),
            Device("care0"),
            Device("core0", kind="bridge"),
            Device("eth1", master="core0"),
            Device("eth2", master="core0"),
            Device("tap0", kind="macvtap", parent="care0"),
        )
    )
    assert find_bypasses(inside, simple()) == ()


def test_what_appears_is_judged_at_once_and_said():
    machine = Machine(simple())
    machine.start()
    machine.set("cut")
    machine.links.change(
        "interface br-containers is up",
        interfaces=("care0", "core0", "wan0", "br-containers"),
        routes=("wan0",),
    )
    machine.settle()
    told = [event.message for event in machine.events if event.kind == "link"]
    assert (
        "interface br-containers is in no zone: while any zone is closed, only what a service "
        "keeps passes there"
    ) in told
    assert any("br-containers" in text for text in machine.status().warnings)
    machine.run(asyncio.sleep(1.1))
    machine.links.change("route default by care0 is there", routes=("wan0", "care0"))
    machine.settle()
    machine.run(asyncio.sleep(0.05))
    assert any("a default route leaves by care0" in text for text in machine.status().warnings)
    machine.bypass_scan.host = HostReading(
        addresses=(("care0", "10.99.0.1/16"), ("care0", "fe80::1/64"), ("care0", "10.10.0.1/24"))
    )
    (warning,) = (text for text in look(machine) if "in none of the subnets" in text)
    assert warning.startswith("10.99.0.1/16 on care0")
    machine.close()


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
        return switch.levels_of_targets(simple(), await machine.firewall.targets(chains))

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


def test_a_scan_takes_the_reading_of_its_look_and_waits_for_no_other(machine):
    machine.bypass_scan.host = HostReading(devices=(Device("wan0", xdp="generic"),))
    readings = 0
    real = machine.links.read_links

    async def once():
        nonlocal readings
        readings += 1
        if readings > 1:
            raise KernelError("the links changed again meanwhile, and are read for long")
        return await real()

    machine.links.read_links = once
    machine.run(machine.controller.parts.links._look())
    assert any("XDP" in one.what for one in machine.controller.parts.links.bypasses)
    assert not any("ways past the gate" in text for text in machine.alert_texts())


def machine_alerts(machine) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in machine.status().alerts:
        if one.code in OF_THE_MACHINE:
            found.setdefault(one.code, []).append(one.text)
    return found


def test_what_is_odd_about_the_machine_is_an_alert_with_a_code_while_it_is(machine):
    machine.set("cut")
    ports = Device("care0", master="br0"), Device("out1", master="br0")
    machine.bypass_scan.host = HostReading(
        devices=(
            *(*ports, Device("br0", kind="bridge")),
            *(Device("wan0"), Device("mv0", kind="macvlan", parent="wan0")),
            Device("mv1", kind="macvlan", parent="wan0"),
            Device("tun6", kind="sit", remote="198.51.100.9"),
            Device("clat0", kind="tun"),
        ),
        learned_routes=(LearnedRoutes(188, "wan0", 7, default=False),),
        translations=(("clat0", "64:ff9b::/96"),),
        sysctls={"net.ipv4.ip_forward": "0"},
    )
    warnings = look(machine)
    found = machine_alerts(machine)
    assert len(found["bypass-found"]) == 2, "a bridge, and of two macvlans at one place the first"
    assert {code for code in OF_THE_MACHINE if code in found} == OF_THE_MACHINE - {"zone-links-odd"}
    assert sum("mv1" in text for text in warnings) == 1, "the second is said all the same"
    assert len(warnings) == len(set(warnings)), "nothing is said twice"
    body = metrics_text(machine.status(), SocketCounts({}, 0, 0))
    assert b'ecluse_alert{code="tunnel-not-kept",severity="warning"} 1' in body
    assert not any("wan0" in text for text in machine.set("isolate").warnings), "of levels alone"
    machine.bypass_scan.host = HostReading()
    look(machine)
    assert machine_alerts(machine) == {}


def test_a_link_that_a_zone_misses_is_an_alert_in_the_same_answer(machine):
    assert machine_alerts(machine) == {}
    machine.links._interfaces = ("care0", "wan0")  # announced a moment later
    found = machine_alerts(machine)
    assert any("no interface is called" in text for text in found["zone-links-odd"])
    machine.links._interfaces = ("care0", "core0", "wan0")


def test_links_that_can_not_be_read_end_no_alert(machine):
    machine.links._routes = ("wan0", "care0")
    look(machine)
    before = machine_alerts(machine)
    assert any("a default route leaves by care0" in one for one in before["bypass-found"])
    read = machine.links.read_links

    async def refused():
        raise KernelError("busy")

    machine.links.read_links = refused
    assert machine_alerts(machine) == before, "nothing new is known"
    machine.links.read_links = read
    machine.links._routes = ("wan0",)
    look(machine)
    assert machine_alerts(machine) == {}
