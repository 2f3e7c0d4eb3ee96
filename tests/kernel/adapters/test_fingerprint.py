"""The digests of the table: each tampering changes one, no packet and no switch of ours does."""

import asyncio

import pytest

from tests.kernel.adapters.conftest import PROGRAM, nft, send_udp
from tests.kernel.adapters.test_bulk_elements import empty_table, every, only
from tests.kernel.adapters.test_nft_firewall import SWITCH

pytestmark = pytest.mark.kernel


TAMPERINGS = {
    "rule added": "add rule inet ecluse k1_at.cut accept",
    "rule inserted": "insert rule inet ecluse k1_forward accept",
    "rules deleted": "flush chain inet ecluse k1_refuse",
    "rules in another order": "flush chain inet ecluse k1_at.open; "
    "add rule inet ecluse k1_at.open accept; "
    "add rule inet ecluse k1_at.open udp dport 9 goto k1_refuse",
    "rule altered": "flush chain inet ecluse k1_at.open; "
    "add rule inet ecluse k1_at.open udp dport 10 goto k1_refuse; "
    "add rule inet ecluse k1_at.open accept",
    "rule commented": "flush chain inet ecluse k1_at.open; "
    "add rule inet ecluse k1_at.open udp dport 9 goto k1_refuse; "
    'add rule inet ecluse k1_at.open accept comment "mine"',
    "rule in a new base chain": "add chain inet ecluse late "
    " { type filter hook forward priority 100; }; "
    "add rule inet ecluse late accept",
    "element added to a map": "add element inet ecluse "
    'k1_hosts4 { 6 . 192.0.2.7 . 443 : "svc_lab" }',
    "element added to an interval map": "add element inet ecluse "
    'k1_nets4 { 6 . 192.0.2.0/28 . 443 : "svc_lab" }',
    "element deleted": "delete element inet ecluse k1_hosts4 { 6 . 203.0.113.10 . 443 }",
    "element points elsewhere": "delete element inet ecluse k1_hosts4 { 6 . 203.0.113.10 . 443 }; "
    'add element inet ecluse k1_hosts4 { 6 . 203.0.113.10 . 443 : "refused_out" }',
    "prefix widened": "delete element inet ecluse k1_nets4 { 6 . 198.51.100.0/24 . 443-450 }; "
    'add element inet ecluse k1_nets4 { 6 . 198.51.100.0/23 . 443-450 : "svc_lab" }',
    "interface added": "flush set inet ecluse k1_inside; "
    'add element inet ecluse k1_inside { "lan0", "vlan1*", "lan9" }',
    "verdict altered": 'delete element inet ecluse k1_from { "lan0" }; '
    'add element inet ecluse k1_from { "lan0" : goto k1_at.open }',
    "grant added": "add element inet ecluse k1_granted { 192.0.2.4 timeout 1h }",
    "grant lengthened": "delete element inet ecluse k1_granted { 203.0.113.77 }; "
    "add element inet ecluse k1_granted { 203.0.113.77 timeout 9h }",
    "priority altered": "delete rule inet ecluse forward handle {forward}; "
    "delete chain inet ecluse forward; "
    "add chain inet ecluse forward { type filter hook forward priority 10; policy accept; }; "
    "add rule inet ecluse forward goto k1_forward",
    "hook altered": "delete rule inet ecluse forward handle {forward}; "
    "delete chain inet ecluse forward; "
    "add chain inet ecluse forward "
    "{ type filter hook input priority filter - 10; policy accept; }; "
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


async def test_a_part_of_the_fingerprint_is_that_part(firewall):
    sets = every(10)
    await firewall.apply(empty_table(sets))
    await firewall.change_elements((), sets)
    whole = await firewall.fingerprint()
    assert await firewall.fingerprint(["k1_exact4", "k1_plain6"]) == {
        name: whole[name] for name in ("k1_exact4", "k1_plain6")
    }
    await firewall.change_elements([only(sets[0], list(sets[0].elements)[:1])], ())
    after = await firewall.fingerprint()
    assert {name for name in whole if whole[name] != after[name]} == {"k1_exact4"}


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
