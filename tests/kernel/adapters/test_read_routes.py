"""Routes of routing protocols, next hops and a NAT64's prefix, as a real kernel has them."""

import pytest

from ecluse.host_reading import LearnedRoutes
from ecluse.kernel import read_routes
from tests.kernel.adapters.conftest import do, ip, run

pytestmark = pytest.mark.kernel


@pytest.fixture
def wan(links):
    do(
        "ip link add wan0 type veth peer name lan0",
        "ip link set wan0 up",
        "ip link set lan0 up",
        "ip addr add 198.51.100.2/24 dev wan0",
        "ip addr add 2001:db8:1::2/64 dev wan0 nodad",
    )
    return links


async def test_what_a_routing_protocol_put_there_is_counted_by_its_interface(wan):
    for words in (
        "route add default via 198.51.100.1 proto ospf",
        "route add 203.0.113.0/24 via 198.51.100.1 proto ospf",
        "route add 203.0.113.0/25 proto ospf nexthop via 198.51.100.1 nexthop dev lan0",
        "-6 route add 2001:db8:7::/48 via 2001:db8:1::1 proto bgp",
        "route add 192.0.2.0/25 dev lan0 proto bird",
        "route add unreachable 192.0.2.128/25 proto bird",
        "route add 192.0.2.128/26 dev lan0 proto static",
    ):
        ip(words)
    host = await wan.read_host()
    assert set(host.learned_routes) == {
        LearnedRoutes(188, "wan0", 3, default=True),
        LearnedRoutes(186, "wan0", 1, default=False),
        LearnedRoutes(12, "lan0", 1, default=False),
    }


async def test_next_hops_of_default_routes(wan):
    ip("route add default nexthop via 198.51.100.1 dev wan0 nexthop dev lan0")
    ip("-6 route add default via 2001:db8:1::1")
    ip("route add default via 198.51.100.7 table 100")
    host = await wan.read_host()
    assert set(host.routers) == {
        ("wan0", "198.51.100.1"),
        ("wan0", "198.51.100.7"),
        ("wan0", "2001:db8:1::1"),
    }
    assert host.default_routes == ("lan0", "wan0")


async def test_a_next_hop_object_as_a_routing_daemon_uses_it(wan):
    ip("nexthop add id 7 via 198.51.100.1 dev wan0 proto ospf")
    ip("route add default nhid 7 proto ospf")
    host = await wan.read_host()
    assert host.learned_routes == (LearnedRoutes(188, "wan0", 1, default=True),)
    assert host.routers == (("wan0", "198.51.100.1"),)


async def test_routes_as_long_as_a_nat64s_prefix(wan):
    ip("tuntap add nat64 mode tun")
    ip("link set nat64 up")
    ip("-6 route add 64:ff9b::/96 dev nat64")
    ip("-6 route add 2001:db8:9::/64 dev lan0")
    host = await wan.read_host()
    assert host.translations == (("nat64", "64:ff9b::/96"),)
    assert {one.name: one.kind for one in host.devices}["nat64"] == "tun"


async def test_a_full_table_is_counted_up_to_a_bound(wan, monkeypatch):
    monkeypatch.setattr(read_routes, "_MOST_LEARNED", 1000)
    batch = "".join(
        f"route add 10.{n // 250}.{n % 250}.0/24 via 198.51.100.1 proto bgp\n" for n in range(3000)
    )
    run("ip", "-b", "-", text=batch + "route add default via 198.51.100.1 proto bgp\n")
    (one,) = (await wan.read_host()).learned_routes
    assert (one.protocol, one.default) == (186, True)
    assert 1000 <= one.count <= 1001
