"""The compiled program judges as the allowlist means, for every zone, level and direction."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.flow_judge import FlowJudge
from ecluse.policy import Policy, level_named
from ecluse.ruleset import switch, table_names
from ecluse.ruleset.compile import compile_program, with_addresses, zones_by_service
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple
from ecluse.ruleset.delta import delta
from ecluse.ruleset.program import NamedSet, Program, element_text, render
from ecluse.ruleset.simulator import Packet, Simulator
from ecluse.ruleset.switch import BootText
from tests.effort import examples
from tests.golden.cases import HERE, compiled
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
    oracle = Simulator(program, switch.targets(policy, 1, levels))
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


def cut(policy, addresses=None, level="cut"):
    program = compile_program(policy, addresses or {}, 1, uids=(990,))
    return Simulator(program, switch.targets(policy, 1, dict.fromkeys(w.ZONES, level)))


def flow(source, destination, protocol=6, port=443):
    from ipaddress import ip_address as ip

    return ConntrackEntry(
        protocol,
        Tuple(ip(source), ip(destination), 40000, port),
        Tuple(ip(destination), ip(source), port, 40000),
    )


def packet(connection, iif="care0", oif="wan0", hook="forward", **more):
    one = connection.original
    fields = {
        "source": one.source,
        "destination": one.destination,
        "protocol": connection.protocol,
        "connection": connection,
    }
    return Packet(hook, iif, oif, **{**fields, **more})


@pytest.fixture
def policy():
    from ipaddress import ip_network as net

    from ecluse.policy import Criticality, Destination, Direction, Service, Traffic

    lab = Destination(Direction.OUTBOUND, (), (net("203.0.113.1/32"),), (Traffic(6, 443, 443),))
    partner = Destination(Direction.INBOUND, (), (net("203.0.113.9/32"),), (Traffic(6, 443, 443),))
    one = Service("lab", "", "", "", Criticality.VITAL, ("care",), (), (lab,))
    two = Service("partner", "", "", "", Criticality.VITAL, ("care", "gateway"), (), (partner,))
    return Policy(w.SITE, (one, two))


def test_a_spoofed_source_is_not_kept(policy):
    assert cut(policy).judge(packet(flow("10.10.0.5", "203.0.113.1"))).verdict == "accept"
    spoofed = cut(policy).judge(packet(flow("10.99.0.5", "203.0.113.1")))
    assert spoofed.verdict == "drop", "no answer to an address that may be outside"
    assert "refused_out" in spoofed.counters


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
        program, switch.targets(site, program.slot, dict.fromkeys(site.zone_names(), "cut"))
    )
    known = packet(flow("198.51.100.7", "192.0.2.1", port=53), iif="wan0", oif="", hook="input")
    stray = replace(known, connection=None, invalid=True, destination_port=site.site.dns.port)
    assert oracle.judge(stray).verdict == "drop"


def test_an_unknown_interface_is_closed_unless_everything_is_open(policy):
    stick = packet(flow("10.10.0.5", "203.0.113.1"), iif="wwan0")
    assert cut(policy).judge(stick).verdict == "drop"
    program = compile_program(policy, {}, 1)
    nearly = {**dict.fromkeys(w.ZONES, "open"), "guests": "cut"}
    assert Simulator(program, switch.targets(policy, 1, nearly)).judge(stick).verdict == "drop"
    every = dict.fromkeys(w.ZONES, "open")
    assert Simulator(program, switch.targets(policy, 1, every)).judge(stick).verdict == "accept"


def test_inside_to_inside_is_never_touched(policy):
    assert (
        cut(policy, level="isolate")
        .judge(packet(flow("10.10.0.5", "10.20.0.5"), oif="core0"))
        .verdict
        == "accept"
    )


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


def test_shared_interface_is_told_apart_by_address(policy):
    program = compile_program(policy, {}, 1)
    levels = {**dict.fromkeys(w.ZONES, "open"), "guests": "isolate"}
    oracle = Simulator(program, switch.targets(policy, 1, levels))
    assert oracle.judge(packet(flow("10.20.0.5", "198.51.100.3"), iif="core0")).verdict == "accept"
    assert oracle.judge(packet(flow("10.30.0.5", "198.51.100.3"), iif="core0")).verdict == "reject"
    assert oracle.judge(packet(flow("10.30.0.5", "198.51.100.3"), iif="wlan7")).verdict == "reject"
    assert oracle.judge(packet(flow("10.77.0.5", "198.51.100.3"), iif="core0")).verdict == "drop"


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


@settings(max_examples=examples(60))
@given(w.policies(), w.addresses)
def test_what_a_load_leaves_out_comes_in_pieces(policy, addresses):
    program = compile_program(policy, addresses, 2)
    pieces = list(switch.pieces(program))
    whole, loaded = render(program), switch.load_text(program)
    filled: dict[str, dict] = {}
    for piece in pieces:
        filled[piece.name] = filled.get(piece.name, {}) | piece.elements
    for named in program.sets:
        assert filled.pop(named.name, {}) == (named.elements if named.is_bulk else {})
        for key in named.elements:
            written = element_text(named, key)
            assert written in whole
            assert (written in loaded) == (not named.is_bulk)
    assert not filled


def test_a_zone_may_be_called_like_a_slot(policy):
    site = policy.site
    zones = tuple(replace(z, name="k2-labor") if z.name == "care" else z for z in site.zones)
    renamed = Policy(replace(site, zones=zones), ())
    one, two = compile_program(renamed, {}, 1), compile_program(renamed, {}, 2)
    assert BootText(one).digest(one) == BootText(two).digest(two)
    assert "k1_gate.k2_labor" in BootText(two).text(two)


def test_only_a_hash_is_cut_into_pieces():
    def named(interval):
        elements = {((n, n), (443, 443), (6, 6)): "svc_a" for n in range(3 * switch.PIECE + 1)}
        types = ("ipv4_addr", "inet_service", "inet_proto")
        return NamedSet("k1_exact4", types, interval, "counter", elements)

    for interval, count in ((False, 4), (True, 1)):
        pieces = list(switch.pieces(Program(1, ("svc_a",), (named(interval),), ())))
        assert len(pieces) == count
        assert sum(len(piece.elements) for piece in pieces) == 3 * switch.PIECE + 1


@settings(max_examples=examples(60))
@given(w.policies(), w.levels, st.integers(1, 99))
def test_levels_are_read_back_from_targets(policy, levels, slot):
    targets = switch.targets(policy, slot, levels)
    assert switch.read_levels(policy, targets) == levels
    broken = dict(targets)
    broken[table_names.gate(slot, "care")] = None
    assert switch.read_levels(policy, broken) is None
    assert switch.read_levels(policy, {**targets, "forward": f"k{slot + 1}_forward"}) is None


@given(w.policies())
def test_zones_of_a_service_include_those_of_its_hosts(policy):
    for service in policy.services:
        assert set(service.zones) <= set(zones_by_service(policy)[service.name])
        if any(str(h).startswith("10.20.") for h in service.hosts):
            assert "admin" in zones_by_service(policy)[service.name]


def test_removal_names_only_old_slots_and_unused_counters():
    objects = {
        "chain": ("forward", "k1_forward", "k2_forward"),
        "map": ("k1_from", "k2_from"),
        "set": ("k1_inside", "refused4"),
        "counter": ("refused_out", "svc_a", "svc_b"),
    }
    text = switch.removal_text(objects, [2], ["svc_a"])
    assert "k2_" not in text
    assert "refused" not in text
    assert "chain inet ecluse forward" not in text
    assert "delete chain inet ecluse k1_forward" in text
    assert "delete counter inet ecluse svc_b" in text
