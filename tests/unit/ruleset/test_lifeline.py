"""What passes at every level."""

from dataclasses import replace

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
