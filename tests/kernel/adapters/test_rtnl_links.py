"""The port `Links`: one reading for one event, and the changes in words."""

import asyncio
import socket
import threading
from collections import Counter

import pyroute2
import pytest

from ecluse.kernel import rtnl_links as module
from ecluse.kernel.bypass_scan import KernelBypassScan
from ecluse.kernel.netlink import NetlinkSocket
from ecluse.kernel.rtnetlink_numbers import RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, RTMSG
from tests.kernel.adapters.conftest import gather, ip, run

pytestmark = pytest.mark.kernel


async def test_a_look_costs_nothing_until_the_kernel_announces_a_change(links, monkeypatch):
    ip("link add wan0 type veth peer name lan0")
    first = await links.read_links()
    reads = []
    read = module.read_links.read_links
    monkeypatch.setattr(
        module.read_links, "read_links", lambda route: (reads.append(1), read(route))[1]
    )
    assert await links.read_links() is first
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
        await links.read_links()
        assert reads, change
    reads.clear()
    burst = "".join(f"addr add 10.{n // 250}.{n % 250}.1/24 dev lo\n" for n in range(1500))
    # More than the socket holds: that something was lost is a change, too.
    run("ip", "-b", "-", text=burst)
    assert len((await links.read_links()).addresses) > 1500
    assert reads


async def test_one_event_costs_one_dump_of_each_kind(links, monkeypatch):
    """All that a link event asks for: links, addresses, routes, bypasses, and a cut beside it."""
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    ip("route add default dev wan0")
    dumps = Counter()
    dump = NetlinkSocket.dump

    def counted(self, kind, body):
        if kind != RTM_GETROUTE or len(body) == RTMSG.size:  # one interface's routes are not all
            dumps[kind] += 1
        return dump(self, kind, body)

    def other(*_args, **_more):
        raise AssertionError("another library's dump")

    # The carrier of what was just set up comes up to a second later (link_watch.c): not counted.
    await asyncio.sleep(1.2)
    await links.read_host()
    monkeypatch.setattr(NetlinkSocket, "dump", counted)
    monkeypatch.setattr(socket, "if_nameindex", other)
    monkeypatch.setattr(pyroute2, "IPRoute", other)
    for change in ("addr add 198.51.100.2/24 dev wan0", "link set lan0 up", "link del wan0"):
        dumps.clear()
        ip(change)
        host = await links.read_host()
        assert (await links.read_links()).devices == host.devices
        assert await links.local_addresses()
        await KernelBypassScan().scan(host)
        # A carrier's change may come a moment after the command (link_watch.c): read once more.
        most = 1 if change.startswith("addr") else 2
        for kind in (RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE):
            assert 1 <= dumps[kind] <= most, (change, kind)


async def test_a_look_waits_for_no_dump_of_all_routes(links, monkeypatch):
    ended = threading.Event()

    def long(_host):
        ended.wait(10)
        return ()

    monkeypatch.setattr(module, "_read_routes", long)
    await links.read_links()
    dump = asyncio.create_task(links.read_host())
    await asyncio.sleep(0.05)
    ip("link add wan0 type veth peer name lan0")  # what a cut asks for now has to be read
    try:
        async with asyncio.timeout(2):
            host = await links.read_links()
    finally:
        ended.set()
        await dump
    assert "wan0" in {one.name for one in host.devices}


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


async def test_a_renamed_interface_is_told_even_when_it_has_its_old_name_again(links):
    ip("link add wan0 type veth peer name lan0")
    stream = links.changes()
    ip("link add br0 type bridge")
    for words in ("lan0 master br0", "lan0 nomaster"):  # announced as a port that is gone
        ip(f"link set {words}")
    for before, after in (("wan0", "wan9"), ("wan9", "wan0"), ("lan0", "lan9")):
        ip(f"link set {before} name {after}")
    seen = await gather(stream, {"interface lan0 was renamed to lan9"})
    assert [one for one in seen if "renamed" in one] == [
        "interface wan0 was renamed to wan9",
        "interface wan9 was renamed to wan0",
        "interface lan0 was renamed to lan9",
    ]
