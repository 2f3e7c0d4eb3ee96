"""The text of the second lock: whole, and a restatement of what stands."""

from dataclasses import replace

from ecluse.policy import Preset
from ecluse.ruleset.exit_text import REMOVAL, boot_text, names, table_text
from ecluse.ruleset.exit_values import Ends, ExitDevice, ExitLock

WAN = ExitDevice("wan0", (0x020000000001,))
LOCK = ExitLock((WAN,), Ends(frozenset({1})), Ends(), frozenset(Preset))


def test_a_boot_text_makes_it_whatever_stands():
    assert boot_text(LOCK) == REMOVAL + table_text(LOCK)


def test_a_set_that_stands_is_not_sent_again_and_another_has_another_name():
    standing = names(LOCK)
    assert "elements" not in table_text(LOCK, standing)
    other = replace(LOCK, ends4=Ends(frozenset({2})))
    text = table_text(other, standing)
    (gone,) = standing.sets - names(other).sets
    assert f"delete set netdev ecluse_exit {gone}" in text
    assert "elements" in text


def test_a_device_that_is_gone_leaves_nothing_and_no_counter_of_another_is_deleted():
    more = replace(LOCK, devices=(WAN, ExitDevice("ppp0", ethernet=False)))
    text = table_text(LOCK, names(more))
    for what in ("chain netdev ecluse_exit on.ppp0", "chain netdev ecluse_exit lost.ppp0"):
        assert f"delete {what}" in text
    assert "delete counter netdev ecluse_exit lost.ppp0" in text
    assert "delete counter netdev ecluse_exit lost.wan0" not in text


def test_a_device_without_ethernet_is_not_asked_for_link_layer_addresses():
    text = table_text(replace(LOCK, devices=(ExitDevice("ppp0", ethernet=False),)))
    assert "@ll" not in text
    assert "ether" not in text.replace("ether_addr . ether_type", "")


def test_where_nothing_is_learned_there_is_no_set_for_it():
    assert "learned" not in table_text(LOCK)
    assert "@learned4" in table_text(replace(LOCK, learns=True))
