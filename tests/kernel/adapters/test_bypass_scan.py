"""Every way past the gate that this kernel can make is found on a real interface."""

import errno
import json
import struct
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace

import pytest

from ecluse.bypass import find_bypasses
from ecluse.cli import offline_checks
from ecluse.cli.terminal import Screen
from ecluse.errors import KernelError
from ecluse.host_reading import Device, Filter, HostReading, Offload
from ecluse.kernel import bypass_scan
from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import (
    NLA_F_NESTED,
    DumpInterruptedError,
    NetlinkSocket,
    attribute,
    text_attribute,
)
from ecluse.kernel.rtnetlink_numbers import IFINFOMSG, RTM_GETLINK, RTM_GETTFILTER
from ecluse.kernel.rtnl_links import RtnlLinks
from ecluse.policy import Policy, Zone
from tests.kernel.adapters.conftest import do, nft
from tests.lab import netns, xdp
from tests.lab.other_user import other_user
from tests.unit.ruleset.policies import SITE

pytestmark = pytest.mark.kernel

REDIRECT = "protocol all u32 match u32 0 0 action mirred egress redirect dev wan0"


def policy() -> Policy:
    zone = Zone("care", "Care", ("care0",), (ip_network("10.10.0.0/16"),))
    return Policy(replace(SITE, zones=(zone,)), ())


async def read_machine():
    """Read as the daemon does: the scan adds to what the port of the links read."""
    links = RtnlLinks()
    try:
        return await bypass_scan.KernelBypassScan().scan(await links.read_host())
    finally:
        links.close()


async def found():
    return {one.kind: one for one in find_bypasses(await read_machine(), policy())}


async def test_a_plain_gateway_has_no_bypass(gateway):
    do("ip addr add 10.10.0.1/16 dev care0", "ip link set far0 netns 1", "ip link set in0 netns 1")
    assert not [one for one in (await found()).values() if one.is_bypass]


async def test_xdp(gateway):
    xdp.attach("wan0")
    assert "XDP program is attached to wan0 (generic)" in (await found())["xdp"].what
    do("ip link set wan0 xdpgeneric off")
    assert "xdp" not in await found()


@pytest.mark.parametrize(
    ("queue", "side"), [("clsact", "egress"), ("clsact", "ingress"), ("ingress", "ingress")]
)
async def test_tc_redirect(gateway, queue, side):
    do(
        f"tc qdisc add dev care0 {queue}",
        f"tc filter add dev care0 {side} {REDIRECT}",
    )
    assert f"u32, {side} of care0) redirects to wan0" in (await found())["tc"].what
    do(f"tc qdisc del dev care0 {queue}")
    assert "tc" not in await found()


async def test_tc_copies_too_and_a_filter_that_sends_nothing_is_none(gateway):
    do(
        "tc qdisc add dev care0 clsact",
        "tc filter add dev care0 ingress protocol ip u32 match u32 0 0 classid 1:1",
    )
    assert "tc" not in await found()
    do(f"tc filter add dev care0 ingress {REDIRECT.replace('redirect', 'mirror')}")
    assert "copies to wan0" in (await found())["tc"].what


async def test_tc_of_a_classful_queue(gateway):
    do(
        "tc qdisc add dev care0 root handle 1: htb",
        f"tc filter add dev care0 parent 1: {REDIRECT}",
    )
    assert "egress of care0) redirects to wan0" in (await found())["tc"].what


async def test_tcx_that_may_not_be_looked_for_is_said(gateway, monkeypatch, capsys):
    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(bypass_scan.tcx_programs, "count_programs", refused)
    host = await read_machine()
    assert host.unseen == ("BPF programs at tcx hooks (Operation not permitted)",)
    assert len(host.devices) >= 5
    offline_checks._check_host(SimpleNamespace(json=False), Screen(), policy())
    said = " ".join(capsys.readouterr().out.split())
    assert "0 ways past the gate" in said
    assert "not looked for: BPF programs at tcx hooks (Operation not permitted)" in said
    offline_checks._check_host(SimpleNamespace(json=True), Screen(), policy())
    assert json.loads(capsys.readouterr().out)["unseen"] == list(host.unseen)


@pytest.mark.parametrize("what", [RTM_GETTFILTER, RTM_GETLINK])
async def test_what_changed_while_it_was_read_is_read_again(gateway, monkeypatch, what):
    """A mix is not an empty answer: of tc's filters, of interfaces in other namespaces."""
    other = netns.unique()
    do(
        "tc qdisc add dev care0 clsact",
        f"tc filter add dev care0 ingress {REDIRECT}",
        "ip link add mv0 link wan0 type macvlan mode bridge",
        f"ip netns add {other}",
    )
    dump, left = NetlinkSocket.dump, [3]

    def interrupted(self, kind, body):
        elsewhere = len(body) > IFINFOMSG.size or kind == RTM_GETTFILTER
        if kind == what and elsewhere and left[0]:
            left[0] -= 1
            raise DumpInterruptedError
        return dump(self, kind, body)

    monkeypatch.setattr(NetlinkSocket, "dump", interrupted)
    try:
        do(f"ip link set mv0 netns {other}")
        told = await found()
    finally:
        do(f"ip netns del {other}")
    assert not left[0]
    assert "redirects to wan0" in told["tc"].what
    assert "mv0 in another" in told["macvlan"].what


async def test_what_stays_a_mix_is_no_answer(gateway, monkeypatch):
    do("tc qdisc add dev care0 clsact")
    dump = NetlinkSocket.dump

    def interrupted(self, kind, body):
        if kind == RTM_GETTFILTER:
            raise DumpInterruptedError
        return dump(self, kind, body)

    monkeypatch.setattr(NetlinkSocket, "dump", interrupted)
    with pytest.raises(KernelError, match="changed while it was being read"):
        await read_machine()


def test_a_bpf_program_as_an_action():
    """This kernel has none: the bytes are made after the uapi (TCA_MATCHALL_ACT, TCA_ACT_*)."""

    def filter_with(kind, options):
        action = text_attribute(bypass_scan.TCA_KIND, kind) + attribute(
            bypass_scan.TCA_OPTIONS | NLA_F_NESTED, options
        )
        return attribute(2 | NLA_F_NESTED, attribute(1 | NLA_F_NESTED, action))

    parameters = attribute(2, bytes(20)) + attribute(5, struct.pack("=I", 7))
    assert list(bypass_scan.find_actions(filter_with("bpf", parameters))) == [
        (bypass_scan.RUNS_BPF, 0)
    ]
    assert list(bypass_scan.find_actions(filter_with("gact", parameters))) == []
    mirred = attribute(bypass_scan.TCA_MIRRED_PARMS, bytes(20) + struct.pack("=iI", 1, 9))
    assert list(bypass_scan.find_actions(filter_with("mirred", mirred))) == [(1, 9)]
    head = bypass_scan.TCMSG.pack(0, 4, 0, 0, 0) + text_attribute(bypass_scan.TCA_KIND, "matchall")
    body = head + attribute(bypass_scan.TCA_OPTIONS | NLA_F_NESTED, filter_with("bpf", parameters))
    (one,) = bypass_scan._filter({4: "care0"}, 4, "egress", body)
    assert one == Filter("care0", "egress", "matchall")


def test_open_vswitch_is_named_with_its_ports():
    """This kernel has none."""
    devices = (
        Device("ovs-system", kind="openvswitch"),
        Device("care0", master="ovs-system"),
        Device("wan0", master="ovs-system"),
        Device("br-int", kind="openvswitch"),
    )
    datapath, inside = find_bypasses(HostReading(devices=devices), policy())
    assert (datapath.kind, datapath.where, datapath.is_bypass) == (
        "openvswitch",
        "ovs-system",
        True,
    )
    assert "with the ports care0, wan0" in datapath.what
    assert inside.what.startswith("br-int is Open vSwitch's: ")


async def test_bridge_of_inside_and_outside(gateway):
    do("ip link add br0 type bridge", "ip link set care0 master br0")
    switches = ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"]
    do(*(f"sysctl -qw {name}=0" for name in switches))
    assert "bridge" not in await found()
    do("ip link set wan0 master br0")
    assert "joins care0 (inside) with wan0" in (await found())["bridge"].what
    do(*(f"sysctl -qw {name}=1" for name in switches))
    assert "bridge" not in await found(), "its frames pass the IP hooks"


async def test_macvlan_here_and_in_another_namespace(gateway):
    do("ip link add mv0 link wan0 type macvlan mode bridge")
    assert (await found())["macvlan"].what.startswith("mv0 (macvlan) shares wan0")
    other = netns.unique()
    do(f"ip netns add {other}")
    try:
        do(f"ip link set mv0 netns {other}")
        assert (
            "mv0 in another network namespace (macvlan) shares wan0"
            in (await found())["macvlan"].what
        )
    finally:
        do(f"ip netns del {other}")
    assert "macvlan" not in await found()


async def test_macvtap(gateway):
    do("ip link add link wan0 name tap0 type macvtap mode bridge")
    assert "shares wan0" in (await found())["macvtap"].what


async def test_rules_of_other_tables(gateway):
    nft(
        """
        table netdev theirs {
          chain c { type filter hook ingress device "care0" priority 0;
            ip protocol udp fwd to "wan0"
          }
        }
        table ip theirs {
          chain c { type filter hook prerouting priority raw;
            udp dport 9 notrack
          }
        }"""
    )
    told = await found()
    assert "table netdev theirs, chain c: 'fwd'" in told["netdev"].what
    assert told["netdev"].is_bypass
    assert "'notrack'" in told["notrack"].what
    assert not told["notrack"].is_bypass


async def test_routes_addresses_and_switches(gateway):
    do(
        "ip addr add 10.10.0.1/16 dev care0",
        "ip addr add 192.168.7.1/24 dev care0",
        "ip addr add 198.51.100.2/24 dev wan0",
        "ip link add stick0 type veth peer name stick1",
        "ip link set stick0 up",
        "ip route add default via 198.51.100.1",
        "ip route add default dev stick0 metric 9",
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0",
    )
    told = await found()
    assert "by stick0, wan0" in told["routes"].what
    assert told["subnet"].what.startswith("192.168.7.1/24 on care0")
    assert told["forwarding"].what.startswith("IPv4 forwarding is off")
    assert "loose" in told
    assert not any(told[kind].is_bypass for kind in ("routes", "subnet", "forwarding", "loose"))


def test_a_flowtable_as_the_kernel_tells_it():
    """This kernel has none: the bytes are made after the uapi (NFTA_FLOWTABLE_*)."""
    body = text_attribute(nf.NFTA_FLOWTABLE_TABLE, "site") + text_attribute(
        nf.NFTA_FLOWTABLE_NAME, "fast"
    )
    body += attribute(3 | NLA_F_NESTED, b"")
    assert bypass_scan.parse_flowtable(
        "inet", body + attribute(7, struct.pack("!I", 0))
    ) == Offload("inet site", "fast", False)
    hardware = bypass_scan.parse_flowtable("inet", body + attribute(7, struct.pack("!I", 3)))
    assert hardware.hardware


def test_the_scan_needs_no_root(gateway):
    """CAP_NET_ADMIN, as the daemon has it (and the right to read this checkout)."""
    script = (
        "from ecluse.kernel.bypass_scan import read_everything as read; print(len(read().devices))"
    )
    done = subprocess.run(
        [*other_user(65534, more_capabilities="+net_admin"), sys.executable, "-c", script],
        env={"PYTHONPATH": _source()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5


def _source() -> str:
    import ecluse

    return str(ecluse.__path__[0]).removesuffix("/ecluse")
