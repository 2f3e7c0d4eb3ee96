"""Readings of table `inet ecluse` in a real kernel, never a mix of two transactions."""

import asyncio
import itertools
from functools import partial
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel import read_table
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    DumpInterruptedError,
    NetlinkSocket,
    attribute,
)
from ecluse.lenient_rows import parse_rows
from ecluse.ports import CounterValue
from ecluse.ruleset import switch
from tests.kernel.adapters.conftest import PROGRAM, nft, send_udp
from tests.kernel.adapters.test_nft_firewall import SWITCH
from tests.kernel.adapters.test_switch_commit import HANG_LATER, PUT_TO_SLEEP, loaded

pytestmark = pytest.mark.kernel

FLUSH = "flush chain inet ecluse k1_gate.care"


async def test_no_table_reads_as_nothing(firewall):
    assert await firewall.chains() == ()
    assert await firewall.objects() == {}
    assert await firewall.fingerprint() == {}
    assert await firewall.counters() == {}
    assert await firewall.refused() == ((), False, 0)
    assert await firewall.targets(["forward"]) == {"forward": None}


async def test_tables_of_others_are_not_ours(firewall):
    nft(
        "table ip ecluse { chain forward { \n goto x\n } \n chain x { }\n }\n"
        "table inet other { counter c { } \n set s { type ipv4_addr; }\n}"
    )
    assert await firewall.objects() == {}
    assert await firewall.fingerprint() == {}
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint(), await firewall.objects()
    nft("delete table ip ecluse\nadd counter inet other d\nadd chain inet other forward")
    assert (await firewall.fingerprint(), await firewall.objects()) == before
    assert set(await firewall.counters()) == {"svc_lab", "refused_out"}


async def test_objects_names_everything(firewall):
    await firewall.apply(PROGRAM)
    objects = await firewall.objects()
    assert objects["map"] == ("k1_from", "k1_hosts4", "k1_nets4")
    assert objects["set"] == (
        "k1_granted",
        "k1_inside",
        "refused4",
        "refused6",
        "refused_hosts4",
        "refused_hosts6",
    )
    assert objects["counter"] == ("refused_out", "svc_lab")
    assert objects["chain"] == await firewall.chains()
    assert "k1_gate.care" in objects["chain"]


async def test_targets_are_read_back(firewall):
    await firewall.apply(PROGRAM)
    asked = ["forward", "output", "k1_gate.care", "k1_forward", "k1_at.open", "nowhere"]
    expected = {"forward": "k1_forward", "output": "k1_output", "k1_gate.care": "k1_at.open"}
    assert await firewall.targets(asked) == dict.fromkeys(asked) | expected
    await firewall.apply(SWITCH)
    assert (await firewall.targets(["k1_gate.care"])) == {"k1_gate.care": "k1_at.cut"}


@pytest.mark.parametrize(
    "rule",
    [
        "add rule inet ecluse k1_gate.care drop",
        "insert rule inet ecluse k1_gate.care accept",
        FLUSH,
        f"{FLUSH}; add rule inet ecluse k1_gate.care jump k1_at.open",
        f"{FLUSH}; add rule inet ecluse k1_gate.care accept",
        f"{FLUSH}; add rule inet ecluse k1_gate.care counter goto k1_at.open",
        f"{FLUSH}; add rule inet ecluse k1_gate.care ip saddr 192.0.2.1 goto k1_at.open",
    ],
)
async def test_a_chain_that_is_not_just_one_goto_has_no_target(firewall, rule):
    await firewall.apply(PROGRAM)
    nft(rule)
    assert await firewall.targets(["k1_gate.care"]) == {"k1_gate.care": None}


async def test_counters_and_refused_flows_are_read_in_both_families(firewall):
    await firewall.apply(PROGRAM)
    send_udp("10.10.0.5", "203.0.113.10", 9, times=3)
    send_udp("10.10.0.6", "203.0.113.10", 9)
    send_udp("2001:db8::5", "2001:db8::10", 9, times=2)
    counters = await firewall.counters()
    assert counters["refused_out"] == CounterValue(packets=6, bytes=4 * 29 + 2 * 49)
    assert counters["svc_lab"].packets == 6
    found, full, _ = await firewall.refused()
    flows = {(e.source, e.destination, e.protocol, e.port, e.packets, e.bytes) for e in found}
    assert flows == {
        ("10.10.0.5", "203.0.113.10", "udp", 9, 3, 87),
        ("10.10.0.6", "203.0.113.10", "udp", 9, 1, 29),
        ("2001:db8::5", "2001:db8::10", "udp", 9, 2, 98),
        ("10.10.0.5", "", "", 0, 3, 87),
        ("10.10.0.6", "", "", 0, 1, 29),
        ("2001:db8::5", "", "", 0, 2, 98),
    }
    assert not full
    assert {e.last for e in found} == {0}


async def test_idle_counts_from_the_last_packet(firewall):
    await firewall.apply(PROGRAM)
    send_udp("10.10.0.5", "203.0.113.10", 9)
    send_udp("10.10.0.6", "203.0.113.10", 9)
    await asyncio.sleep(1.3)
    send_udp("10.10.0.5", "203.0.113.10", 9)
    found, _, _ = await firewall.refused()
    assert {e.source: e.last for e in found if not e.destination} == {
        "10.10.0.5": 0,
        "10.10.0.6": 1,
    }


async def test_idle_of_an_element_with_a_time_out_of_its_own(firewall):
    await firewall.apply(PROGRAM)
    nft("add element inet ecluse refused_hosts4 { 192.0.2.9 timeout 10m expires 4m }")
    found, _, _ = await firewall.refused()
    assert [e.last for e in found] == [360]


async def test_a_full_set_says_so(firewall):
    await firewall.apply(PROGRAM)
    nft("add element inet ecluse refused_hosts6 { 2001:db8::1 }")
    assert (await firewall.refused())[1] is False
    nft("add element inet ecluse refused_hosts6 { 2001:db8::2 }")
    assert (await firewall.refused())[1] is True


@pytest.mark.parametrize(
    "kind", ["inet_service", "ipv6_addr", "ipv4_addr . inet_service", "ether_addr"]
)
async def test_a_set_of_another_kind_hides_no_row_of_the_others(firewall, kind):
    """RED before: one element whose key is no address made the whole list fail."""
    await firewall.apply(PROGRAM)
    send_udp("10.10.0.5", "203.0.113.10", 9)
    value = {
        "inet_service": "7",
        "ipv6_addr": "2001:db8::9",
        "ether_addr": "02:00:00:00:00:01",
    }.get(kind, "192.0.2.9 . 7")
    nft(f"add set inet ecluse dns_limited_4 {{ type {kind}; }}")
    nft(f"add element inet ecluse dns_limited_4 {{ {value} }}")
    nft("add set inet ecluse dns_limited_6 { type ipv6_addr; }")
    nft("add element inet ecluse dns_limited_6 { 2001:db8::9 }")
    limited = await firewall.limited()
    assert limited.unread == 1
    assert [one.source for one in limited.rows] == ["2001:db8::9"]
    found, _, unread = await firewall.refused()
    assert (len(found), unread) == (2, 0)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=80)), st.sampled_from([4, 16]), st.booleans())
def test_an_element_of_any_bytes_is_a_row_or_is_counted(rows, width, flow):
    """Of any bytes: KeyError, a length that leads nowhere, a key of another size."""
    key = bytes(2 * width + 8 if flow else width)
    sound = attribute(nf.NFTA_SET_ELEM_KEY | NLA_F_NESTED, attribute(nf.NFTA_DATA_VALUE, key))
    read = partial(read_table._refused_flow, width=width, flow=flow, set_timeout=1000)
    found, bad = parse_rows([*rows, sound], read)
    assert len(found) + bad == len(rows) + 1
    assert found[-1].source == str(ip_address(bytes(width)))


async def test_readings_beside_a_storm_of_switches_are_never_a_mix(firewall):
    await firewall.apply(PROGRAM)
    await firewall.apply(
        "add chain inet ecluse k1_gate.two; add rule inet ecluse k1_gate.two goto k1_at.open"
    )
    texts = [
        "".join(
            f"flush chain inet ecluse {gate}\nadd rule inet ecluse {gate} goto {level}\n"
            for gate in ("k1_gate.care", "k1_gate.two")
        )
        + f"add chain inet ecluse forward {{ policy {verdict}; }}\n"
        for level, verdict in (("k1_at.cut", "drop"), ("k1_at.open", "accept"))
    ]
    stop = asyncio.Event()

    async def storm():
        for text in itertools.cycle(texts):
            if stop.is_set():
                return
            await firewall.apply(text)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(storm())
    seen = set()
    for _ in range(300):
        read = await firewall.read_switch(["k1_gate.care", "k1_gate.two"])
        assert read.targets["k1_gate.care"] == read.targets["k1_gate.two"]
        seen.add((read.targets["k1_gate.care"], read.policies["forward"]))
        assert (await firewall.ruleset_generation()) >= read.generation
    stop.set()
    await task
    assert seen == {("k1_at.cut", "drop"), ("k1_at.open", "accept")}
    read = await firewall.read_switch(["k1_gate.care", "k1_nowhere"])
    assert read.generation == await firewall.ruleset_generation()
    assert read.targets == await firewall.targets(["k1_gate.care", "k1_nowhere"])
    assert read.policies == await firewall.policies()


def test_a_reading_with_a_transaction_in_it_is_a_mix(namespace):
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        assert read_table.in_one_generation(netlink, lambda: "whole") == "whole"
        with pytest.raises(DumpInterruptedError):
            read_table.in_one_generation(netlink, lambda: nft("add table ip other"))


async def test_where_the_base_chains_hang(firewall):
    assert (await firewall.read_switch([])).hooks == {}
    await firewall.apply(loaded())
    assert (await firewall.read_switch([])).hooks == switch.HOOKS
    nft(HANG_LATER)
    assert (await firewall.read_switch([])).hooks == {
        **switch.HOOKS,
        "forward": "filter forward 300",
    }
    nft(PUT_TO_SLEEP)
    assert (await firewall.read_switch([])).hooks == {}
