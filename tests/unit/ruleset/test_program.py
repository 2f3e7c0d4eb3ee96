"""A program's values."""

import pytest

from ecluse.ruleset.program import NamedSet, ifname_interval


@pytest.mark.parametrize(
    "pattern, inside, outside",
    [
        ("eth1", ["eth1"], ["eth", "eth10", "eth2", ""]),
        ("vlan*", ["vlan", "vlan1", "vlan4094"], ["vla", "wlan1", ""]),
        ("*", ["", "eth0", "~"], []),
    ],
)
def test_which_interfaces_a_pattern_means(pattern, inside, outside):
    low, high = ifname_interval(pattern)
    assert all(low <= ifname_interval(name)[0] <= high for name in inside)
    assert not any(low <= ifname_interval(name)[0] <= high for name in outside)


def test_maps_to_counters_alone_are_bulk():
    def named(value):
        return NamedSet("k1_m", ("inet_service",), False, value, {((1, 1),): "x"})

    assert [named(value).is_bulk for value in ("counter", "verdict", "")] == [True, False, False]
