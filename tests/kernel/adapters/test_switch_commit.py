"""The switch by raw netlink: what its text would have done, whole or not at all, and libnftables
where it is refused.
"""

import asyncio
import subprocess
from dataclasses import replace

import pytest

from ecluse.controller.table.manager import TableManager
from ecluse.errors import KernelError
from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel import nft_firewall as adapter
from ecluse.kernel import read_table, switch_commit
from ecluse.kernel.fingerprint import is_switched
from ecluse.kernel.netlink import NETLINK_NETFILTER, NetlinkSocket
from ecluse.ruleset import switch, table_names
from ecluse.ruleset.compile import compile_program
from tests.golden.cases import HERE, compiled
from tests.kernel.adapters.conftest import nft
from tests.unit.controller.machine import CUT, OPEN, simple
from tests.unit.ruleset.policies import ZONES

pytestmark = pytest.mark.kernel

MIXED = {**CUT, "guests": "open", "gateway": "isolate", "admin": "reduced"}
POLICY, PROGRAM = compiled(HERE / "06-levels-zones-shared-interface")


def positions():
    yield from (
        switch.switch_state(simple(), 1, levels) for levels in (OPEN, CUT, MIXED, CUT, OPEN)
    )


def loaded():
    return switch.table_text(compile_program(simple(), {}, 1))


def listed():
    """Give what nft lists, and the very bytes of the rules that a switch makes."""
    done = subprocess.run(
        ["nft", "-s", "list", "table", "inet", "ecluse"], capture_output=True, text=True, check=True
    )
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        every = read_table.dump_ours(netlink, nf.NFT_MSG_GETRULE, nf.NFTA_RULE_TABLE)
        rules = sorted(
            (rule[nf.NFTA_RULE_CHAIN], rule[nf.NFTA_RULE_EXPRESSIONS])
            for rule in every
            if is_switched(read_table.text(rule[nf.NFTA_RULE_CHAIN]))
        )
    return done.stdout, rules


async def whole(firewall, position):
    return (
        *listed(),
        await firewall.targets(position.targets),
        await firewall.policies(),
        await firewall.fingerprint(),
    )


async def test_the_same_table_as_the_text_makes(firewall):
    await firewall.apply(loaded())
    seen = []
    for position in positions():
        await firewall.apply(position.text())
        by_text = await whole(firewall, position)
        for other in positions():  # whatever stood before
            await firewall.apply(other.text())
            before = await firewall.ruleset_generation()
            assert await firewall.switch(position) == ""
            assert await firewall.ruleset_generation() == before + 1
            assert await whole(firewall, position) == by_text
        seen.append(by_text)
        assert by_text[2] == position.targets
        assert by_text[3] == position.policies()
    assert seen[0] == seen[-1] != seen[1] == seen[3] != seen[2]


async def test_a_chain_with_other_rules_in_it_is_made_one_goto(firewall):
    await firewall.apply(loaded())
    cut = switch.switch_state(simple(), 1, CUT)
    await firewall.switch(cut)
    wanted = await whole(firewall, cut)
    gate = table_names.gate_chain(1, ZONES[0])
    await firewall.apply(
        f"insert rule inet ecluse {gate} accept\nadd rule inet ecluse {gate} drop\n"
        "flush chain inet ecluse input"
    )
    assert await whole(firewall, cut) != wanted
    await firewall.switch(cut)
    assert await whole(firewall, cut) == wanted


@pytest.mark.parametrize("lacking", ["a target", "a gate", "a base chain", "the table"])
async def test_a_refusal_changes_nothing_and_says_both_reasons(firewall, lacking):
    await firewall.apply(loaded())
    await firewall.switch(switch.switch_state(simple(), 1, OPEN))
    cut = switch.switch_state(simple(), 1, CUT)
    last = list(cut.targets)[-1]
    match lacking:
        case "a target":
            cut = replace(cut, targets={**cut.targets, last: "k9_nowhere"})
        case "a gate":
            cut = replace(cut, targets={**cut.targets, "k9_gate.nowhere": "k1_open"})
        case "a base chain":
            await firewall.apply("flush chain inet ecluse output\ndelete chain inet ecluse output")
        case "the table":
            await firewall.apply("delete table inet ecluse")
    before = (
        await firewall.fingerprint(),
        await firewall.targets(cut.targets),
        await firewall.policies(),
    )
    generation = await firewall.ruleset_generation()
    with pytest.raises(
        KernelError, match=r"the kernel refused the switch \(.+\); .*nothing was changed\n.+"
    ):
        await firewall.switch(cut)
    after = (
        await firewall.fingerprint(),
        await firewall.targets(cut.targets),
        await firewall.policies(),
    )
    assert after == before
    assert await firewall.ruleset_generation() == generation
    if lacking in {"a target", "a gate"}:
        assert (
            await firewall.switch(switch.switch_state(simple(), 1, CUT)) == ""
        )  # the socket is in order


async def test_what_is_refused_as_sent_goes_as_a_text_and_is_said(firewall, monkeypatch):
    await firewall.apply(loaded())
    cut = switch.switch_state(simple(), 1, CUT)
    right = switch_commit.switch_requests(cut)
    # The last message names a chain of no table: all before it are right, and must not stand by
    # themselves.
    wrong = [*right[:-1], (*right[-1][:2], right[-1][2].replace(b"ecluse\0", b"ecluss\0"))]
    monkeypatch.setattr(adapter.switch_commit, "switch_requests", lambda _position: wrong)
    assert "took it from libnftables" in await firewall.switch(cut)
    assert await firewall.targets(cut.targets) == cut.targets


@pytest.mark.parametrize("known", ["by port", "by thread"])
async def test_a_switch_is_known_as_ours_even_if_it_comes_first(
    firewall, namespace, monkeypatch, known
):
    if known == "by thread":
        monkeypatch.setattr(adapter, "netfilter_ports", frozenset)
    subprocess.run(["nft", "-f", "-"], input=loaded(), text=True, check=True)
    stream = firewall.changes()
    await firewall.switch(switch.switch_state(simple(), 1, CUT))
    change = await asyncio.wait_for(anext(stream), 5)
    assert (change.ours, change.touched, change.lost) == (True, True, False)


async def test_elements_and_texts_and_switches_take_their_turns(firewall):
    """One thread for all: a program that was just loaded as a text is switched to by raw netlink,
    and back.
    """
    await firewall.apply(switch.table_text(PROGRAM))
    cut, opened = (
        switch.switch_state(POLICY, 1, dict.fromkeys(POLICY.zone_names(), one))
        for one in ("cut", "open")
    )
    work = [
        step
        for number in range(20)
        for step in (
            firewall.switch(cut),
            firewall.apply(f"add chain inet ecluse k2_c{number}"),
            firewall.switch(opened),
            firewall.apply(f"delete chain inet ecluse k2_c{number}"),
        )
    ]
    assert set(await asyncio.gather(*work)) == {"", None}
    assert await firewall.targets(opened.targets) == opened.targets
    assert await firewall.policies() == opened.policies()


PUT_TO_SLEEP = "add table inet ecluse { flags dormant; }"
HANG_LATER = """
flush chain inet ecluse forward
delete chain inet ecluse forward
add chain inet ecluse forward { type filter hook forward priority 300; policy accept; }
add rule inet ecluse forward goto k1_forward
"""


@pytest.mark.parametrize("meddling", [PUT_TO_SLEEP, HANG_LATER])
async def test_a_switch_in_a_table_that_judges_nothing_is_not_taken_for_verified(
    firewall, meddling
):
    """Targets and policies are those of the level all the same: only a table that hangs on its
    hooks is one that acts.
    """
    gate = TableManager(firewall, dict, (0,), lambda _step: None, lambda _words: None)
    here = await gate.bring_up(simple(), "sha256:1", OPEN)
    nft(meddling.replace("k1_", f"k{here.slot}_"))
    await gate.switch(here, CUT)
    wanted = switch.switch_state(here.policy, here.slot, CUT)
    assert await firewall.targets(wanted.targets) == wanted.targets
    assert not await gate.shows(here, CUT)
    now, _, verified = await gate.close(here, CUT, lambda: None)
    assert verified
    assert (await firewall.read_switch([])).hooks == switch.HOOKS
    assert await gate.shows(now, CUT)
