"""Which devices the second lock closes, and what each lets out of others that stand on it."""

from ecluse.exit_devices import exit_devices, unwritable_devices
from ecluse.host_reading import Device, HostReading
from ecluse.policy import Policy
from tests.unit.ruleset.policies import SITE


def locked(*devices):
    found = exit_devices(Policy(SITE, ()), HostReading(devices=devices))
    return {one.name: one for one in found}


def test_all_that_is_in_no_zone_but_loopback_vrfs_and_ports_of_bonds():
    found = locked(
        Device("lo"), Device("care0"), Device("wan0"), Device("vrf1", "vrf"),
        Device("wan1", master="vrf1"), Device("bond0", "bond"), Device("eth1", master="bond0"),
        Device("br0", "bridge"), Device("eth2", master="br0"), Device("far0", elsewhere=True),
        Device("core0", "bridge"), Device("eth3", master="core0"),
    )  # fmt: skip
    assert set(found) == {"wan0", "wan1", "bond0", "br0", "eth2"}


def test_a_port_of_an_outside_bridge_sends_as_its_bridge_too():
    found = locked(Device("br0", "bridge", mac=7), Device("eth2", master="br0", mac=8))
    assert found["eth2"].macs == (7, 8)
    assert found["br0"].macs == (7,)


def test_what_stands_on_a_trunk():
    found = locked(
        Device("eth0", mac=1, own_ip=False),
        Device("care0", "vlan", parent="eth0", mac=1, vlan=(0x8100, 10)),
        Device("wan0", "vlan", parent="eth0", mac=2, vlan=(0x88A8, 20)),
        Device("core0", "macvlan", parent="eth0", mac=3),
        Device("box0", "macvlan", parent="eth0", mac=4),
        Device("far0", "macvlan", parent="eth0", mac=5, elsewhere=True),
    )
    trunk = found["eth0"]
    assert trunk.zone_tags == ((0x8100, 10),)
    assert trunk.outside_tags == ((0x88A8, 20),)
    assert trunk.macs == (1, 2, 4)
    assert trunk.zone_macs == (3,)
    assert trunk.dials
    assert set(found) == {"eth0", "wan0", "box0"}


def test_a_name_that_no_rule_can_write_costs_its_own_device_alone_and_is_named():
    devices = Device("wan0"), Device('a"b'), Device("c\ufffd"), Device("x*"), Device("$y")
    assert set(locked(*devices)) == {"wan0", "x*", "$y"}
    host = HostReading(devices=devices)
    assert unwritable_devices(Policy(SITE, ()), host) == ('a"b', "c\ufffd")
