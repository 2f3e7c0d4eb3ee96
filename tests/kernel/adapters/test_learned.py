"""What the DNS gate learned, and nothing else, is in its sets: whoever fills or empties them, and
whatever process it was.
"""

import asyncio
import errno
import os
import re
import signal
import time
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ecluse.dnsproxy import learned as module
from ecluse.dnsproxy import learned_store, process
from ecluse.dnsproxy.learned import LearnedAddresses
from ecluse.dnsproxy.proxy_config import NamePolicy, ProxyConfig, proxy_config_of
from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel import proxy_sets
from ecluse.kernel.netlink import NETLINK_NETFILTER, NLM_F_CREATE, NetlinkSocket, attribute
from ecluse.kernel.proxy_sets import (
    SetElement,
    add_elements,
    delete_elements,
    seconds_left,
    set_contents,
)
from ecluse.ports import KernelChange
from ecluse.ruleset import switch
from tests.golden.cases import HERE, compiled
from tests.kernel.adapters.conftest import nft, run
from tests.system.disks import fill

pytestmark = pytest.mark.kernel

POLICY, PROGRAM = compiled(HERE / "10-dns-gate")
CUT = dict.fromkeys(POLICY.zone_names(), "cut")
SERVICE = "secure-mail"
SET, ALL = "dns_svc_secure_mail_4", "dns_all_4"
LED = "*.operator.example"
LEARNED, OTHER, STRANGE = map(ip_address, ("203.0.113.9", "203.0.113.10", "203.0.113.66"))


class World:
    """The kernel's sets, and the processes of the gate that come and go."""

    def __init__(self, netlink, directory):
        self.netlink = netlink
        self.state, self.run = directory / "state", directory / "run"
        self.state.mkdir()
        self.run.mkdir()
        self.last: LearnedAddresses | None = None

    def process(self) -> LearnedAddresses:
        """Begin a process of the gate; the one before was killed where it stood."""
        self.end()
        self.last = LearnedAddresses(self.state, self.run)
        self.last.reconcile()
        return self.last

    def end(self) -> None:
        if self.last is not None:
            self.last.close()

    def reboot(self) -> None:
        """Leave what a machine finds that was booted anew: the disk, and what the boot unit put
        back of it.
        """
        (self.run / learned_store.JOURNAL).unlink()
        file = self.state / learned_store.SNAPSHOT
        file.write_text(file.read_text().replace(learned_store.boot_id(), "another"))
        for name in (SET, ALL):
            nft(f"flush set inet ecluse {name}")
        nft(file.read_text())

    def held(self, name: str = SET) -> set:
        return set(seconds_left(self.netlink, name))

    def strange(self, name: str = SET, element: str = str(STRANGE)) -> None:
        nft(f"add element inet ecluse {name} {{ {element} }}")


@pytest.fixture
async def world(firewall, tmp_path):
    await firewall.apply(switch.table_text(PROGRAM))
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        made = World(netlink, tmp_path)
        yield made
        made.end()


def later(monkeypatch, seconds: float) -> None:
    """Have time go by for the gate's process, and not for the kernel."""
    true = learned_store.clock
    for where in (module, learned_store):
        monkeypatch.setattr(where, "clock", lambda: true() + seconds)


def test_what_somebody_else_put_in_is_taken_out_and_what_was_learned_stays(world):
    gate = world.process()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    world.strange()
    world.strange(ALL)
    world.strange("dns_all_6", "2001:db8::66")
    gate.save()
    assert (world.held(), world.held(ALL), world.held("dns_all_6")) == ({LEARNED}, {LEARNED}, set())
    assert gate.removed == 3
    assert gate.last.endswith(("66 in dns_svc_secure_mail_4", "66 in dns_all_4", "66 in dns_all_6"))
    assert str(STRANGE) not in (world.state / learned_store.SNAPSHOT).read_text()


def test_an_element_for_every_address_goes_whatever_else_is_known(world):
    world.strange(element="*")
    assert set_contents(world.netlink, SET) == ({}, True)
    gate = world.process()
    assert set_contents(world.netlink, SET) == ({}, False)
    assert (gate.removed, gate.last) == (1, f"* in {SET}")


async def test_the_kernels_word_brings_a_look_at_once_and_our_own_does_not(world):
    gate = world.process()
    changes = gate.changes()
    try:
        gate.add_addresses([SERVICE], [LEARNED], LED)
        world.strange()
        async with asyncio.timeout(5):
            assert [gate.is_relevant(await anext(changes)) for _ in range(2)] == [False, True]
        gate.reconcile()
        assert world.held() == {LEARNED}
        async with asyncio.timeout(5):
            assert not gate.is_relevant(await anext(changes)), "what it takes out itself"
    finally:
        changes.close()


def test_there_is_one_process_at_a_time(world, capfd, monkeypatch):
    """A second one would take what the first learns for a stranger's."""
    monkeypatch.setattr(process, "_drop_ambient_capabilities", lambda: None)
    held = process._lock_directory(world.run)
    try:
        where = [
            "--orders",
            str(world.run / "orders"),
            "--run-dir",
            str(world.run),
            "--state-dir",
            str(world.state),
        ]
        assert process.main(where) == 1
        assert "another process of the DNS gate is at work here" in capfd.readouterr().err
    finally:
        os.close(held)
    os.close(process._lock_directory(world.run))
    assert process._lock_directory(world.run / "missing") == -1


async def test_orders_that_cannot_be_kept_on_disk_are_followed_all_the_same(world):
    orders = world.run / "orders.json"
    orders.touch()
    gate = process.DnsProxyProcess(orders, world.run, world.state)
    world.state.rmdir()
    await gate._follow_config()
    assert (gate._trouble["orders"], gate._seen is None) == ("", False)
    assert "could not be kept for the next boot: No such file" in gate._trouble["last"]
    world.state.mkdir()
    gate._save()
    assert (gate._trouble["last"], (world.state / process.LAST).exists()) == ("", True)
    gate._learned.close()


def test_an_address_is_in_the_record_before_it_is_in_the_kernel(world, monkeypatch):
    gate = world.process()
    recorded = []

    def look_and_put(netlink, wanted):
        recorded.append((world.run / learned_store.JOURNAL).read_text())
        add_elements(netlink, wanted)

    monkeypatch.setattr(module, "add_elements", look_and_put)
    gate.add_addresses([SERVICE], [LEARNED], LED)
    assert f"{SET} {LEARNED} " in recorded[0]


def test_sets_that_others_change_all_the_time_cost_a_look_now_and_then(world, monkeypatch):
    gate = world.process()
    looks = []
    monkeypatch.setattr(
        module, "set_contents", lambda *where: looks.append(where[1]) or set_contents(*where)
    )
    for _ in range(50):
        gate.is_relevant(KernelChange("nft", 1, ours=False, touched=False, what="", filled=SET))
        gate.reconcile()
    assert 1 <= looks.count(SET) <= 2
    assert gate.seconds_until_due() <= 1, "it is read again when the pause is over"
    later(monkeypatch, 5)
    world.strange()
    gate.reconcile()
    assert world.held() == set(), "what came in between was not forgotten"
    later(monkeypatch, 10)
    looks.clear()
    gate.reconcile()
    assert not looks, "nobody changed anything"


async def test_what_was_learned_is_back_as_soon_as_the_table_is(world, firewall, monkeypatch):
    """By the kernel's word: the regular look comes in an hour here."""
    monkeypatch.setattr(process, "_CHECK", 3600.0)
    monkeypatch.setattr(module, "_PAUSE", 1.0)
    gate = process.DnsProxyProcess(world.run / "orders.json", world.run, world.state)
    running = asyncio.create_task(gate.run())
    try:
        await asyncio.sleep(0.1)
        gate._learned.add_addresses([SERVICE], [LEARNED], LED)
        for _ in range(3):
            nft("flush ruleset")
            await firewall.apply(switch.table_text(PROGRAM))
            async with asyncio.timeout(10):
                while LEARNED not in world.held():
                    await asyncio.sleep(0.01)
        for _ in range(2):  # the second comes in the pause after the reading for the first
            world.strange()
            async with asyncio.timeout(10):
                while world.held() != {LEARNED}:
                    await asyncio.sleep(0.01)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await running


def test_a_killed_process_is_followed_by_one_that_knows_what_it_learned(world):
    gate = world.process()
    gate.save()
    gate.add_addresses([SERVICE], [LEARNED], LED)  # and is killed: nothing is saved
    world.strange()
    after = world.process()
    assert world.held() == {LEARNED}
    assert after.removed == 1
    # And once more, by what that one wrote anew.
    after.add_addresses([SERVICE], [OTHER], LED)
    nft(f"flush set inet ecluse {SET}")
    world.process()
    assert world.held() == {LEARNED, OTHER}
    assert seconds_left(world.netlink, SET)[LEARNED] > 3500


def test_an_address_that_packets_kept_alive_is_known_after_its_time(world, monkeypatch):
    gate = world.process()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    gate.save()
    later(monkeypatch, 3 * 86400)  # nobody ran the gate for three days, and a kept flow went on
    after = world.process()
    after.save()
    assert world.held() == {LEARNED}
    assert after.removed == 0


def test_an_address_that_is_over_is_forgotten_after_a_while_and_then_a_stranger(world, monkeypatch):
    gate = world.process()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    nft(
        f"delete element inet ecluse {SET} {{ {LEARNED} }};"
        f" delete element inet ecluse {ALL} {{ {LEARNED} }}"
    )
    later(monkeypatch, 3601)
    gate.save()
    add_elements(
        world.netlink, [SetElement(SET, LEARNED)]
    )  # a packet that came in the moment of its end
    gate.save()
    assert world.held() == {LEARNED}
    nft(f"delete element inet ecluse {SET} {{ {LEARNED} }}")
    later(monkeypatch, 3601 + 3600 + 200)
    gate.save()
    add_elements(world.netlink, [SetElement(SET, LEARNED)])
    gate.save()
    assert world.held() == set()


@pytest.mark.parametrize(
    "text", [f"flush set inet ecluse {SET}", f"delete element inet ecluse {SET} {{ {LEARNED} }}"]
)
def test_what_somebody_else_took_out_is_put_back(world, text):
    gate = world.process()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    nft(text)
    gate.save()
    assert seconds_left(world.netlink, SET)[LEARNED] > 3500


def test_a_learned_address_that_was_given_a_year_has_an_hour(world):
    gate = world.process()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    nft(
        f"delete element inet ecluse {SET} {{ {LEARNED} }};"
        f" add element inet ecluse {SET} {{ {LEARNED} timeout 365d }}"
    )
    gate.save()
    assert 3500 < seconds_left(world.netlink, SET)[LEARNED] <= 3600
    # Nor for ever: nft has no words for it, the kernel does.
    nft(f"delete element inet ecluse {SET} {{ {LEARNED} }}")
    timeless = attribute(nf.NFTA_SET_ELEM_TIMEOUT, bytes(8))
    add = proxy_sets._request(
        nf.NFT_MSG_NEWSETELEM, NLM_F_CREATE, SET, proxy_sets._key(LEARNED) + timeless
    )
    world.netlink.transaction(nf.NFNL_SUBSYS_NFTABLES, [add])
    assert seconds_left(world.netlink, SET)[LEARNED] == proxy_sets.ENDLESS
    gate.save()
    assert 3500 < seconds_left(world.netlink, SET)[LEARNED] <= 3600
    # Less is the kernel's word: it is not prolonged.
    add_elements(world.netlink, [SetElement(SET, LEARNED, 30)])
    gate.save()
    told = re.findall(
        r"(dns_\w+) \{ \S+ expires (\d+)s", (world.state / learned_store.SNAPSHOT).read_text()
    )
    assert {name: int(seconds) <= 30 for name, seconds in told} == {SET: True, ALL: False}


@pytest.mark.parametrize("damage", ["gone", "empty", "a line in the middle"])
def test_a_lost_record_takes_what_is_there_for_its_own_and_says_so(world, damage):
    gate = world.process()
    gate.save()
    gate.add_addresses([SERVICE], [LEARNED, OTHER], LED)
    file = world.run / learned_store.JOURNAL
    if damage == "gone":
        file.unlink()
    else:
        lines = file.read_text().splitlines()
        file.write_text("" if damage == "empty" else "\n".join([lines[0], "x y", *lines[3:], ""]))
    after = world.process()
    assert world.held() == {LEARNED, OTHER}
    assert after.adopted > 0
    # From then on there is a record again.
    world.strange()
    after = world.process()
    assert (world.held(), after.adopted) == ({LEARNED, OTHER}, 0)


def test_a_torn_last_line_is_of_an_address_that_never_was_in_the_kernel(world):
    world.process().add_addresses([SERVICE], [LEARNED], LED)
    file = world.run / learned_store.JOURNAL
    with file.open("a") as whole:
        whole.write(f"{SET} {STRANGE} 99999")
    world.strange()
    after = world.process()
    assert (world.held(), after.adopted) == ({LEARNED}, 0)


def test_nobody_is_taken_for_a_stranger_while_the_record_cannot_be_written(world):
    run("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(world.run))
    try:
        gate = world.process()
        gate.save()
        fill(world.run)
        many = [ip_address(f"203.0.113.{number}") for number in range(100, 200)]
        gate.add_addresses(
            [SERVICE], many, LED
        )  # more than what is left of the file's last page: written by half
        world.strange()
        gate.save()
        assert world.held() == {STRANGE, *many}
        assert "No space left" in gate.trouble
        after = world.process()
        assert world.held() == {STRANGE, *many}, (
            "one that comes after it knows that it does not know"
        )
        assert after.adopted > 0
        (world.run / "ballast").unlink()
        after.save()
        assert not after.trouble
        world.strange(element="203.0.113.67")
        after.save()
        assert world.held() == {STRANGE, *many}
    finally:
        world.end()
        run("umount", "-l", str(world.run))


def test_the_first_process_since_the_machine_started_has_nobody_to_take_for_its_own(world):
    gate = world.process()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    gate.save()
    gate.add_addresses([SERVICE], [STRANGE], LED)
    lines = (world.run / learned_store.JOURNAL).read_text()
    (world.run / learned_store.JOURNAL).write_text(
        lines.replace(learned_store.boot_id(), "another")
    )
    file = world.state / learned_store.SNAPSHOT
    file.write_text(file.read_text().replace(learned_store.boot_id(), "another"))
    nft(f"flush set inet ecluse {SET}")
    world.strange()
    after = world.process()
    assert (world.held(), after.removed, after.adopted) == ({LEARNED}, 2, 0)


def test_what_the_boot_unit_put_back_is_no_strangers(world, monkeypatch):
    """Not even where the date says that its time was over while the machine was down."""
    gate = world.process()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    gate.save()
    world.reboot()
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + 86400)
    after = world.process()
    after.save()
    assert (world.held(), after.removed) == ({LEARNED}, 0)


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
def test_whoever_sets_the_date_changes_nothing(world, monkeypatch, days):
    gate = world.process()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + days * 86400)
    for name in (SET, ALL):
        nft(f"flush set inet ecluse {name}")
    gate.add_addresses([SERVICE], [OTHER], LED)
    gate.save()
    assert min(seconds_left(world.netlink, SET)[one] for one in (LEARNED, OTHER)) > 3500
    nft(f"flush set inet ecluse {SET}")
    (world.run / learned_store.JOURNAL).unlink()
    world.process()
    assert world.held() == {LEARNED, OTHER}
    assert max(seconds_left(world.netlink, SET).values()) <= 3600


def test_no_line_of_the_record_gives_more_than_an_hour(world):
    world.process().add_addresses([SERVICE], [LEARNED], LED)
    file = world.run / learned_store.JOURNAL
    file.write_text(
        "".join(
            f"{line.rpartition(' ')[0]} {10**12}\n" if "dns" in line else f"{line}\n"
            for line in file.read_text().splitlines()
        )
    )
    nft(f"flush set inet ecluse {SET}")
    world.process()
    assert 3500 < seconds_left(world.netlink, SET)[LEARNED] <= 3600


def test_a_set_that_cannot_be_set_right_keeps_none_of_the_others_from_it(world, monkeypatch):
    gate = world.process()

    def refused(netlink, name, elements):
        if name == ALL:
            raise OSError(errno.ENOMEM, "refused")
        delete_elements(netlink, name, elements)

    world.strange(ALL)
    world.strange()
    with monkeypatch.context() as broken:
        broken.setattr(module, "delete_elements", refused)
        gate._all_touched = True
        with pytest.raises(OSError, match="refused"):
            gate.reconcile()
    assert (world.held(), world.held(ALL)) == (set(), {STRANGE})
    later(monkeypatch, 5)
    gate.reconcile()
    assert world.held(ALL) == set(), "it is tried again"


def test_the_record_does_not_grow_for_ever(world, monkeypatch):
    monkeypatch.setattr(learned_store, "GROWTH", 2000)
    gate = world.process()
    for number in range(1, 200):
        with pytest.MonkeyPatch.context() as full:
            full.setattr(
                gate, "_put", lambda _: (_ for _ in ()).throw(OSError(errno.ENFILE, "full"))
            )
            with pytest.raises(OSError, match="full"):
                gate.add_addresses([SERVICE], [ip_address(f"203.0.113.{number}")], LED)
    assert (world.run / learned_store.JOURNAL).stat().st_size < 2600


def test_a_set_of_another_kind_in_our_sets_place_breaks_nothing(world):
    gate = world.process()
    nft(
        "add set inet ecluse dns_svc_odd_4 { type ipv4_addr . inet_service;"
        " elements = { 203.0.113.66 . 443 } }"
    )
    gate.add_addresses([SERVICE], [LEARNED], LED)
    gate.save()
    assert world.held() == {LEARNED}


def test_where_the_kernel_gives_no_word_nothing_counts_as_open(world, monkeypatch):
    gate = world.process()
    told = [lambda *_: {"forward": "k1_open"}, lambda *_: {"forward": None}]
    for answer, opened in zip(told, (True, False), strict=True):
        monkeypatch.setattr(module.read_table, "goto_targets", answer)
        assert gate.is_open() is opened

    def busy(*_):
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(module.read_table, "goto_targets", busy)
    assert gate.is_open() is False
    monkeypatch.undo()
    gate.add_addresses([SERVICE], [LEARNED], LED)
    assert LEARNED in world.held()


def orders(*, names=(), wildcards=("operator.example",), more=()) -> ProxyConfig:
    """A configuration: the service has these names and wildcards, another one those of `more`."""
    of = NamePolicy((SERVICE,), ())
    other = dict.fromkeys(more, NamePolicy(("other",), ()))
    return replace(
        proxy_config_of(POLICY, CUT),
        names=dict.fromkeys(names, of) | other,
        wildcards=dict.fromkeys(wildcards, of),
    )


def taught(gate) -> None:
    gate.apply_config(orders(names=["mail.example"]))
    gate.add_addresses([SERVICE], [LEARNED], LED)
    gate.add_addresses([SERVICE], [OTHER], "mail.example")
    gate.add_addresses([SERVICE], [SHARED], LED)
    gate.add_addresses([SERVICE], [SHARED], "mail.example")
    gate.reconcile()


SHARED = ip_address("203.0.113.11")


@pytest.mark.parametrize("after", ["at once", "saved", "killed", "rebooted"])
def test_where_a_service_loses_a_name_what_it_alone_led_to_goes(world, after):
    """Whatever process it was that learned it; nothing else goes, and nobody is said to have been a
    stranger.
    """
    gate = world.process()
    taught(gate)
    if after in {"saved", "rebooted"}:
        gate.save()
    if after == "rebooted":
        world.reboot()
    if after in {"killed", "rebooted"}:
        gate = world.process()
    gate.apply_config(orders(names=["mail.example"]))
    gate.reconcile()
    assert world.held() == {LEARNED, OTHER, SHARED}, "the names are the same"
    gate.apply_config(orders(names=["mail.example"], wildcards=(), more=["else.example"]))
    gate.reconcile()
    for _ in range(2):
        assert world.held() == {OTHER, SHARED}
        assert set(seconds_left(world.netlink, ALL)) == {OTHER, SHARED}
        gate.save()
    assert gate.removed == 0
    gate.add_addresses([SERVICE], [LEARNED], LED)
    assert world.held() == {OTHER, SHARED}, "a question that was under way teaches nothing any more"
    # A service that is not kept at this level is left alone, and so is a wildcard that another
    # stands above.
    gate.apply_config(orders(names=(), wildcards=(), more=["else.example"]))
    gate.reconcile()
    assert world.held() == {OTHER, SHARED}
    gate.apply_config(orders(wildcards=("example",)))
    gate.reconcile()
    assert world.held() == {OTHER, SHARED}


@pytest.mark.parametrize("refuses", [SET, ALL])
def test_what_the_kernel_would_not_let_go_goes_at_the_next_look(world, monkeypatch, refuses):
    gate = world.process()
    taught(gate)
    gate.apply_config(orders(names=["mail.example"], wildcards=()))

    def refused(netlink, name, elements):
        if name == refuses:
            raise OSError(errno.EBUSY, "Device or resource busy")
        delete_elements(netlink, name, elements)

    monkeypatch.setattr(module, "delete_elements", refused)
    with pytest.raises(OSError, match="busy"):
        gate.reconcile()
    monkeypatch.undo()
    gate.reconcile()
    assert world.held() == set(seconds_left(world.netlink, ALL)) == {OTHER, SHARED}
