"""The flowtable of kept flows: made when all is done, ended by what closes, no reason to fail."""

import asyncio
from dataclasses import replace

import pytest

from ecluse.controller.tasks import flowtable
from ecluse.controller.tasks.flowtable import flowtable_devices
from ecluse.errors import KernelError
from ecluse.host_reading import Device, HostReading
from ecluse.policy import FastPath
from tests.unit.controller.machine import Machine, simple

HOST = HostReading(
    devices=(
        Device("lo"),
        Device("care0"),
        Device("wan0"),
        Device("port1", master="br0"),
        Device("br0", kind="bridge"),
        Device("vall", kind="vrf"),
        Device("down0", up=False),
        Device("trunk0", own_ip=False),
        Device("mv0", kind="macvlan", elsewhere=True),
    )
)
FAST = ("br0", "care0", "wan0")


def site(path: FastPath):
    policy = simple()
    return replace(policy, site=replace(policy.site, fast_path=path))


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(flowtable, "_RENEWAL", 0.01)
    made = Machine(site(FastPath.FLOWTABLE))
    made.links.host = HOST
    made.start()
    yield made
    made.close()


def after(machine, seconds=0.15):
    """Give the flowtable's devices after a while."""
    machine.run(asyncio.sleep(seconds))
    return machine.firewall.flowtable


def test_only_interfaces_by_whose_name_packets_are_forwarded_are_in_it():
    assert flowtable_devices(HOST) == FAST
    many = HostReading(devices=tuple(Device(f"vlan{n}") for n in range(300)))
    assert len(flowtable_devices(many)) == 256


def test_it_stands_while_some_zone_is_not_open(machine):
    assert after(machine) is None
    machine.set("cut")
    assert after(machine) == FAST
    assert machine.status().in_step
    machine.set("open")
    assert after(machine) is None


def test_a_switch_ends_it_and_it_comes_back_without_flows(machine):
    machine.set("cut")
    after(machine)
    made = machine.firewall.flowtables
    machine.set("isolate")
    assert after(machine) == FAST
    assert machine.firewall.flowtables > made


def test_all_flows_are_judged_again_now_and_then(machine):
    machine.set("cut")
    after(machine)
    made = machine.firewall.flowtables
    after(machine)
    assert machine.firewall.flowtables > made
    assert machine.status().in_step


def test_a_kernel_without_flowtables_closes_all_the_same_and_says_so_once(machine):
    machine.firewall.fail["make_flowtable"] = KernelError("it has none")
    assert machine.set("cut").verified
    assert after(machine) is None
    (text,) = [one for one in machine.status().warnings if one.startswith("fast_path")]
    assert "it has none" in text
    events = [event.message for event in machine.events if "fast_path" in event.message]
    assert len(events) == 1
    machine.set("open")
    after(machine)
    assert not [one for one in machine.status().warnings if one.startswith("fast_path")]


def test_a_refused_one_is_not_tried_for_ever(machine):
    machine.firewall.fail["make_flowtable"] = KernelError("no")
    machine.set("cut")
    after(machine)
    machine.firewall.fail.clear()
    assert after(machine) is None, "the devices are the same"
    machine.links.host = replace(HOST, devices=HOST.devices[1:3])
    assert after(machine) == ("care0", "wan0")


def test_a_site_that_wants_none_has_none(machine):
    machine.set("cut")
    assert after(machine) == FAST
    machine.reload(site(FastPath.CHAINS))
    assert after(machine) is None


def test_a_link_that_changes_has_it_made_again_at_once(machine, monkeypatch):
    machine.set("cut")
    after(machine)
    monkeypatch.setattr(flowtable, "_RENEWAL", 3600)
    after(machine)
    made = machine.firewall.flowtables
    after(machine)
    assert machine.firewall.flowtables == made, "positive control"
    machine.links.host = replace(HOST, devices=HOST.devices[1:3])
    machine.links.change("wan1 is gone")
    assert after(machine, 1.5) == ("care0", "wan0")
