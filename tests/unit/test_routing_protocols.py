"""The numbers of routing protocols, beside another list of them."""

from pyroute2.netlink.rtnl import rt_proto

from ecluse.routing_protocols import ROUTING_PROTOCOLS


def test_the_numbers_are_those_that_others_know():
    for number, one in ROUTING_PROTOCOLS.items():
        if one.name.lower() in rt_proto:
            assert rt_proto[one.name.lower()] == number
    assert {"zebra", "bird"} <= {one.name for one in ROUTING_PROTOCOLS.values()} & rt_proto.keys()
    assert all(one.packets and one.dead for one in ROUTING_PROTOCOLS.values())
