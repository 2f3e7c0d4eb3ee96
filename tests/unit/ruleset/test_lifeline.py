"""What passes at every level."""

from dataclasses import replace

import pytest

from ecluse.policy import Lifeline, Policy, Preset
from tests.unit.ruleset import policies as w
from tests.unit.ruleset.packets import cut, flow, packet


def test_lifeline_at_isolate(policy):
    oracle = cut(policy, level="isolate")
    management = flow("192.0.2.65", "192.0.2.1", port=22)
    assert oracle.judge(packet(management, iif="wan0", oif="", hook="input")).verdict == "accept"
    assert (
        oracle.judge(
            packet(flow("192.0.2.65", "192.0.2.1", port=23), iif="wan0", oif="", hook="input")
        ).verdict
        == "drop"
    )
    question = flow("192.0.2.1", "192.0.2.53", protocol=17, port=53)
    asked = packet(question, iif="", hook="output", uid=990)
    assert oracle.judge(asked).verdict == "accept"
    assert oracle.judge(replace(asked, uid=1000)).verdict == "reject"
    assert oracle.judge(packet(question, hook="forward")).verdict == "drop"


def test_a_packet_without_a_user_passes_by_the_label_of_our_look_up(policy):
    """The kernel's own for a socket that has gone."""
    oracle = cut(policy, level="isolate")
    question = flow("192.0.2.1", "192.0.2.53", port=53)
    gone = packet(question, iif="", hook="output")
    assert oracle.judge(gone).verdict == "reject"
    ours = replace(gone, connection=replace(question, ours=True))
    assert oracle.judge(ours).verdict == "accept"
    assert oracle.judge(replace(ours, uid=1000)).verdict == "reject", "the ports, and not the user"
    elsewhere = flow("192.0.2.1", "203.0.113.1", port=53)
    assert oracle.judge(replace(ours, connection=replace(elsewhere, ours=True))).verdict == "reject"


def test_while_all_is_open_our_look_ups_are_labelled_and_all_passes(policy):
    oracle = cut(policy, level="open")
    question = packet(flow("192.0.2.1", "192.0.2.53", port=53), iif="", hook="output")
    assert oracle.targets["output"] == "k1_open.output"
    for uid in (990, 1000, None):
        assert oracle.judge(replace(question, uid=uid)).verdict == "accept"


@pytest.mark.parametrize("hook", ["input", "output"])
@pytest.mark.parametrize(
    ("source", "to", "limit", "kept"),
    [
        ("192.0.2.1", "224.0.0.5", 1, True),
        ("192.0.2.9", "192.0.2.1", 1, True),
        ("192.0.2.1", "224.0.0.5", 2, False),
        ("192.0.2.1", "203.0.113.1", 64, False),
        ("fe80::1", "ff02::5", 1, True),
        ("fe80::1", "ff02::6", 64, True),
        ("fe80::1", "fe80::2", 64, True),
        ("fe80::1", "ff02::7", 1, False),
        ("fe80::1", "2001:db8:ff::1", 1, False),
        ("2001:db8:1::1", "fe80::2", 1, False),
    ],
)
def test_ospf_speaks_on_the_link_alone(hook, source, to, limit, kept):
    """Without a connection, too."""
    policy = Policy(replace(w.SITE, lifeline=Lifeline((), (), (Preset.OSPF,))), ())
    for uid, connection in ((0, None), (1000, flow(source, to, 89, 0))):
        iif, oif = ("wan0", "") if hook == "input" else ("", "wan0")
        said = packet(flow(source, to, 89, 0), iif, oif, hook, hop_limit=limit, uid=uid)
        said = replace(said, connection=connection)
        assert (cut(policy, level="isolate").judge(said).verdict == "accept") is kept
        assert cut(Policy(w.SITE, ()), level="isolate").judge(said).verdict != "accept"
        other = replace(said, protocol=88)
        assert cut(policy, level="isolate").judge(other).verdict != "accept"
