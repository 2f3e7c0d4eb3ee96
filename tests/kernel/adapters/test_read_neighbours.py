"""A bridge that sees the outside: learned by a real bridge from real frames."""

import sys

import pytest

from ecluse.bypass import find_bypasses
from ecluse.host_reading import SeenOnBridge
from tests.kernel.adapters.conftest import do, run
from tests.kernel.adapters.test_bypass_scan import policy, read_machine
from tests.lab import netns

pytestmark = pytest.mark.kernel

BROADCAST = """
import socket
router = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
router.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
router.sendto(b"x", ("198.51.100.255", 9))
"""


@pytest.fixture
def provider(namespace):
    """A segment outside (a bridge in a namespace of its own) with a router on it.

    wan0 is our link to it. out0 is a second one, and no port of any bridge yet.
    """
    other = netns.unique()
    do(f"ip netns add {other}")
    try:
        there = f"ip -n {other}"
        do(
            f"{there} link add segment type bridge",
            f"{there} link set segment up",
            f"{there} addr add 198.51.100.1/24 dev segment",
        )
        for name in ("wan0", "out0", "lan0"):
            do(
                f"ip link add {name} type veth peer name far-{name}",
                f"ip link set far-{name} netns {other}",
                f"{there} link set far-{name} up",
                f"ip link set {name} up",
            )
        do(
            f"{there} link set far-wan0 master segment",
            f"{there} link set far-out0 master segment",
            "ip addr add 198.51.100.2/24 dev wan0",
            "ip route add default via 198.51.100.1",
            "ip link add care0 type bridge",
            "ip link set care0 up",
            "ip link set lan0 master care0",
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        )
        yield other
    finally:
        do(f"ip netns del {other}")


def talk():
    """Have wan0 and the router on its segment speak: a ping, and a broadcast of each."""
    do("ping -c 2 -i 0.2 -W 5 198.51.100.1")


async def test_a_port_that_leads_outside_is_named(provider):
    talk()
    assert (await read_machine()).seen_on_bridges == (), "the inside alone is behind the bridge"
    assert not _ways(await read_machine())
    do("ip link set out0 master care0")
    do("ip neigh flush dev wan0")
    talk()  # its ARP request is a broadcast: it comes in by out0 as well
    host = await read_machine()
    assert SeenOnBridge("care0", "out0", "wan0") in host.seen_on_bridges
    (way,) = _ways(host)
    assert way.where == "care0"
    assert "behind its port out0: that port leads outside" in way.what
    do("ip link set out0 nomaster")
    assert not _ways(await read_machine())


async def test_the_router_itself_is_recognised_by_its_mac(provider):
    talk()
    do("ip link set out0 master care0")
    # The router speaks to all: a bridge learns its MAC, and nothing of wan0.
    run("ip", "netns", "exec", provider, sys.executable, "-c", BROADCAST)
    host = await read_machine()
    assert host.seen_on_bridges == (SeenOnBridge("care0", "out0", "wan0", "198.51.100.1"),)
    (way,) = _ways(host)
    assert "sees 198.51.100.1, the next hop of a default route by wan0, behind" in way.what


async def test_a_macvlan_of_the_way_out_as_a_port(provider):
    do("ip link add mv0 link wan0 type macvlan mode bridge", "ip link set mv0 master care0")
    assert any(
        "port mv0 of bridge care0 of zone care shares wan0" in w.what
        for w in _ways(await read_machine())
    )


def _ways(host):
    return [one for one in find_bypasses(host, policy()) if one.kind == "bridge"]
