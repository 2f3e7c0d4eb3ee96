"""The flowtable's table: whatever takes something away ends it in the same transaction.

This kernel may have no flowtables: a table of that name stands for it, as it goes with all that it
holds (tests/vm/test_flowtable.py has the flows).
"""

import contextlib
import subprocess
from ipaddress import ip_address

import pytest

from ecluse.errors import KernelError
from ecluse.kernel import proxy_sets
from ecluse.kernel.netlink import NETLINK_NETFILTER, NetlinkSocket
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.flowtable import REMOVAL, TABLE, flowtable_text
from tests.golden.cases import HERE, compiled
from tests.kernel.adapters.conftest import nft
from tests.kernel.adapters.test_bulk_elements import empty_table, exact
from tests.lab.hosts import ROOT
from tests.unit.controller.machine import CUT, simple

pytestmark = pytest.mark.kernel

FLOWS = f"table {TABLE} {{\n\tchain forward {{\n\t\taccept\n\t}}\n}}\n"
PROXY_SET = "dns_svc_secure_mail_4"


def tables():
    return subprocess.run(
        ["nft", "list", "tables"], capture_output=True, text=True, check=True
    ).stdout


def stands():
    return f"table {TABLE}" in tables().splitlines()


def put(firewall):
    """Have a flowtable's table stand, as if the firewall had made it."""
    nft(FLOWS)
    firewall._flowtable.may_stand = True
    assert stands()


async def switch_to_cut(firewall):
    assert await firewall.switch(switch.switch_state(simple(), 1, CUT)) == ""


async def apply_a_text(firewall):
    await firewall.apply("add chain inet ecluse k9_new")


async def take_an_element(firewall):
    await firewall.change_elements((exact(1),), ())


async def end_it(firewall):
    await firewall.end_flowtable()


@pytest.mark.parametrize("act", [switch_to_cut, apply_a_text, take_an_element, end_it])
async def test_it_goes_in_the_same_transaction(firewall, act):
    if act is take_an_element:
        await firewall.apply(empty_table([exact(2)]))
        await firewall.change_elements((), (exact(2),))
    else:
        await firewall.apply(switch.table_text(compile_program(simple(), {}, 1)))
    assert not firewall.flowtable_may_stand
    put(firewall)
    before = await firewall.ruleset_generation()
    await act(firewall)
    assert not stands()
    assert not firewall.flowtable_may_stand
    assert await firewall.ruleset_generation() == before + 1


async def test_where_none_stands_nothing_fails_for_it(firewall):
    await firewall.apply(switch.table_text(compile_program(simple(), {}, 1)))
    for gone in (False, True):
        firewall._flowtable.may_stand = True  # somebody deleted it
        await switch_to_cut(firewall)
        assert not stands(), gone


async def test_an_element_that_comes_leaves_it(firewall):
    await firewall.apply(empty_table([exact(1)]))
    put(firewall)
    await firewall.change_elements((), (exact(1),))
    assert stands()


async def test_a_text_that_is_refused_leaves_it_and_what_is_known_of_it(firewall):
    put(firewall)
    with pytest.raises(KernelError):
        await firewall.apply("add rule inet ecluse nowhere accept")
    assert stands()
    assert firewall.flowtable_may_stand


async def test_the_guard_and_what_is_loaded_by_hand_end_it(firewall):
    put(firewall)
    assert firewall.apply_closed_table(["care0"])
    assert not stands()
    put(firewall)
    nft(switch.table_text(compile_program(simple(), {}, 1)))
    assert not stands()


async def test_an_address_that_the_dns_gate_takes_out_ends_it(firewall):
    _, program = compiled(HERE / "10-dns-gate")
    await firewall.apply(switch.table_text(program))
    put(firewall)
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        proxy_sets.add_elements(
            netlink, [proxy_sets.SetElement(PROXY_SET, ip_address("203.0.113.9"))]
        )
        assert stands()
        proxy_sets.delete_elements(netlink, PROXY_SET, [ip_address("203.0.113.9")])
    assert not stands()


@contextlib.contextmanager
def owned():
    """Have a process own a table of the flowtable's name: nobody else may delete it."""
    with subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, text=True) as owner:
        try:
            owner.stdin.write(f"add table {TABLE} {{ flags owner; }}\n")
            owner.stdin.flush()
            while not stands():
                assert owner.poll() is None
            refused = subprocess.run(["nft", "delete", "table", *TABLE.split()], check=False)
            assert refused.returncode
            yield
        finally:
            owner.stdin.close()


async def test_a_table_of_its_name_that_a_process_owns_refuses_no_closing(firewall):
    await firewall.apply(switch.table_text(compile_program(simple(), {}, 1)))
    position = switch.switch_state(simple(), 1, CUT)
    with owned():
        firewall._flowtable.may_stand = True
        assert "flows in a flowtable go on" in await firewall.switch(position)
        assert await firewall.targets(position.targets) == position.targets
        assert firewall.flowtable_may_stand
        with pytest.raises(KernelError, match="not permitted"):
            await firewall.end_flowtable()
        assert firewall.flowtable_may_stand


async def test_a_table_of_its_name_that_a_process_owns_refuses_neither_guard_nor_program(firewall):
    with owned():
        assert firewall.apply_closed_table(["care0"])
        assert set((await firewall.policies()).values()) == {"drop"}
        for may_stand in (False, True):
            firewall._flowtable.may_stand = may_stand
            await firewall.apply(switch.table_text(compile_program(simple(), {}, 1)))
            assert firewall.flowtable_may_stand
        assert "k1_open" in await firewall.chains()


async def test_a_table_of_its_name_that_a_process_owns_keeps_no_address(firewall):
    await firewall.apply(empty_table([exact(2)]))
    await firewall.change_elements((), (exact(2),))
    _, program = compiled(HERE / "10-dns-gate")
    with owned():
        firewall._flowtable.may_stand = True
        await firewall.change_elements((exact(1),), ())
        assert firewall.flowtable_may_stand
        await firewall.apply(switch.table_text(program))
        address = ip_address("203.0.113.9")
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            proxy_sets.add_elements(netlink, [proxy_sets.SetElement(PROXY_SET, address)])
            assert (await firewall.learned())[PROXY_SET]
            proxy_sets.delete_elements(netlink, PROXY_SET, [address])
            assert not (await firewall.learned())[PROXY_SET]


def gate_sh(question):
    """Ask packaging/scripts/gate.sh in this namespace."""
    return subprocess.run(
        ["dash", "-euc", f"{(ROOT / 'packaging/scripts/gate.sh').read_text()}\n{question}"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("by_whom", [contextlib.nullcontext, owned])
async def test_the_package_opens_with_a_table_of_its_name_whoever_owns_it(firewall, by_whom):
    with by_whom():
        for way in ("apply", "delete_table"):
            if way == "apply":
                firewall._flowtable.may_stand = False
                await firewall.apply(
                    switch.table_text(compile_program(simple(), {}, 1)).replace(REMOVAL, "")
                )
                assert await firewall.chains(), "positive control"
            else:
                done = gate_sh("delete_table")
                assert done.returncode == 0, done.stderr
                assert ("owns table" in done.stderr) == (by_whom is owned)
        assert "table inet ecluse\n" not in tables()


def test_the_package_that_leaves_a_cut_ends_it_and_knows_where_it_could_not():
    nft(FLOWS)
    assert gate_sh("end_flowtable").returncode == 0
    assert not stands()
    assert gate_sh("end_flowtable").returncode == 0, "none there"
    with owned():
        assert gate_sh("end_flowtable").returncode != 0
        assert stands()


async def test_a_kernel_that_has_none_says_so_and_what_stood_stands(firewall):
    put(firewall)
    with pytest.raises(KernelError, match=r"it has none \(modules nf_flow_table_inet"):
        await firewall.make_flowtable(["no-such-link"])
    assert stands()
    assert firewall.flowtable_may_stand
    assert '"no-such-link"' in flowtable_text(["no-such-link"])
