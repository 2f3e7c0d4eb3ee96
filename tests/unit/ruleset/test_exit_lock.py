"""The second lock is never narrower than the gate, and stands only while no zone is open."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.policy import (
    Destination,
    Direction,
    DnsMode,
    DnsProxySettings,
    Policy,
    Preset,
    SecondLock,
    Traffic,
)
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.exit_judge import judge
from ecluse.ruleset.exit_lock import exit_lock, is_engaged, union
from ecluse.ruleset.exit_values import ExitDevice
from ecluse.ruleset.simulator import Packet, Simulator
from tests.effort import examples
from tests.unit.ruleset import policies as w
from tests.unit.ruleset.exit_frames import ours

WAN = ExitDevice("wan0", (0x020000000001,))
CLOSED = st.fixed_dictionaries(
    {zone: st.sampled_from(["reduced", "cut", "isolate"]) for zone in w.ZONES}
)


def with_lock(policy, wanted=SecondLock.CUT):
    return replace(policy, site=replace(policy.site, second_lock=wanted))


@settings(max_examples=examples(500))
@given(w.policies(), w.addresses, CLOSED, st.sampled_from(w.ZONES), st.data())
def test_what_the_gate_keeps_outward_the_lock_lets_out(policy, addresses, levels, zone, data):
    policy = with_lock(policy)
    connection, opened_here = data.draw(w.connections(zone))
    lock = exit_lock(policy, levels, addresses, (), (WAN,))
    gate = Simulator(
        compile_program(policy, addresses, 1), switch.switch_targets(policy, 1, levels)
    )
    way = connection.original if opened_here else connection.reply
    hook = "output" if zone == "gateway" else "forward"
    iif = "" if hook == "output" else {"care": "care0"}.get(zone, "core0")
    icmp = 8 if connection.protocol == 1 else 128 if connection.protocol == 58 else None
    packet = Packet(
        hook, iif, "wan0", way.source, way.destination, connection.protocol, connection,
        "original" if opened_here else "reply", way.source_port, way.destination_port,
        icmp_type=icmp, uid=0,
    )  # fmt: skip
    error = data.draw(st.booleans())
    if error:
        icmp = 3 if way.source.version == 4 else 1
        packet = replace(packet, protocol=1 if icmp == 3 else 58, icmp_type=icmp)
    if gate.judge(packet).verdict == "accept":
        assert judge(lock, WAN, ours(packet)) in {"kept4", "kept6"}


@pytest.mark.parametrize(
    ("destination", "hops", "length", "protocol", "kind", "ports"),
    [
        ("255.255.255.255", 64, 32, 17, None, (68, 67)),
        ("ff02::1:2", 64, 32, 17, None, (546, 547)),
        ("fe80::1", 64, 32, 17, None, (546, 547)),
        ("2001:db8:ff::1", 255, 32, 58, 135, (0, 0)),
        ("2001:db8:ff::1", 255, 40, 58, 136, (0, 0)),
        ("ff02::2", 255, 16, 58, 133, (0, 0)),
        ("ff02::16", 1, 36, 58, 143, (0, 0)),
        ("224.0.0.18", 255, 28, 112, None, (0, 0)),
        ("ff02::12", 255, 28, 112, None, (0, 0)),
        ("192.0.2.9", 1, 28, 89, None, (0, 0)),
        ("ff02::5", 1, 28, 89, None, (0, 0)),
    ],
)
def test_the_lifeline_passes_at_isolate(destination, hops, length, protocol, kind, ports):
    line = replace(w.LIFELINE, presets=tuple(Preset))
    policy = Policy(replace(w.SITE, lifeline=line), ())
    levels = dict.fromkeys(w.ZONES, "isolate")
    to = ip_address(destination)
    source = ip_address("192.0.2.1" if to.version == 4 else "fe80::9")
    packet = Packet(
        "output", "", "wan0", source, to, protocol, None, "original", *ports,
        icmp_type=kind, hop_limit=hops, length=length,
    )  # fmt: skip
    gate = Simulator(compile_program(policy, {}, 1), switch.switch_targets(policy, 1, levels))
    assert gate.judge(packet).verdict == "accept"
    lock = exit_lock(policy, levels, {}, (), (WAN,))
    assert judge(lock, WAN, ours(packet)) == "link"
    # A DHCPv4 client asks by a packet socket, which the gate does not see: its lease lives on.
    without = "link" if ports == (68, 67) else "lost"
    assert judge(replace(lock, presets=frozenset()), WAN, ours(packet)) == without


@pytest.mark.parametrize(
    ("wanted", "levels", "stands"),
    [
        ("isolate", ["isolate"] * 4, True),
        ("isolate", ["isolate"] * 3 + ["cut"], False),
        ("isolate", ["isolate"] * 3 + ["gone"], True),
        ("cut", ["isolate", "cut", "reduced", "cut"], True),
        ("cut", ["cut"] * 3 + ["open"], False),
        ("off", ["isolate"] * 4, False),
    ],
)
def test_when_it_stands(wanted, levels, stands):
    policy = with_lock(Policy(w.SITE, ()), SecondLock(wanted))
    here = dict(zip(w.ZONES, levels, strict=True))
    assert is_engaged(policy, here) is stands
    assert (exit_lock(policy, here, {}, (), ()) is not None) is stands


def test_only_what_a_live_level_keeps_is_let_out_and_a_union_lets_out_both():
    policy = with_lock(Policy(replace(w.SITE, dns=DnsProxySettings(DnsMode.CUT)), ()))
    levels = dict.fromkeys(w.ZONES, "cut")
    narrow = exit_lock(policy, levels, {}, [ip_address("203.0.113.9")], (WAN,))
    wide = exit_lock(policy, levels, {}, [ip_address("203.0.113.10")], (WAN, WAN))
    both = union(narrow, wide)
    assert both.devices == (WAN, WAN)
    assert both.ends4.learned == narrow.ends4.learned | wide.ends4.learned
    assert both.ends4.ranges == narrow.ends4.ranges
    assert both.learns
    isolated = dict.fromkeys(w.ZONES, "isolate")
    closed = exit_lock(policy, isolated, {}, [ip_address("203.0.113.9")], (WAN,))
    assert not closed.learns
    assert not closed.ends4.learned


def test_partners_from_anywhere_are_answered_by_the_port_that_they_addressed():
    anywhere = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    inbound = Destination(
        Direction.INBOUND, (), anywhere, (Traffic(6, 443, 443), Traffic(47), Traffic(1))
    )
    service = w.Service("vpn", "", "", "", w.Criticality.VITAL, ("care",), (), (inbound,))
    policy = with_lock(Policy(w.SITE, (service,)))
    lock = exit_lock(policy, dict.fromkeys(w.ZONES, "cut"), {}, (), (WAN,))
    assert lock.ends4.answers == ((1, 0, 65535), (6, 443, 443), (47, 0, 65535))
    assert (58, 0, 65535) in lock.ends6.answers
    outbound = replace(inbound, direction=Direction.OUTBOUND)
    policy = with_lock(Policy(w.SITE, (replace(service, destinations=(outbound,)),)))
    lock = exit_lock(policy, dict.fromkeys(w.ZONES, "cut"), {}, (), (WAN,))
    assert not lock.ends4.answers
    assert (0, 2**32 - 1) in lock.ends4.ranges


def test_addresses_of_names_resolvers_and_management_are_ends():
    named = Destination(Direction.OUTBOUND, ("a.example",), (), (Traffic(6, 443, 443),))
    service = w.Service("a", "", "", "", w.Criticality.VITAL, ("care",), (), (named,))
    policy = with_lock(Policy(w.SITE, (service,)))
    known = {"a.example": (ip_address("203.0.113.9"), ip_address("2001:db8:ff::1"))}
    lock = exit_lock(policy, dict.fromkeys(w.ZONES, "cut"), known, (), (WAN,))
    resolver = int(ip_address("192.0.2.53"))
    assert lock.ends4.singles == {int(known["a.example"][0]), resolver}
    assert lock.ends6.singles == {int(known["a.example"][1])}
    assert lock.ends4.ranges == ((int(ip_address("192.0.2.64")), int(ip_address("192.0.2.79"))),)
    isolated = exit_lock(policy, dict.fromkeys(w.ZONES, "isolate"), known, (), (WAN,))
    assert isolated.ends4.singles == {resolver}
