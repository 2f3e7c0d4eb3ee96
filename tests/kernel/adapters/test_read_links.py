"""Interfaces, addresses and routes, read from a real kernel."""

import asyncio
import os
import struct
import time
from ipaddress import ip_address

import pytest
from pyroute2.netlink.rtnl import ifinfmsg

from ecluse.kernel import read_links
from ecluse.kernel.bypass_scan import KernelBypassScan
from ecluse.kernel.netlink import attribute, text_attribute
from ecluse.kernel.rtnetlink_numbers import (
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_IPVLAN_MODE,
    IFLA_LINKINFO,
)
from tests.kernel.adapters.conftest import Heart, gather, ip, run

pytestmark = pytest.mark.kernel


async def test_readings(links):
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    ip("link set lan0 up")
    ip("addr add 198.51.100.2/24 dev wan0")
    ip("addr add 192.0.2.1 peer 192.0.2.2 dev lan0")
    ip("addr add 2001:db8:1::2/64 dev wan0 nodad")
    assert sorted(one.name for one in (await links.read_links()).devices) == ["lan0", "lo", "wan0"]
    addresses = await links.local_addresses()
    assert addresses >= {
        "127.0.0.1",
        "::1",
        "10.10.0.5",
        "198.51.100.2",
        "192.0.2.1",
        "2001:db8:1::2",
    }
    assert "192.0.2.2" not in addresses
    assert (await links.read_host()).default_routes == ()


@pytest.mark.parametrize(
    ("routes", "carriers"),
    [
        (["route add default via 198.51.100.1"], ("wan0",)),
        (["-6 route add default via 2001:db8:1::1"], ("wan0",)),
        (
            ["route add default dev lan0", "-6 route add default via 2001:db8:1::1"],
            ("lan0", "wan0"),
        ),
        (
            ["route add default nexthop via 198.51.100.1 dev wan0 nexthop dev lan0"],
            ("lan0", "wan0"),
        ),
        (["route add default dev lan0 table 100"], ("lan0",)),
        (["nexthop add id 7 dev lan0", "route add default nhid 7"], ("lan0",)),
        (["route add unreachable default", "-6 route add unreachable default"], ()),
        (["route add 203.0.113.0/24 via 198.51.100.1"], ()),
    ],
)
async def test_default_routes(links, routes, carriers):
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    ip("link set lan0 up")
    ip("addr add 198.51.100.2/24 dev wan0")
    ip("addr add 2001:db8:1::2/64 dev wan0 nodad")
    for route in routes:
        ip(route)
    assert (await links.read_host()).default_routes == carriers


async def test_a_look_says_by_which_interfaces_packets_can_come(links):
    ip("link add wan0 type veth peer name lan0")
    ip("link add br0 type bridge")
    ip("link add port0 type veth peer name port1")

    async def seen(name, **wanted):
        """Look until it is so: a task of the kernel takes up carriers (link_watch.c)."""
        async with asyncio.timeout(10):
            while True:
                (one,) = (one for one in (await links.read_links()).devices if one.name == name)
                if all(getattr(one, key) == value for key, value in wanted.items()):
                    return
                await asyncio.sleep(0.01)

    await seen("wan0", up=False, running=False)
    ip("link set wan0 up")
    await seen("wan0", up=True, running=False)  # the other end is down
    ip("link set lan0 up")
    await seen("wan0", running=True, own_ip=False)  # a link-local address leads nowhere
    ip("route add 198.51.100.0/24 dev wan0")
    await seen("wan0", own_ip=True)  # unnumbered, and routed
    await seen("lan0", running=True, own_ip=False)
    ip("-6 route add 2001:db8:5::/48 dev lan0")
    await seen("lan0", own_ip=True)
    ip("-6 route del 2001:db8:5::/48 dev lan0")
    await seen("lan0", own_ip=False)
    ip("addr add 192.0.2.1/24 dev lan0")
    await seen("lan0", own_ip=True)
    ip("link set port0 master br0")
    await seen("port0", master="br0")
    await seen("br0", kind="bridge")


async def test_a_look_is_not_made_of_all_routes(links):
    """A gateway with a full table of routes is looked at as quickly as any: the kernel sends only
    what was asked for.
    """
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    ip("link set lan0 up")
    batch = "".join(f"route add 10.{n // 250}.{n % 250}.0/24 dev wan0\n" for n in range(5000))
    run("ip", "-b", "-", text=batch)
    async with asyncio.timeout(10):
        while not all(
            one.running for one in (await links.read_links()).devices if one.name != "lo"
        ):
            await asyncio.sleep(0.01)
    async with Heart(time.thread_time) as heart:
        found = {one.name: one.own_ip for one in (await links.read_links()).devices}
    assert found["wan0"]
    assert not found["lan0"]
    assert heart.longest < 0.02


async def test_by_which_interface_an_address_is_reached(links, namespace):
    for words in (
        *(
            "link add care0 type veth peer name far0",
            "link set care0 up",
            "link set far0 up",
            "addr add 10.20.0.1/24 dev care0",
        ),
        *("route add 10.77.0.0/16 via 10.20.0.9", "route add unreachable 10.77.5.0/24"),
        *("route add blackhole 10.77.6.0/24", "-6 route add 2001:db8:77::/64 dev care0"),
    ):
        ip(words)
    asked = [
        ip_address(a)
        for a in ("10.77.0.5", "10.77.5.1", "10.77.6.1", "203.0.113.1", "2001:db8:77::5")
    ]
    assert await links.reached_by(asked) == {asked[0]: "care0", asked[4]: "care0"}
    assert await links.reached_by([]) == {}


async def test_names_that_are_no_utf8_are_read_with_replacement(links):
    """The kernel takes any bytes but '/', ':' and white space (dev_valid_name, net/core/dev.c)."""
    odd, told = b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"
    run("ip", "link", "add", os.fsdecode(odd), "type", "bridge")
    stream = links.changes()
    run("ip", "link", "set", os.fsdecode(odd), "up")
    run("ip", "addr", "add", "198.51.100.2/24", "dev", os.fsdecode(odd))
    run("ip", "route", "add", "default", "dev", os.fsdecode(odd))
    assert told in {one.name for one in (await links.read_links()).devices}
    assert (await links.read_host()).default_routes == (told,)
    assert "198.51.100.2" in await links.local_addresses()
    await gather(stream, {f"address 198.51.100.2/24 on {told} is there"})
    host = await KernelBypassScan().scan(await links.read_host())
    assert told in {device.name for device in host.devices}


async def test_the_other_end_and_the_port_of_a_tunnel(links):
    ip("link add vx0 type vxlan id 5 remote 203.0.113.1 dstport 8472")
    ip("link add vx6 type vxlan id 6 remote 2001:db8:7::1 dstport 4789")
    ip("link add vx9 type vxlan id 9 group 239.1.1.1 dev vx0 dstport 4789")
    ip("link add br0 address 02:00:00:00:00:07 type bridge")
    found = {one.name: one for one in (await links.read_links()).devices}
    assert (found["vx0"].kind, found["vx0"].remote, found["vx0"].port) == (
        *("vxlan", "203.0.113.1"),
        8472,
    )
    assert (found["vx6"].remote, found["vx6"].port) == ("2001:db8:7::1", 4789)
    assert (found["br0"].remote, found["br0"].port) == ("", 0)
    assert (found["br0"].mac, found["lo"].mac) == (0x020000000007, 0)


def test_tunnels_that_this_kernel_has_not():
    """The attributes' numbers beside pyroute2's; the bytes are made after the uapi."""
    forms = ifinfmsg.ifinfbase.ifinfo.data_map
    for kind in read_links._REMOTES.keys() & forms.keys():
        names = enumerate(name for name, *_ in forms[kind].nla_map)
        ends = {number for number, name in names if "REMOTE" in name or "GROUP" in name}
        assert ends == {*read_links._REMOTES[kind]}, kind

    def told(kind, number, packed):
        info = text_attribute(IFLA_INFO_KIND, kind)
        info += attribute(IFLA_INFO_DATA, attribute(number, packed))
        return read_links._tunnel({IFLA_LINKINFO: info})

    assert told("sit", 3, bytes([203, 0, 113, 1])) == ("203.0.113.1", 0)
    assert told("sit", 3, bytes(4)) == ("", 0), "any other end"
    assert told("ip6gre", 7, ip_address("2001:db8::1").packed) == ("2001:db8::1", 0)
    assert told("bridge", 7, bytes([203, 0, 113, 1])) == ("", 0)


def test_an_ipvlans_mode():
    """This kernel has none: the bytes are made after the uapi (IFLA_IPVLAN_MODE, a u16)."""

    def told(kind, mode):
        data = attribute(IFLA_IPVLAN_MODE, struct.pack("=H", mode))
        info = text_attribute(IFLA_INFO_KIND, kind) + attribute(IFLA_INFO_DATA, data)
        return read_links.ipvlan_mode({IFLA_LINKINFO: info})

    assert [told("ipvlan", mode) for mode in (0, 1, 2)] == ["", "", "l3s"]
    assert told("ipvtap", 2) == "l3s"
    assert told("macvlan", 2) == ""
