"""Who may write which source address."""

from dataclasses import replace

from tests.unit.ruleset.packets import cut, flow, packet


def test_what_was_opened_in_anothers_name_is_not_kept(policy):
    """Neither by who poses as a partner, nor by who poses as a machine of the inside; nor is it
    management.
    """
    out, back = flow("10.10.0.5", "203.0.113.1"), flow("203.0.113.9", "10.10.0.5")
    answer = {
        "direction": "reply",
        "source": back.reply.source,
        "destination": back.original.source,
    }
    for one, more in ((out, {}), (back, answer)):
        assert cut(policy).judge(packet(one, **more)).verdict == "accept"
        assert cut(policy).judge(packet(replace(one, spoofed=True), **more)).verdict == "reject"
    management = replace(flow("192.0.2.65", "192.0.2.1", port=22), spoofed=True)
    assert cut(policy).judge(packet(management, iif="wan0", oif="", hook="input")).verdict == "drop"
    assert (
        cut(policy).judge(packet(management, hook="output", direction="reply")).verdict == "reject"
    )


def test_a_source_that_is_routed_to_the_inside_lives_there(policy):
    stranger = packet(flow("198.51.100.7", "10.20.0.5"), oif="core0")
    oracle, opened = cut(policy), cut(policy, level="open")
    forgotten = replace(
        stranger, source=flow("10.99.0.5", "10.20.0.5").original.source, route="wlan7"
    )
    posing = replace(packet(flow("10.10.0.5", "203.0.113.9"), iif="wan0"), route="care0")
    assert [oracle.is_tracked(one) for one in (stranger, forgotten, posing)] == [False, True, True]
    assert [opened.is_tracked(one) for one in (stranger, forgotten, posing)] == [True, True, True]
    told = replace(stranger, protocol=1, icmp_type=3)
    assert oracle.is_tracked(told), "an error about a kept flow, by a router of no route"
    assert not oracle.is_tracked(replace(told, icmp_type=8))
    for either in (oracle, opened):
        assert [either.is_spoofed(one) for one in (stranger, forgotten, posing)] == [
            True,
            False,
            True,
        ]
        assert not either.is_spoofed(replace(posing, route="tun0")), (
            "a partner in a range as wide as the zone's"
        )
