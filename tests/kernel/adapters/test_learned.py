"""The DNS gate's part of the table: sets that lose nothing when a program is loaded, and whose filling is no touch."""

import asyncio
import subprocess
from ipaddress import ip_address

import pytest

from ecluse.kernel.learned import Answered, handles, learned, left, put
from ecluse.kernel.netlink import NETLINK_NETFILTER, Netlink
from ecluse.ruleset import switch
from tests.golden.cases import HERE, compiled

pytestmark = pytest.mark.kernel

CASE = HERE / "10-dns-gate"
POLICY, PROGRAM = compiled(CASE)
ZONES = POLICY.zone_names()
CUT, OPEN = dict.fromkeys(ZONES, "cut"), dict.fromkeys(ZONES, "open")
SET = "dns_svc_secure_mail_4"
ADDRESS = ip_address("203.0.113.9")
SIX = ip_address("2001:db8:a::9")


@pytest.fixture
async def table(firewall):
    await firewall.apply(switch.whole_text(PROGRAM))
    with Netlink(NETLINK_NETFILTER) as netlink:
        yield firewall, netlink


async def test_each_time_it_is_put_in_an_address_has_its_whole_hour(table):
    _, netlink = table
    put(netlink, [Answered(SET, ADDRESS, 30), Answered("dns_all_6", SIX)])
    assert 25 <= left(netlink, SET)[ADDRESS] <= 30
    assert learned(netlink)["dns_all_6"] == {int(SIX)}
    put(netlink, [Answered(SET, ADDRESS)])
    assert left(netlink, SET)[ADDRESS] >= 3590


async def test_whole_or_not_at_all(table):
    _, netlink = table
    with pytest.raises(FileNotFoundError):
        put(netlink, [Answered(SET, ADDRESS), Answered("dns_svc_nobody_4", ADDRESS)])
    with Netlink(NETLINK_NETFILTER) as fresh:
        assert ADDRESS not in left(fresh, SET)


async def test_a_load_a_switch_and_a_removal_lose_nothing(table):
    firewall, netlink = table
    put(netlink, [Answered(SET, ADDRESS)])
    before = handles(netlink)
    _, other = compiled(CASE, 2)
    await firewall.apply(switch.load_text(other))
    for levels in (CUT, OPEN, CUT):
        position = switch.position(POLICY, 2, levels)
        assert await firewall.switch(position) == ""
        assert await firewall.targets(position.targets) == position.targets
    await firewall.apply(switch.removal_text(await firewall.objects(), [2], other.counters, other.learned))
    assert handles(netlink) == before
    assert (await firewall.learned())[SET] == {int(ADDRESS)}


async def test_filling_is_no_touch_and_is_told(table):
    firewall, netlink = table
    digests = await firewall.fingerprint()
    changes = firewall.changes()
    put(netlink, [Answered(SET, ADDRESS)])
    subprocess.run(["nft", "flush set inet ecluse dns_svc_secure_mail_4"], check=True)
    subprocess.run(["nft", "add element inet ecluse k1_resolvers4 { 192.0.2.54 . 53 . 17 }"], check=True)
    async with asyncio.timeout(5):
        first, emptied, second = [await anext(changes) for _ in range(3)]
    assert (first.touched, first.filled) == (False, SET)
    assert (emptied.touched, emptied.filled) == (False, SET)
    assert second.touched
    assert not second.filled
    assert {name for name, one in (await firewall.fingerprint()).items() if one != digests[name]} == {
        "k1_resolvers4"
    }


async def test_what_is_in_use_has_its_whole_hour_again_and_nothing_else_comes_in(table):
    firewall, netlink = table
    young, idle, strange = ip_address("203.0.113.10"), ip_address("203.0.113.11"), ip_address("203.0.113.12")
    put(netlink, [Answered(SET, ADDRESS, 900), Answered(SET, young, 3000), Answered(SET, idle, 900)])
    await firewall.hold_learned({SET: frozenset({ADDRESS, young, strange}), "dns_all_6": frozenset({SIX})})
    found = left(netlink, SET)
    assert found[ADDRESS] >= 3590
    assert found[young] <= 3000, "still young: no transaction for it"
    assert found[idle] <= 900
    assert strange not in found
    assert not left(netlink, "dns_all_6")
