"""What a reading of the machine says of ways past the gate, and what it does not."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from ecluse.bypass import find_bypasses, judge_machine
from ecluse.host_reading import Device, Filter, HostReading, Offload, Statement
from ecluse.policy import FastPath, Policy, Zone
from tests.unit.ruleset.policies import SITE


def policy(*interfaces: str) -> Policy:
    subnet = ip_network("10.10.0.0/16")
    zone = Zone("care", "Care", interfaces or ("care0",), (subnet,))
    return Policy(replace(SITE, zones=(zone,)), ())


WAYS = {
    "xdp": HostReading(devices=(Device("wan0", xdp="generic"),)),
    "tc": HostReading(filters=(Filter("care0", "ingress", "u32", "redirects to wan0"),)),
    "bridge": HostReading(
        devices=(
            Device("br0", kind="bridge"),
            Device("care0", master="br0"),
            Device("veth1", master="br0"),
        )
    ),
    "openvswitch": HostReading(
        devices=(Device("ovs0", kind="openvswitch"), Device("p1", master="ovs0"))
    ),
    "macvlan": HostReading(
        devices=(Device("wan0"), Device("m0", "macvlan", parent="wan0", elsewhere=True))
    ),
    "netdev": HostReading(statements=(Statement("netdev theirs", "c", "fwd"),)),
    "offload": HostReading(offloads=(Offload("ip site", "fast", hardware=True),)),
}


@pytest.mark.parametrize("kind", WAYS)
def test_each_way_is_a_bypass_and_names_its_place(kind):
    (one,) = find_bypasses(WAYS[kind], policy())
    assert (one.kind, one.is_bypass) == (kind, True)
    assert one.where
    assert one.where in one.what


def test_what_is_odd_is_said_and_is_no_bypass():
    host = HostReading(
        devices=(Device("wan0", tc_in_hardware=True), Device("wan1")),
        offloads=(Offload("ip site", "fast", hardware=False),),
        statements=(Statement("ip theirs", "c", "notrack"),),
        addresses=(("care0", "192.168.7.1/24"),),
        default_routes=("wan0", "wan1"),
        sysctls={"net.ipv4.ip_forward": "0", "net.netfilter.nf_conntrack_tcp_loose": "0"},
    )
    found = {one.kind: one for one in find_bypasses(host, policy())}
    kinds = {"hardware", "flowtable", "notrack", "subnet", "routes", "forwarding", "loose"}
    assert found.keys() == kinds
    assert not any(one.is_bypass for one in found.values())
    assert found["forwarding"].what.startswith("IPv4 forwarding is off")


def test_shared_interfaces_and_bridges_of_the_inside_are_nothing_to_say():
    devices = (
        Device("lo"),
        Device("care0"),
        Device("core0", kind="bridge"),
        Device("eth1", master="core0"),
        Device("tap0", kind="macvtap", parent="care0"),
    )
    assert find_bypasses(HostReading(devices=devices), policy()) == ()


def test_a_bridge_whose_frames_iptables_sees_is_none():
    seen = {f"net.bridge.bridge-nf-call-{name}": "1" for name in ("iptables", "ip6tables")}
    assert find_bypasses(replace(WAYS["bridge"], sysctls=seen), policy()) == ()
    half = {**seen, "net.bridge.bridge-nf-call-ip6tables": "0"}
    assert find_bypasses(replace(WAYS["bridge"], sysctls=half), policy())


def test_an_address_of_a_family_that_the_site_has_not_counts_where_it_is_forwarded():
    host = HostReading(addresses=(("care0", "2001:db8::1/64"), ("care0", "fe80::1/64")))
    off = {"net.ipv6.conf.all.forwarding": "0"}
    assert find_bypasses(replace(host, sysctls=off), policy()) == ()
    (one,) = find_bypasses(host, policy())
    assert one.what.startswith("2001:db8::1/64 on care0 is in none of the subnets")


def test_the_whole_judgement_has_the_zones_links_too_the_bypasses_first():
    host = replace(
        WAYS["xdp"],
        devices=(*WAYS["xdp"].devices, Device("vlan9"), Device("docker0")),
        default_routes=("vlan9",),
    )
    found = judge_machine(host, policy("care0", "vlan*"))
    assert [one.is_bypass for one in found] == sorted(
        (one.is_bypass for one in found), reverse=True
    )
    bypasses = [one for one in found if one.is_bypass]
    assert {one.kind for one in bypasses} == {"xdp", "zone"}
    assert any("a default route leaves by vlan9" in one.what for one in bypasses)
    said = [one.what for one in found if not one.is_bypass]
    assert any("no interface is called care0" in what for what in said)
    assert any("will be closed as soon as any zone is: docker0" in what for what in said)


def test_our_own_flowtable_is_no_remark_unless_a_card_forwards_by_itself():
    ours = Offload("inet ecluse_flows", "kept", hardware=False)
    chains = policy()
    wanted = replace(chains, site=replace(chains.site, fast_path=FastPath.FLOWTABLE))

    def kinds(one, at):
        return [each.kind for each in find_bypasses(HostReading(offloads=(one,)), at)]

    assert not kinds(ours, wanted)
    # Nobody of ours made it: somebody took the name.
    assert kinds(ours, chains) == ["flowtable"]
    assert kinds(replace(ours, hardware=True), wanted) == ["offload"]


def test_an_ipvlan_whose_packets_the_gate_sees_is_none():
    def at(mode):
        shares = Device("c0", "ipvlan", parent="wan0", elsewhere=True, mode=mode)
        return find_bypasses(HostReading(devices=(Device("wan0"), shares)), policy())

    assert at("")
    assert not at("l3s")
