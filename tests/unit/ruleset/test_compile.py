"""The compiled program judges as the allowlist means, for every zone, level and direction."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.flow_judge import FlowJudge
from ecluse.policy import level_named
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program, with_addresses, zones_by_service
from ecluse.ruleset.delta import delta
from ecluse.ruleset.program_text import render
from ecluse.ruleset.simulator import Packet, Simulator
from ecluse.ruleset.switch import BootText
from tests.effort import examples
from tests.unit.ruleset import policies as w

LOCAL = frozenset({"192.0.2.1", "2001:db8:1::1"})


@settings(max_examples=examples(300))
@given(w.policies(), w.addresses, w.levels, st.sampled_from(w.ZONES), st.data())
def test_judged_as_the_allowlist_means(policy, addresses, levels, zone, data):
    connection, ours = data.draw(w.connections(zone))
    program = compile_program(policy, addresses, 3)
    flow = FlowJudge(policy, program, levels, LOCAL, daemon_uid=1).judge(connection)
    level = level_named(policy.site, levels[zone])
    if level.passes_all:
        assert flow.verdict == "open"
        return
    wanted = w.keeps(policy, addresses, level, zone, connection, ours)
    if flow.verdict == "kept":
        assert "svc_" + flow.service in wanted
    else:
        assert flow.verdict == "refused"
        assert not wanted


@settings(max_examples=examples(100))
@given(w.policies(), w.addresses, st.data())
def test_both_directions_of_a_packet_are_judged_alike(policy, addresses, data):
    connection, ours = data.draw(w.connections("care"))
    levels = dict.fromkeys(w.ZONES, "cut")
    program = compile_program(policy, addresses, 1)
    oracle = Simulator(program, switch.switch_targets(policy, 1, levels))
    inner, outer = (
        (connection.original, connection.reply) if ours else (connection.reply, connection.original)
    )
    out = Packet(
        "forward",
        "care0",
        "wan0",
        inner.source,
        inner.destination,
        connection.protocol,
        connection,
        "original" if ours else "reply",
    )
    back = Packet(
        "forward",
        "wan0",
        "care0",
        outer.source,
        outer.destination,
        connection.protocol,
        connection,
        "reply" if ours else "original",
    )
    one, other = oracle.judge(out), oracle.judge(back)
    assert (one.verdict == "accept") == (other.verdict == "accept")
    assert one.service == other.service


@settings(max_examples=examples(60))
@given(w.policies(), w.addresses, w.addresses, w.levels)
def test_compiling_is_deterministic_and_deltas_lead_from_one_to_the_other(
    policy, before, after, levels
):
    one, other = compile_program(policy, before, 2), compile_program(policy, after, 2)
    assert render(one) == render(compile_program(policy, before, 2))
    change = delta(one, other)
    if change is not None:
        assert bool(change) == (render(one) != render(other))
        elements = {named.name: dict(named.elements) for named in one.sets}
        for named in change.gone:
            for key in named.elements:
                del elements[named.name][key]
        for named in change.come:
            assert not set(elements[named.name]) & set(named.elements)
            elements[named.name] |= named.elements
        assert elements == {named.name: named.elements for named in other.sets}


@settings(max_examples=examples(60))
@given(w.policies(), w.addresses, w.addresses)
def test_new_addresses_make_the_program_that_a_whole_compilation_makes(policy, before, after):
    one, other = compile_program(policy, before, 2), compile_program(policy, after, 2)
    quick = with_addresses(one, policy, after)
    assert quick == other
    seal = BootText(one)
    text = BootText(other).text(other)
    assert seal.text(quick) == seal.text(quick) == text
    assert (
        seal.digest(quick)
        == BootText(other).digest(other)
        == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    )


@given(w.policies())
def test_zones_of_a_service_include_those_of_its_hosts(policy):
    for service in policy.services:
        assert set(service.zones) <= set(zones_by_service(policy)[service.name])
        if any(str(h).startswith("10.20.") for h in service.hosts):
            assert "admin" in zones_by_service(policy)[service.name]
