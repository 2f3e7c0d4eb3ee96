"""The DNS gate's part of the table: sets that lose nothing when a program is loaded, and whose
filling is no touch.
"""

import asyncio
import hashlib
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel import proxy_sets as module
from ecluse.kernel.netlink import NETLINK_NETFILTER, NetlinkSocket
from ecluse.kernel.proxy_sets import (
    SetElement,
    add_elements,
    learned_addresses,
    seconds_left,
    set_handles,
)
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
    await firewall.apply(switch.table_text(PROGRAM))
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        yield firewall, netlink


async def test_each_time_it_is_put_in_an_address_has_its_whole_hour(table):
    _, netlink = table
    add_elements(netlink, [SetElement(SET, ADDRESS, 30), SetElement("dns_all_6", SIX)])
    assert 25 <= seconds_left(netlink, SET)[ADDRESS] <= 30
    assert learned_addresses(netlink)["dns_all_6"] == {int(SIX)}
    add_elements(netlink, [SetElement(SET, ADDRESS)])
    assert seconds_left(netlink, SET)[ADDRESS] >= 3590


class Watched(NetlinkSocket):
    """A socket that keeps what kinds of messages its transactions had."""

    def transaction(self, subsystem, requests):
        self.sent = [kind & 0xFF for kind, _, _ in requests]
        super().transaction(subsystem, requests)


@pytest.mark.parametrize("seconds", [30, 1700, None])
@pytest.mark.parametrize(
    "renews", [True, False], ids=["an add renews", "an add keeps the old time"]
)
async def test_a_key_that_packets_may_need_is_never_deleted(table, monkeypatch, seconds, renews):
    """How a kernel of before 6.12 does it is told by tests/vm/test_learned.py, on one."""
    monkeypatch.setattr(module, "ADD_RENEWS", renews)
    with Watched(NETLINK_NETFILTER) as netlink:
        add_elements(netlink, [SetElement(SET, ADDRESS, seconds)])
        for _ in range(2):
            add_elements(netlink, [SetElement(SET, ADDRESS), SetElement("dns_all_6", SIX)])
            assert netlink.sent == [nf.NFT_MSG_NEWSETELEM, nf.NFT_MSG_NEWSETELEM]
            assert seconds_left(netlink, SET)[ADDRESS] >= 3590


@pytest.mark.parametrize(
    ("release", "renews"),
    [
        ("6.1.0-41-cloud-amd64", False),
        ("6.11.9", False),
        ("6.12.57+deb13-amd64", True),
        ("7.0.0", True),
    ],
)
def test_which_kernels_renew(release, renews):
    assert module._add_renews(release) == renews


async def test_whole_or_not_at_all(table):
    _, netlink = table
    with pytest.raises(FileNotFoundError):
        add_elements(netlink, [SetElement(SET, ADDRESS), SetElement("dns_svc_nobody_4", ADDRESS)])
    with NetlinkSocket(NETLINK_NETFILTER) as fresh:
        assert ADDRESS not in seconds_left(fresh, SET)


async def test_a_load_a_switch_and_a_removal_lose_nothing(table):
    firewall, netlink = table
    add_elements(netlink, [SetElement(SET, ADDRESS)])
    before = set_handles(netlink)
    _, other = compiled(CASE, 2)
    await firewall.apply(switch.load_text(other))
    for levels in (CUT, OPEN, CUT):
        position = switch.switch_state(POLICY, 2, levels)
        assert await firewall.switch(position) == ""
        assert await firewall.targets(position.targets) == position.targets
    await firewall.apply(
        switch.removal_text(await firewall.objects(), [2], other.counters, other.learned)
    )
    assert set_handles(netlink) == before
    assert (await firewall.learned())[SET] == {int(ADDRESS)}


async def test_filling_is_no_touch_and_is_told(table):
    firewall, netlink = table
    digests = await firewall.fingerprint()
    changes = firewall.changes()
    add_elements(netlink, [SetElement(SET, ADDRESS)])
    subprocess.run(["nft", "flush set inet ecluse dns_svc_secure_mail_4"], check=True)
    subprocess.run(
        ["nft", "add element inet ecluse k1_resolvers4 { 192.0.2.54 . 53 . 17 }"], check=True
    )
    async with asyncio.timeout(5):
        first, emptied, second = [await anext(changes) for _ in range(3)]
    assert (first.touched, first.filled) == (False, SET)
    assert (emptied.touched, emptied.filled) == (False, SET)
    assert second.touched
    assert not second.filled
    assert {
        name for name, one in (await firewall.fingerprint()).items() if one != digests[name]
    } == {"k1_resolvers4"}


async def test_what_is_in_use_has_its_whole_hour_again_and_nothing_else_comes_in(table):
    firewall, netlink = table
    young, idle, strange = (
        ip_address("203.0.113.10"),
        ip_address("203.0.113.11"),
        ip_address("203.0.113.12"),
    )
    add_elements(
        netlink,
        [SetElement(SET, ADDRESS, 900), SetElement(SET, young, 3000), SetElement(SET, idle, 900)],
    )
    used = {SET: frozenset({ADDRESS, young, strange}), "dns_all_6": frozenset({SIX})}
    old = await firewall.half_expired(used)
    assert old == {SET: {ADDRESS}}
    await firewall.renew_learned(old)
    found = seconds_left(netlink, SET)
    assert found[ADDRESS] >= 3590
    assert found[young] <= 3000, "still young: no transaction for it"
    assert found[idle] <= 900
    assert strange not in found
    assert not seconds_left(netlink, "dns_all_6")


async def test_at_boot_what_was_learned_is_back_and_no_file_of_the_gates_holds_the_machine_up(
    firewall, tmp_path
):
    """systemd/boot.sh itself, with less patience: its file is another user's, who may write
    anything into it.
    """
    script = tmp_path / "boot.sh"
    text = (Path(__file__).parents[3] / "systemd" / "boot.sh").read_text()
    assert text.count("patience=60") == text.count("/dev/kmsg") == 1
    script.write_text(text.replace("patience=60", "patience=2").replace("/dev/kmsg", "/dev/null"))
    table = switch.table_text(PROGRAM) + switch.switch_text(POLICY, PROGRAM.slot, CUT)
    digest = hashlib.sha256(table.encode()).hexdigest()
    (tmp_path / "boot.nft").write_text(f"{table}# sha256: {digest}\n")
    line = "add element inet ecluse {} {{ 203.0.113.9 expires 1800s }}\n".format
    (tmp_path / "learned.nft").write_text(
        line("dns_all_4") + "".join(line(f"dns_svc_{n:x}_4") for n in range(50_000))
    )
    where = {
        "PATH": "/usr/bin",
        "ECLUSE_STATE_DIR": str(tmp_path),
        "ECLUSE_DNS_STATE_DIR": str(tmp_path),
    }
    began = time.monotonic()
    done = await asyncio.to_thread(
        subprocess.run,
        ["/bin/sh", script],
        env=where,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert time.monotonic() - began < 10
    assert "not all that the DNS gate had learned was taken within 2 s" in done.stderr
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        assert 1700 < seconds_left(netlink, "dns_all_4")[ADDRESS] <= 1800
    assert (await firewall.targets(["forward"]))["forward"] == "k1_forward"
