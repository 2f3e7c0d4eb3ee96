"""The chains around the look-ups: zones, hooks, refusals."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.simulator import Simulator
from tests.golden.cases import HERE, compiled
from tests.unit.ruleset import policies as w
from tests.unit.ruleset.packets import cut, flow, packet


def test_a_spoofed_source_is_not_kept(policy):
    assert cut(policy).judge(packet(flow("10.10.0.5", "203.0.113.1"))).verdict == "accept"
    spoofed = cut(policy).judge(packet(flow("10.99.0.5", "203.0.113.1")))
    assert spoofed.verdict == "drop", "no answer to an address that may be outside"
    assert "refused_out" in spoofed.counters


def test_another_zone_does_not_get_a_service_that_is_not_for_it(policy):
    assert (
        cut(policy).judge(packet(flow("10.20.0.5", "203.0.113.1"), iif="core0")).verdict == "reject"
    )


def test_an_inside_host_cannot_pose_as_an_inbound_partner(policy):
    spoofed = flow("203.0.113.9", "198.51.100.3")
    assert cut(policy).judge(packet(spoofed)).verdict == "drop"
    answer = flow("203.0.113.9", "192.0.2.1")
    from_gateway = packet(spoofed, iif="", hook="output", direction="original")
    assert cut(policy).judge(from_gateway).verdict == "reject"
    assert cut(policy).judge(packet(answer, iif="wan0", oif="", hook="input")).verdict == "accept"


def test_untracked_and_invalid_packets_are_refused_and_invalid_ones_get_no_reset(policy):
    kept = flow("10.10.0.5", "203.0.113.1")
    untracked = replace(packet(kept), connection=None)
    assert cut(policy).judge(untracked).verdict == "reject"
    assert cut(policy).judge(replace(untracked, invalid=True)).verdict == "drop"


@pytest.mark.parametrize("case", ["10-dns-gate", "11-dns-always"])
def test_the_engines_port_takes_nothing_from_outside_that_conntrack_does_not_know(case):
    site, program = compiled(HERE / case)
    oracle = Simulator(
        program, switch.switch_targets(site, program.slot, dict.fromkeys(site.zone_names(), "cut"))
    )
    known = packet(flow("198.51.100.7", "192.0.2.1", port=53), iif="wan0", oif="", hook="input")
    stray = replace(known, connection=None, invalid=True, destination_port=site.site.dns.port)
    assert oracle.judge(stray).verdict == "drop"


@pytest.mark.parametrize("invalid", [False, True])
def test_no_machine_inside_asks_the_engine_directly_in_an_outside_name(invalid):
    """Such packets are not tracked, so nothing redirected them."""
    site, program = compiled(HERE / "10-dns-gate")
    oracle = Simulator(
        program, switch.switch_targets(site, program.slot, dict.fromkeys(site.zone_names(), "cut"))
    )
    port = site.site.dns.port
    redirected = flow("10.10.0.5", "198.51.100.7", port=53, protocol=17)
    question = replace(packet(redirected, iif="core0", oif="", hook="input"), destination_port=port)
    assert oracle.judge(question).verdict == "accept", "positive control"
    made_up = replace(question, source=ip_address("198.51.100.8"), connection=None, invalid=invalid)
    assert oracle.judge(made_up).verdict == "drop"


def test_an_unknown_interface_is_closed_unless_everything_is_open(policy):
    stick = packet(flow("10.10.0.5", "203.0.113.1"), iif="wwan0")
    assert cut(policy).judge(stick).verdict == "drop"
    program = compile_program(policy, {}, 1)
    nearly = {**dict.fromkeys(w.ZONES, "open"), "guests": "cut"}
    assert (
        Simulator(program, switch.switch_targets(policy, 1, nearly)).judge(stick).verdict == "drop"
    )
    every = dict.fromkeys(w.ZONES, "open")
    assert (
        Simulator(program, switch.switch_targets(policy, 1, every)).judge(stick).verdict == "accept"
    )


def test_inside_to_inside_is_never_touched(policy):
    assert (
        cut(policy, level="isolate")
        .judge(packet(flow("10.10.0.5", "10.20.0.5"), oif="core0"))
        .verdict
        == "accept"
    )


def test_shared_interface_is_told_apart_by_address(policy):
    program = compile_program(policy, {}, 1)
    levels = {**dict.fromkeys(w.ZONES, "open"), "guests": "isolate"}
    oracle = Simulator(program, switch.switch_targets(policy, 1, levels))
    assert oracle.judge(packet(flow("10.20.0.5", "198.51.100.3"), iif="core0")).verdict == "accept"
    assert oracle.judge(packet(flow("10.30.0.5", "198.51.100.3"), iif="core0")).verdict == "reject"
    assert oracle.judge(packet(flow("10.30.0.5", "198.51.100.3"), iif="wlan7")).verdict == "reject"
    assert oracle.judge(packet(flow("10.77.0.5", "198.51.100.3"), iif="core0")).verdict == "drop"
