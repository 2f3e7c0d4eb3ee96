"""Ends of both, joined."""

from ecluse.ruleset.exit_values import Ends, ExitDevice, merged, merged_answers


def test_intervals_that_overlap_or_touch_are_one():
    assert merged([(5, 9), (1, 2), (3, 4), (20, 30), (22, 25)]) == ((1, 9), (20, 30))


def test_ports_are_joined_by_protocol():
    assert merged_answers([(17, 5, 9), (6, 1, 2), (6, 3, 4)]) == ((6, 1, 4), (17, 5, 9))


def test_both_ends_are_in_the_union():
    both = Ends(frozenset({1}), ((5, 6),), frozenset({9})) | Ends(frozenset({2}), ((7, 8),))
    assert both == Ends(frozenset({1, 2}), ((5, 8),), frozenset({9}))


def test_no_two_devices_share_a_key():
    names = ["wan0", "wan_0", "wan-0", "wan.0", "wan_2d0", "eth0.10@x", "é"]
    keys = {ExitDevice(name).key for name in names}
    assert len(keys) == len(names)
    assert all(key.replace("_", "").isalnum() and key.isascii() for key in keys)
