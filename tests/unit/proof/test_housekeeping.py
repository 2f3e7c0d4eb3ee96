"""What presets let pass, by examples; kernel tests hold all of it against the ruleset."""

from ipaddress import ip_address

import pytest

from ecluse.policy import Preset
from ecluse.proof.formula import Words
from ecluse.proof.housekeeping import housekeeping
from tests.unit.proof.worlds import view

PACKET = {"th": 2, "ttl": 255, "len": 32, "proto": 17}


def passes(preset, hook, version, **fields):
    w = Words(view("none", hook, version))
    point = {
        w.view.level[name]: int(ip_address(value)) if isinstance(value, str) else value
        for name, value in {**PACKET, **fields}.items()
    }
    return w.view.space.holds(housekeeping(w, (preset,)).region, point)


def test_a_lease_is_asked_of_everybody_on_the_link_and_heard_from_anybody():
    ask = {"th0": 68, "th2": 67}
    assert passes(Preset.DHCP, "output", 4, target="255.255.255.255", **ask)
    assert not passes(Preset.DHCP, "output", 4, target="203.0.113.1", **ask)
    assert passes(Preset.DHCP, "input", 4, opener="203.0.113.1", th0=67, th2=68)
    assert not passes(Preset.DHCP, "input", 4, opener="203.0.113.1", th0=67, th2=69)
    assert not passes(Preset.DHCP, "input", 6, opener="2001:db8::1", th0=547, th2=546)
    assert passes(Preset.DHCP, "output", 6, target="ff02::1:2", th0=546, th2=547)


@pytest.mark.parametrize(("length", "passed"), [(40, True), (41, False)])
def test_a_neighbour_is_asked_in_few_bytes(length, passed):
    asked = {"proto": 58, "th0": 135 << 8, "target": "2001:db8::1", "len": length}
    assert passes(Preset.ND, "output", 6, **asked) == passed
    assert not passes(Preset.ND, "output", 6, **asked, ttl=64)


def test_routers_are_asked_on_the_link_and_heard_from_it():
    assert passes(Preset.ND, "output", 6, proto=58, th0=133 << 8, target="ff02::2")
    assert not passes(Preset.ND, "output", 6, proto=58, th0=133 << 8, target="ff05::2")
    assert not passes(Preset.ND, "output", 6, proto=58, th0=134 << 8, target="ff02::1")
    assert passes(Preset.ND, "input", 6, proto=58, th0=134 << 8, opener="fe80::1")
    assert not passes(Preset.ND, "input", 6, proto=58, th0=134 << 8, opener="2001:db8::1")


def test_vrrp_and_ospf():
    assert passes(Preset.VRRP, "output", 4, proto=112, target="224.0.0.18")
    assert not passes(Preset.VRRP, "output", 4, proto=112, target="224.0.0.19")
    assert not passes(Preset.VRRP, "output", 4, proto=112, target="224.0.0.18", ttl=254)
    assert passes(Preset.OSPF, "output", 4, proto=89, ttl=1, target="203.0.113.1")
    assert not passes(Preset.OSPF, "output", 4, proto=89, ttl=2, target="203.0.113.1")
    assert passes(Preset.OSPF, "input", 6, proto=89, opener="fe80::1", target="ff02::5")
    assert not passes(Preset.OSPF, "input", 6, proto=89, opener="2001:db8::1", target="ff02::5")
