"""The simulator: a packet goes the way that the program says."""

from ecluse.ruleset import simulator
from ecluse.ruleset.program import NamedSet


def test_a_hash_of_a_hundred_thousand_addresses_is_not_looked_through():
    class Unread(dict):
        def items(self):
            raise AssertionError("read whole")

        __iter__ = keys = values = items

    named = NamedSet(
        "x", ("ipv4_addr", "inet_service"), False, "counter", Unread({((7, 7), (1, 1)): "svc_x"})
    )
    index = simulator.Indices().of(named)
    assert (index.find((7, 1)), index.find((7, 2))) == ("svc_x", None)
