"""RtnlLinks: interfaces, addresses, default routes, and their changes in words."""

import asyncio
import itertools
import os
import socket
import subprocess
import time
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from ecluse.kernel import bypass_scan, netlink_stream
from ecluse.kernel.bypass_scan import KernelBypassScan
from tests.kernel.adapters.conftest import Heart, run
from tests.kernel.adapters.test_conntrack import fill

pytestmark = pytest.mark.kernel


def ip(words):
    run("ip", *words.split())


async def gather(stream, wanted):
    """Read until everything wanted has been said."""
    seen = []
    async with asyncio.timeout(10):
        while not set(wanted) <= set(seen):
            seen.append(await anext(stream))
    return seen


async def test_readings(links):
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    ip("link set lan0 up")
    ip("addr add 198.51.100.2/24 dev wan0")
    ip("addr add 192.0.2.1 peer 192.0.2.2 dev lan0")
    ip("addr add 2001:db8:1::2/64 dev wan0 nodad")
    assert sorted(one.name for one in (await links.look()).devices) == ["lan0", "lo", "wan0"]
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
    assert await links.default_routes() == ()


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
    assert await links.default_routes() == carriers


async def test_a_look_says_by_which_interfaces_packets_can_come(links):
    ip("link add wan0 type veth peer name lan0")
    ip("link add br0 type bridge")
    ip("link add port0 type veth peer name port1")

    async def seen(name, **wanted):
        """Look until it is so: a carrier is taken up by a task of the kernel's own (link_watch.c)."""
        async with asyncio.timeout(10):
            while True:
                (one,) = (one for one in (await links.look()).devices if one.name == name)
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


async def test_a_look_costs_nothing_until_the_kernel_announces_a_change(links, monkeypatch):
    ip("link add wan0 type veth peer name lan0")
    first = await links.look()
    reads = []

    def counted():
        reads.append(1)
        return real()

    real = bypass_scan.look_at_links
    monkeypatch.setattr(bypass_scan, "look_at_links", counted)
    assert await links.look() is first
    assert not reads
    for change in (
        "link set wan0 up",
        "link set lan0 up",
        "addr add 198.51.100.2/24 dev wan0",
        "route add 203.0.113.0/24 dev wan0",
        "-6 addr add 2001:db8:1::2/64 dev wan0 nodad",
        "link add br0 type bridge",
        "link set lan0 master br0",
        "link set br0 name br1",
        "link del br1",
        "link del wan0",
    ):
        reads.clear()
        ip(change)
        await links.look()
        assert reads, change
    reads.clear()
    burst = "".join(f"addr add 10.{n // 250}.{n % 250}.1/24 dev lo\n" for n in range(1500))
    run(
        "ip", "-b", "-", text=burst
    )  # more than the socket holds: that something was lost is a change, too
    assert len((await links.look()).addresses) > 1500
    assert reads


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
        while not all(one.running for one in (await links.look()).devices if one.name != "lo"):
            await asyncio.sleep(0.01)
    async with Heart(time.thread_time) as heart:
        found = {one.name: one.own_ip for one in (await links.look()).devices}
    assert found["wan0"]
    assert not found["lan0"]
    assert heart.longest < 0.02


async def test_how_full_the_kernels_tables_are(links, conntrack):
    before = {one.name: one for one in await links.tables()}
    fill(range(500))
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    for n in range(20):
        ip(f"neigh add 198.51.100.{n + 1} lladdr 02:00:00:00:00:01 dev wan0 nud permanent")
    after = {one.name: one for one in await links.tables()}
    assert after["connections"].used >= before["connections"].used + 500
    limit = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    assert after["connections"].most == int(limit.read_text()), (
        "the machine's, as every namespace reads it"
    )
    assert after["IPv4 neighbours"].used >= 20
    shown = subprocess.run(
        ["ip", "-s", "ntable", "show"], capture_output=True, text=True, check=True
    ).stdout
    assert f"thresh3 {after['IPv4 neighbours'].most} " in shown
    assert {"IPv4 neighbours", "IPv6 neighbours"} <= after.keys()


async def test_changes_are_told(links):
    stream = links.changes()
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    ip("link set lan0 up")
    ip("addr add 198.51.100.2/24 dev wan0")
    ip("-6 addr add 2001:db8:1::2/64 dev wan0 nodad")
    ip("route add default via 198.51.100.1")
    await gather(
        stream,
        {
            "interface wan0 is down",
            "interface wan0 is up",
            "address 198.51.100.2/24 on wan0 is there",
            "address 2001:db8:1::2/64 on wan0 is there",
            "route default by wan0 is there",
        },
    )
    ip("route del default")
    ip("addr del 198.51.100.2/24 dev wan0")
    await gather(
        stream, {"route default by wan0 is gone", "address 198.51.100.2/24 on wan0 is gone"}
    )
    ip("link del wan0")
    await gather(stream, {"interface wan0 is gone", "interface lan0 is gone"})


async def test_a_burst_is_said_and_the_stream_lives_on(links):
    stream = links.changes()
    stream._netlink.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    for n in range(40):
        ip(f"addr add 198.51.100.{n + 1}/24 dev wan0")
    seen = await gather(stream, {"changes of links were missed (No buffer space available)"})
    assert len(seen) < 80
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            while True:
                await anext(stream)
    ip("link add late0 type veth peer name late1")
    await gather(stream, {"interface late0 is down"})


async def test_a_thousand_events_do_not_hold_the_loop(links, monkeypatch):
    """The stream lets the loop go after each slice of time, however many wait: here time is what
    the test says.
    """
    clock = itertools.count()
    time_of_test = SimpleNamespace(monotonic=lambda: next(clock) * 0.6 * netlink_stream.SLICE)
    monkeypatch.setattr(netlink_stream, "time", time_of_test)
    stream = links.changes()
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    batch = "".join(f"addr add 10.{n // 250}.{n % 250}.1/24 dev wan0\n" for n in range(1000))
    run("ip", "-b", "-", text=batch)
    seen, beats = [], Counter()
    async with Heart(time.monotonic) as heart:
        async for words in stream:
            seen.append(words)
            beats[heart.beats] += 1
            if words == "address 10.3.249.1/24 on wan0 is there":
                break
    assert sum(words.endswith("/24 on wan0 is there") for words in seen) == 1000
    assert max(beats.values()) <= 2, "each slice has time for one datagram"


async def test_closing_ends_the_stream(links):
    stream = links.changes()

    async def listen():
        return [words async for words in stream]

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.01)
    assert not listening.done()
    links.close()
    await asyncio.wait_for(listening, 5)
    assert await listen() == []


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
    """The kernel takes any bytes but '/', ':' and white space (dev_valid_name in net/core/dev.c)."""
    odd, told = b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"
    run("ip", "link", "add", os.fsdecode(odd), "type", "bridge")
    stream = links.changes()
    run("ip", "link", "set", os.fsdecode(odd), "up")
    run("ip", "addr", "add", "198.51.100.2/24", "dev", os.fsdecode(odd))
    run("ip", "route", "add", "default", "dev", os.fsdecode(odd))
    assert told in {one.name for one in (await links.look()).devices}
    assert await links.default_routes() == (told,)
    assert "198.51.100.2" in await links.local_addresses()
    await gather(stream, {f"address 198.51.100.2/24 on {told} is there"})
    host = await KernelBypassScan().look()
    assert told in {device.name for device in host.devices}


async def test_an_event_that_cannot_be_read_was_missed_and_the_next_is_read(links, monkeypatch):
    stream = links.changes()
    decode, broken = stream._decode, [True]

    def fails_once(datagram):
        if broken.pop() if broken else False:
            raise TypeError("nobody foresaw this")
        return decode(datagram)

    monkeypatch.setattr(stream, "_decode", fails_once)
    ip("link add wan0 type veth peer name lan0")
    assert "changes of links were missed (unreadable: TypeError" in await anext(stream)
    ip("link set wan0 up")
    ip("link set lan0 up")
    await gather(stream, {"interface wan0 is up"})
