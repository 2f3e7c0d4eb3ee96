"""KernelExits: every way past the gate that this kernel can make is seen on a real interface, and goes when it goes."""

import struct
import subprocess
from ipaddress import ip_network

import pytest

from ecluse.exits import Device, Host, Offload, findings
from ecluse.kernel import exits, features, tables
from ecluse.kernel.netlink import NLA_F_NESTED, attribute, text_attribute
from ecluse.policy import Policy, Site, Zone
from tests.kernel.adapters.conftest import nft, run
from tests.lab import netns, xdp
from tests.unit.ruleset.policies import SITE

pytestmark = pytest.mark.kernel


def do(*lines):
    for line in lines:
        run(*line.split())


@pytest.fixture
def gateway(namespace):
    do(
        "ip link add wan0 type veth peer name far0",
        "ip link add care0 type veth peer name in0",
        "ip link set wan0 up",
        "ip link set care0 up",
    )


def policy() -> Policy:
    zone = Zone("care", "Care", ("care0",), (ip_network("10.10.0.0/16"),))
    return Policy(Site("s", "S", (zone,), SITE.levels, SITE.lifeline, SITE.resolvers), ())


async def found():
    return {one.kind: one for one in findings(await exits.KernelExits().look(), policy())}


async def test_a_plain_gateway_has_no_exit(gateway):
    do("ip addr add 10.10.0.1/16 dev care0", "ip link set far0 netns 1", "ip link set in0 netns 1")
    assert not [one for one in (await found()).values() if one.is_exit]


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
        f"tc filter add dev care0 {side} protocol all u32 match u32 0 0 action mirred egress redirect dev wan0",
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
    do("tc filter add dev care0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev wan0")
    assert "copies to wan0" in (await found())["tc"].what


async def test_tc_of_a_classful_queue(gateway):
    do(
        "tc qdisc add dev care0 root handle 1: htb",
        "tc filter add dev care0 parent 1: protocol all u32 match u32 0 0 action mirred egress redirect dev wan0",
    )
    assert "egress of care0) redirects to wan0" in (await found())["tc"].what


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
        assert "mv0 in another network namespace (macvlan) shares wan0" in (await found())["macvlan"].what
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
    assert told["netdev"].is_exit
    assert "'notrack'" in told["notrack"].what
    assert not told["notrack"].is_exit


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
    assert "forwards nothing" in told["forwarding"].what
    assert "loose" in told
    assert not any(told[kind].is_exit for kind in ("routes", "subnet", "forwarding", "loose"))


def test_a_flowtable_as_the_kernel_tells_it():
    """This kernel has none: the bytes are made after the uapi (NFTA_FLOWTABLE_*)."""
    body = text_attribute(tables.FLOWTABLE_TABLE, "site") + text_attribute(tables.FLOWTABLE_NAME, "fast")
    body += attribute(3 | NLA_F_NESTED, b"")
    assert exits.offload("inet", body + attribute(7, struct.pack("!I", 0))) == Offload(
        "inet site", "fast", False
    )
    hardware = exits.offload("inet", body + attribute(7, struct.pack("!I", 3)))
    assert hardware.hardware


def test_features_of_a_card(gateway):
    """No card here: a veth has features too, all but that one."""
    on = features.active("wan0")
    assert "tx-scatter-gather" in on
    assert features.TC_OFFLOAD not in on
    told = findings(Host(devices=(Device("eth0", tc_in_hardware=True),)), policy())
    assert [one.kind for one in told] == ["hardware"]


def test_the_look_needs_no_root(gateway):
    """CAP_NET_ADMIN and nothing else, as the daemon will have it."""
    script = "import ctypes; from ecluse.kernel.exits import look; print(len(look().devices))"
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", "-all,+net_admin",
         "--ambient-caps", "-all,+net_admin", "--bounding-set", "-all,+net_admin",
         "/usr/bin/python3", "-c", script],
        env={"PYTHONPATH": _readable()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5


def _readable() -> str:
    import ecluse

    return str(ecluse.__path__[0]).removesuffix("/ecluse")
