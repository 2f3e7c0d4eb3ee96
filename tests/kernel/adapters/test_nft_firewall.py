"""NftFirewall: whole-or-nothing transactions, and readings that tell what stands in the kernel."""

import asyncio
import statistics
import time

import pytest

from ecluse.config import load_policy
from ecluse.errors import KernelError, RulesetRejectedError
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from tests import extremes
from tests.kernel.adapters.conftest import PROGRAM

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


def named(length):
    chain = "k" * length
    return f"table inet ecluse {{ chain {chain} {{\n }}\n chain from {{\n goto {chain}\n }}\n }}"


async def test_a_name_of_255_is_taken_and_one_of_256_is_refused(firewall):
    await firewall.check(named(255))
    await firewall.apply(named(255))
    for length in (256, 303, 70_000):
        with pytest.raises(RulesetRejectedError, match="more than 255"):
            await firewall.check(named(length))
        with pytest.raises(KernelError, match="more than 255"):
            await firewall.apply(named(length))
    assert await firewall.chains() == ("from", "k" * 255)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", extremes.SITES)
async def test_the_largest_legal_sites_are_loaded_and_cut(firewall, tmp_path, name):
    policy = load_policy(extremes.write(tmp_path / "conf", extremes.SITES[name]()))
    program = compile_program(policy, {}, 1)
    text = switch.table_text(program)
    await firewall.check(text)
    await firewall.apply(text)
    for level in ("cut", extremes.LEVELS[0], "isolate", "open"):
        levels = dict.fromkeys(policy.zone_names(), level)
        await firewall.switch(switch.switch_state(policy, 1, levels))
        targets = switch.switch_targets(policy, 1, levels)
        assert await firewall.targets(targets) == targets
