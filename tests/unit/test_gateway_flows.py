"""What the gateway itself would lose: grouped, bounded, and nothing that is kept or inside."""

from dataclasses import replace
from ipaddress import ip_address

from ecluse.flow_judge import ConntrackEntry, FlowJudge, Tuple
from ecluse.gateway_flows import MOST_ROWS, describe, ended_flows, ended_warnings
from ecluse.policy import GATEWAY, Preset, Traffic
from ecluse.results import GatewayFlow
from ecluse.ruleset.compile import compile_program
from tests.unit.controller.machine import simple
from tests.unit.ruleset.policies import ZONES
from tests.unit.test_carriers import keeping

OURS, NTP = "198.51.100.2", "203.0.113.5"


def judge(level="cut", policy=None):
    policy = policy or simple()
    levels = dict.fromkeys(ZONES, level)
    return FlowJudge(policy, compile_program(policy, {}, 1), levels, frozenset({OURS}))


def flow(source, destination, protocol=17, port=123, packets=3):
    ports = (40000, port) if protocol in {6, 17} else (0, 0)
    there, back = ip_address(source), ip_address(destination)
    return ConntrackEntry(
        protocol, Tuple(there, back, *ports), Tuple(back, there, *ports[::-1]), packets=packets
    )


def with_presets(*presets):
    policy = simple()
    lifeline = replace(policy.site.lifeline, presets=presets)
    return replace(policy, site=replace(policy.site, lifeline=lifeline))


def test_connections_with_one_place_are_one_row_most_packets_first():
    seen = [flow(OURS, NTP), flow(OURS, NTP, packets=4), flow(NTP, OURS, port=161, packets=90)]
    snmp, ntp = ended_flows(judge(), seen)
    assert ntp == GatewayFlow(NTP, "udp", 123, "out", 2, 7)
    assert snmp == GatewayFlow(NTP, "udp", 161, "in", 1, 90)
    assert describe(ntp) == "udp/123 to 203.0.113.5 (2 connections, 7 packets)"
    assert describe(snmp) == "udp/161 from 203.0.113.5 (1 connection, 90 packets)"
    (sit,) = ended_flows(judge(), [flow(OURS, NTP, protocol=41, packets=1)])
    assert describe(sit) == "41 to 203.0.113.5 (1 connection, 1 packet)"


def test_what_is_kept_passes_or_is_no_ones_of_the_gateway_is_not_told():
    kept = keeping(Traffic(17, 123, 123), f"{NTP}/32", zone=GATEWAY)
    assert ended_flows(judge(), [flow(OURS, NTP)])
    assert not ended_flows(judge(policy=kept), [flow(OURS, NTP)])
    assert not ended_flows(judge("open"), [flow(OURS, NTP)])
    assert not ended_flows(judge(), [flow("10.10.0.5", NTP)]), "a zone's"
    assert not ended_flows(judge(), [flow(OURS, "10.10.0.5")]), "to the inside"
    assert not ended_flows(judge(), [flow(OURS, NTP)], judge("isolate")), "refused already"


def test_a_group_counts_where_an_outside_address_sends_to_it():
    outside, inside = flow(OURS, "224.0.0.18", 112), flow("10.10.0.1", "224.0.0.18", 112)
    reports = flow(OURS, "224.0.0.22", 2)
    own = {ip_address(OURS)}
    group = {ip_address("224.0.0.18")}
    without, preset = (with_presets(*presets) for presets in ((), (Preset.VRRP,)))
    one = judge(policy=without)
    assert not ended_flows(one, [outside]), "it may be for the inside"
    assert one.groups_reached([outside, reports, flow(OURS, NTP)], own) == group
    assert not one.groups_reached([inside], own)
    one.mark_outside(group)
    (row,) = ended_flows(one, [outside])
    assert describe(row) == "vrrp to 224.0.0.18 (1 connection, 3 packets)"
    kept = judge(policy=preset)
    kept.mark_outside(group)
    assert not ended_flows(kept, [outside])


def test_a_private_place_counts_once_routes_say_that_it_is_outside():
    partner = flow(OURS, "192.168.7.9", port=514)
    one = judge()
    multicast = flow(OURS, "224.0.0.5", protocol=89)
    inside = flow(OURS, "10.10.0.5")
    assert one.near_peers([partner, flow(OURS, NTP), multicast, inside]) == {
        ip_address("192.168.7.9")
    }
    assert not ended_flows(one, [partner]), "it may be a neighbour inside"
    one.mark_outside([ip_address("192.168.7.9")])
    assert [row.port for row in ended_flows(one, [partner])] == [514]


def test_many_rows_are_counted():
    rows = ended_flows(judge(), [flow(OURS, NTP, port=port) for port in range(1, 31)])
    told = ended_warnings(rows, "cut")
    assert len(told) == MOST_ROWS + 1
    assert told[0].startswith("the gateway itself uses udp/")
    assert "which level 'cut' ends: list it for zone gateway" in told[0]
    assert told[-1] == "the gateway itself uses 10 more that 'cut' ends"
