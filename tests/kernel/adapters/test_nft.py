"""NftFirewall: whole-or-nothing transactions, and readings that tell what stands in the kernel."""

import asyncio
import itertools
import statistics
import time
from functools import partial
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.errors import KernelError, RulesetRejectedError
from ecluse.kernel import read_table
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    DumpInterruptedError,
    Netlink,
    attribute,
)
from ecluse.kernel.nft_firewall import shortened
from ecluse.lenient_rows import sift
from ecluse.ports import CounterValue
from tests.kernel.adapters.conftest import PROGRAM, nft, send_udp

pytestmark = pytest.mark.kernel

SWITCH = "flush chain inet ecluse k1_gate.care\nadd rule inet ecluse k1_gate.care goto k1_at.cut"


def elements(count):
    return ", ".join(
        f'6 . 198.{18 + i // 65536}.{i // 256 % 256}.{i % 256} . 443 : "svc_lab"'
        for i in range(count)
    )


async def test_check_says_yes_and_changes_nothing(firewall):
    await firewall.check(PROGRAM)
    before = await firewall.ruleset_generation()
    await firewall.check(PROGRAM)
    assert await firewall.ruleset_generation() == before
    assert await firewall.chains() == ()


async def test_check_rejects_in_libnftables_words_and_changes_nothing(firewall):
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint(), await firewall.ruleset_generation()
    with pytest.raises(
        RulesetRejectedError, match=r"nothing was changed\nline 2:.*No such file.*\n.*goto nowhere"
    ):
        await firewall.check(
            "add rule inet ecluse k1_forward accept\nadd rule inet ecluse k1_forward goto nowhere"
        )
    with pytest.raises(RulesetRejectedError, match="syntax error"):
        await firewall.check("add rule inet ecluse k1_forward accept please")
    assert (await firewall.fingerprint(), await firewall.ruleset_generation()) == before


async def test_check_after_a_rejection_and_apply_after_a_check_do_what_they_say(firewall):
    with pytest.raises(RulesetRejectedError):
        await firewall.check("nonsense")
    await firewall.check(PROGRAM)
    await firewall.apply(PROGRAM)
    assert "k1_forward" in await firewall.chains()


async def test_apply_is_whole_or_nothing(firewall):
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint()
    # The last line is right in itself and refused by the kernel only when it meets the map's other
    # element.
    clash = 'add element inet ecluse k1_nets4 { 6 . 198.51.100.128/25 . 440-445 : "svc_lab" }'
    with pytest.raises(KernelError, match="whole or not at all") as caught:
        await firewall.apply(f"add chain inet ecluse k2_new\n{SWITCH}\n{clash}")
    assert "line 4:" in caught.value.message
    assert "File exists" in caught.value.message
    assert "nft list" in caught.value.hint
    assert await firewall.fingerprint() == before
    assert await firewall.targets(["k1_gate.care"]) == {"k1_gate.care": "k1_at.open"}


@pytest.mark.parametrize("act", ["check", "apply"])
async def test_a_nul_byte_is_refused_and_not_the_end_of_the_text(firewall, act):
    with pytest.raises(KernelError, match="NUL"):
        await getattr(firewall, act)("add table inet ecluse\0; add rule inet ecluse nowhere accept")
    assert await firewall.objects() == {}


@pytest.mark.parametrize("act", ["check", "apply"])
async def test_text_that_is_no_unicode_is_refused_in_words(firewall, act):
    with pytest.raises(KernelError, match="UTF-8"):
        await getattr(firewall, act)("add table inet \udcff")


async def test_many_transactions_at_once_take_their_turns(firewall):
    await firewall.apply(PROGRAM)
    await asyncio.gather(*(firewall.apply(f"add chain inet ecluse k2_c{n}") for n in range(50)))
    assert sum(name.startswith("k2_c") for name in await firewall.chains()) == 50


async def test_no_table_reads_as_nothing(firewall):
    assert await firewall.chains() == ()
    assert await firewall.objects() == {}
    assert await firewall.fingerprint() == {}
    assert await firewall.counters() == {}
    assert await firewall.refused() == ((), False, 0)
    assert await firewall.targets(["forward"]) == {"forward": None}


async def test_tables_of_others_are_not_ours(firewall):
    nft(
        "table ip ecluse { chain forward { \n goto x\n } \n chain x { }\n }\ntable inet other { counter c { } \n set s { type ipv4_addr; }\n}"
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
        "flush chain inet ecluse k1_gate.care",
        "flush chain inet ecluse k1_gate.care; add rule inet ecluse k1_gate.care jump k1_at.open",
        "flush chain inet ecluse k1_gate.care; add rule inet ecluse k1_gate.care accept",
        "flush chain inet ecluse k1_gate.care; add rule inet ecluse k1_gate.care counter goto k1_at.open",
        "flush chain inet ecluse k1_gate.care; add rule inet ecluse k1_gate.care ip saddr 192.0.2.1 goto k1_at.open",
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
        ("10.10.0.5", "203.0.113.10", 17, 9, 3, 87),
        ("10.10.0.6", "203.0.113.10", 17, 9, 1, 29),
        ("2001:db8::5", "2001:db8::10", 17, 9, 2, 98),
        ("10.10.0.5", "", 0, 0, 3, 87),
        ("10.10.0.6", "", 0, 0, 1, 29),
        ("2001:db8::5", "", 0, 0, 2, 98),
    }
    assert not full
    assert {e.idle for e in found} == {0}


async def test_idle_counts_from_the_last_packet(firewall):
    await firewall.apply(PROGRAM)
    send_udp("10.10.0.5", "203.0.113.10", 9)
    send_udp("10.10.0.6", "203.0.113.10", 9)
    await asyncio.sleep(1.3)
    send_udp("10.10.0.5", "203.0.113.10", 9)
    found, _, _ = await firewall.refused()
    assert {e.source: e.idle for e in found if not e.destination} == {
        "10.10.0.5": 0,
        "10.10.0.6": 1,
    }


async def test_idle_of_an_element_with_a_time_out_of_its_own(firewall):
    await firewall.apply(PROGRAM)
    nft("add element inet ecluse refused_hosts4 { 192.0.2.9 timeout 10m expires 4m }")
    found, _, _ = await firewall.refused()
    assert [e.idle for e in found] == [360]


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
    """Whatever stands in an element: KeyError, a length that leads nowhere, a key of another size."""
    key = bytes(2 * width + 8 if flow else width)
    sound = attribute(read_table.ELEMENT_KEY | NLA_F_NESTED, attribute(read_table.DATA_VALUE, key))
    read = partial(read_table._refused_element, width=width, flow=flow, set_timeout=1000)
    found, bad = sift([*rows, sound], read)
    assert len(found) + bad == len(rows) + 1
    assert found[-1].source == str(ip_address(bytes(width)))


TAMPERINGS = {
    "rule added": "add rule inet ecluse k1_at.cut accept",
    "rule inserted": "insert rule inet ecluse k1_forward accept",
    "rules deleted": "flush chain inet ecluse k1_refuse",
    "rules in another order": "flush chain inet ecluse k1_at.open; add rule inet ecluse k1_at.open accept; "
    "add rule inet ecluse k1_at.open udp dport 9 goto k1_refuse",
    "rule altered": "flush chain inet ecluse k1_at.open; add rule inet ecluse k1_at.open udp dport 10 goto k1_refuse; "
    "add rule inet ecluse k1_at.open accept",
    "rule commented": "flush chain inet ecluse k1_at.open; add rule inet ecluse k1_at.open udp dport 9 goto k1_refuse; "
    'add rule inet ecluse k1_at.open accept comment "mine"',
    "rule in a new base chain": "add chain inet ecluse late { type filter hook forward priority 100; }; "
    "add rule inet ecluse late accept",
    "element added to a map": 'add element inet ecluse k1_hosts4 { 6 . 192.0.2.7 . 443 : "svc_lab" }',
    "element added to an interval map": 'add element inet ecluse k1_nets4 { 6 . 192.0.2.0/28 . 443 : "svc_lab" }',
    "element deleted": "delete element inet ecluse k1_hosts4 { 6 . 203.0.113.10 . 443 }",
    "element points elsewhere": "delete element inet ecluse k1_hosts4 { 6 . 203.0.113.10 . 443 }; "
    'add element inet ecluse k1_hosts4 { 6 . 203.0.113.10 . 443 : "refused_out" }',
    "prefix widened": "delete element inet ecluse k1_nets4 { 6 . 198.51.100.0/24 . 443-450 }; "
    'add element inet ecluse k1_nets4 { 6 . 198.51.100.0/23 . 443-450 : "svc_lab" }',
    "interface added": 'flush set inet ecluse k1_inside; add element inet ecluse k1_inside { "lan0", "vlan1*", "lan9" }',
    "verdict altered": 'delete element inet ecluse k1_from { "lan0" }; '
    'add element inet ecluse k1_from { "lan0" : goto k1_at.open }',
    "grant added": "add element inet ecluse k1_granted { 192.0.2.4 timeout 1h }",
    "grant lengthened": "delete element inet ecluse k1_granted { 203.0.113.77 }; "
    "add element inet ecluse k1_granted { 203.0.113.77 timeout 9h }",
    "priority altered": "delete rule inet ecluse forward handle {forward}; delete chain inet ecluse forward; "
    "add chain inet ecluse forward { type filter hook forward priority 10; policy accept; }; "
    "add rule inet ecluse forward goto k1_forward",
    "hook altered": "delete rule inet ecluse forward handle {forward}; delete chain inet ecluse forward; "
    "add chain inet ecluse forward { type filter hook input priority filter - 10; policy accept; }; "
    "add rule inet ecluse forward goto k1_forward",
    "chain added": "add chain inet ecluse mine",
    "chain deleted": "flush chain inet ecluse k1_at.cut; delete chain inet ecluse k1_at.cut",
    "set added": "add set inet ecluse mine { type ipv4_addr; }",
    "map added": "add map inet ecluse mine { type ipv4_addr : verdict; }",
    "set deleted": "delete set inet ecluse k1_granted",
    "counter added": "add counter inet ecluse mine",
    "quota added": "add quota inet ecluse mine 10 mbytes",
    "flags of the table": "add table inet ecluse { flags dormant; }",
    "table deleted": "delete table inet ecluse",
    "everything deleted": "flush ruleset",
}


@pytest.mark.parametrize("what", TAMPERINGS)
async def test_the_fingerprint_notices(firewall, what):
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint()
    nft(TAMPERINGS[what].replace("{forward}", str(_handle_of_the_rule_in("forward"))))
    assert await firewall.fingerprint() != before


def _handle_of_the_rule_in(chain):
    import re
    import subprocess

    listed = subprocess.run(
        ["nft", "-a", "list", "chain", "inet", "ecluse", chain],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return re.findall(r"handle (\d+)", listed)[-1]


async def test_no_two_tamperings_look_alike(firewall):
    seen = set()
    for text in TAMPERINGS.values():
        await firewall.apply("add table inet ecluse\ndelete table inet ecluse\n" + PROGRAM)
        nft(text.replace("{forward}", str(_handle_of_the_rule_in("forward"))))
        seen.add(tuple(sorted((await firewall.fingerprint()).items())))
    assert len(seen) == len(TAMPERINGS) - 1  # no table is no table


async def test_the_fingerprint_does_not_notice_packets(firewall):
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint()
    send_udp("10.10.0.5", "203.0.113.10", 9, times=5)
    send_udp("10.10.0.5", "203.0.113.10", 53, times=5)
    send_udp("2001:db8::5", "2001:db8::10", 9)
    await asyncio.sleep(0.02)  # the grant's time runs
    assert (await firewall.refused())[0]
    assert await firewall.fingerprint() == before


async def test_the_fingerprint_does_not_notice_our_switches(firewall):
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint()
    await firewall.apply(SWITCH)
    await firewall.apply(
        "flush chain inet ecluse forward\nadd rule inet ecluse forward goto k1_output"
    )
    assert await firewall.targets(["forward"]) == {"forward": "k1_output"}
    assert await firewall.fingerprint() == before


async def test_policies_are_read_by_themselves_and_are_not_in_the_fingerprint(firewall):
    assert await firewall.policies() == {}
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint()
    assert await firewall.policies() == {"forward": "accept", "output": "accept"}
    nft("add chain inet ecluse forward { policy drop; }")
    assert await firewall.policies() == {"forward": "drop", "output": "accept"}
    assert await firewall.fingerprint() == before


async def test_the_fingerprint_is_the_same_for_the_same_table_made_otherwise(firewall):
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint()
    pieces = ", ".join(f'6 . 192.0.2.{n} . 443 : "svc_lab"' for n in range(200))
    await firewall.apply(f"add element inet ecluse k1_hosts4 {{ {pieces} }}")
    filled = await firewall.fingerprint()
    await firewall.apply("flush map inet ecluse k1_hosts4")
    await firewall.apply('add element inet ecluse k1_hosts4 { 6 . 203.0.113.10 . 443 : "svc_lab" }')
    assert await firewall.fingerprint() == before
    for n in reversed(range(200)):
        await firewall.apply(
            f'add element inet ecluse k1_hosts4 {{ 6 . 192.0.2.{n} . 443 : "svc_lab" }}'
        )
    assert await firewall.fingerprint() == filled != before


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
        read = await firewall.standing(["k1_gate.care", "k1_gate.two"])
        assert read.targets["k1_gate.care"] == read.targets["k1_gate.two"]
        seen.add((read.targets["k1_gate.care"], read.policies["forward"]))
        assert (await firewall.ruleset_generation()) >= read.generation
    stop.set()
    await task
    assert seen == {("k1_at.cut", "drop"), ("k1_at.open", "accept")}
    read = await firewall.standing(["k1_gate.care", "k1_nowhere"])
    assert read.generation == await firewall.ruleset_generation()
    assert read.targets == await firewall.targets(["k1_gate.care", "k1_nowhere"])
    assert read.policies == await firewall.policies()


def test_a_reading_with_a_transaction_in_it_is_a_mix(namespace):
    with Netlink(NETLINK_NETFILTER) as netlink:
        assert read_table.in_one_generation(netlink, lambda: "whole") == "whole"
        with pytest.raises(DumpInterruptedError):
            read_table.in_one_generation(netlink, lambda: nft("add table ip other"))


async def test_targets_stay_fast_beside_a_large_map_and_a_long_transaction(firewall):
    await firewall.apply(PROGRAM)
    loading = asyncio.create_task(
        firewall.apply(f"add element inet ecluse k1_hosts4 {{ {elements(50_000)} }}")
    )
    await asyncio.sleep(0.05)
    await firewall.targets(["forward"])
    assert not loading.done()  # a reading does not wait for the transaction before it
    await loading
    asked = [*await firewall.chains(), *"abcd"]
    assert len(asked) == 12
    took = []
    for _ in range(100):
        began = time.perf_counter()
        await firewall.targets(asked)
        took.append(time.perf_counter() - began)
    assert statistics.median(took) < 0.002


async def test_the_context_is_opened_once_and_a_closed_firewall_leaves_the_kernel_alone(firewall):
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint()
    firewall.close()
    from ecluse.kernel.nft_firewall import NftFirewall

    second = NftFirewall()
    try:
        assert await second.fingerprint() == before
        assert await second.targets(["forward"]) == {"forward": "k1_forward"}
    finally:
        second.close()


async def test_without_libnftables_it_says_what_to_install(firewall, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "nftables", None)
    with pytest.raises(KernelError) as caught:
        await firewall.apply(PROGRAM)
    assert "python3-nftables" in caught.value.hint


def test_long_refusals_are_cut():
    told = shortened("\n".join(f"{n} {'x' * 150}" for n in range(50)))
    assert len(told) < 2100
    assert told.endswith("... and 30 more lines")
    assert shortened(" one\ntwo \n") == "one\ntwo"
