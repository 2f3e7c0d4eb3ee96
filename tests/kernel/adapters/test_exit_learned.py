"""What the DNS gate learns is in the second lock before it is in the gate, and leaves it after."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ecluse.kernel.exit_learned import learned_here, reconcile_learned
from ecluse.kernel.exit_table import NftExitTable
from ecluse.kernel.netlink import NETLINK_NETFILTER, NetlinkSocket
from ecluse.kernel.proxy_sets import SetElement, add_elements, delete_elements
from ecluse.ruleset.exit_values import Ends, ExitDevice, ExitLock
from tests.kernel.adapters.conftest import nft

pytestmark = pytest.mark.kernel

FOUR, SIX = ip_address("203.0.113.9"), ip_address("2001:db8:a::9")
BOTH = [SetElement("dns_all_4", FOUR), SetElement("dns_all_6", SIX)]
LOCK = ExitLock((ExitDevice("lo", (1,)),), Ends(), Ends(), learns=True)


class Watched(NetlinkSocket):
    """A socket that keeps the families of its transactions, in order."""

    sent = ()

    def transaction(self, subsystem, requests):
        self.sent = (*self.sent, {1: "gate", 5: "lock"}[requests[0][2][0]])
        super().transaction(subsystem, requests)


@pytest.fixture
def netlink(namespace):
    nft(
        "table inet ecluse { set dns_all_4 { type ipv4_addr; flags timeout; timeout 1h; }\n"
        "set dns_all_6 { type ipv6_addr; flags timeout; timeout 1h; }\n}"
    )
    with Watched(NETLINK_NETFILTER) as made:
        yield made


@pytest.fixture
def table(netlink):
    made = NftExitTable()
    yield made
    made.close()


def test_the_lock_first_and_last(netlink, table):
    asyncio.run(table.apply(LOCK))
    add_elements(netlink, BOTH)
    assert netlink.sent[:2] == ("lock", "gate")
    assert set(learned_here(netlink)) == {FOUR, SIX}
    netlink.sent = ()
    delete_elements(netlink, "dns_all_4", [FOUR])
    assert netlink.sent == ("gate", "lock")
    assert set(learned_here(netlink)) == {SIX}


def test_without_a_lock_that_learns_nothing_is_refused(netlink, table):
    add_elements(netlink, BOTH)
    delete_elements(netlink, "dns_all_4", [FOUR])
    asyncio.run(table.apply(replace(LOCK, learns=False)))
    add_elements(netlink, BOTH)
    assert not set(learned_here(netlink))


def test_a_lock_made_later_or_again_knows_what_was_learned(netlink, table):
    add_elements(netlink, BOTH)
    for _ in range(2):
        asyncio.run(table.apply(LOCK))
        assert set(learned_here(netlink)) == {FOUR, SIX}
        assert asyncio.run(table.read_table(LOCK)).faults == ()
        asyncio.run(table.remove())


def test_what_timed_out_in_the_gate_leaves_the_lock(netlink, table):
    asyncio.run(table.apply(LOCK))
    add_elements(netlink, BOTH)
    nft("delete element inet ecluse dns_all_6 { 2001:db8:a::9 }")
    reconcile_learned(netlink)
    assert set(learned_here(netlink)) == {FOUR}
