"""The change events: who changed what, and never a silent gap."""

import asyncio
import os
import socket
import threading
import time

import pytest

from ecluse.kernel import nft_firewall as adapter
from tests.kernel.adapters.conftest import PROGRAM, Heart, nft

pytestmark = pytest.mark.kernel


async def after(stream):
    return await asyncio.wait_for(anext(stream), 10)


async def nothing_more(stream):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(stream), 0.05)


async def test_our_own_transactions_are_ours(firewall):
    stream = firewall.changes()
    await firewall.apply(PROGRAM)
    change = await after(stream)
    assert (change.ours, change.touched, change.lost) == (True, True, False)
    assert "table added" in change.what
    await firewall.check(PROGRAM)  # a dry run is no transaction
    await nothing_more(stream)


@pytest.mark.parametrize("known", ["by port", "by thread"])
async def test_a_foreign_flush_names_the_culprit(firewall, monkeypatch, known):
    if known == "by thread":
        monkeypatch.setattr(adapter, "netfilter_ports", frozenset)
    await firewall.apply(PROGRAM)
    stream = firewall.changes()
    await firewall.apply("add chain inet ecluse k2_x")
    pid = nft("flush ruleset")
    assert (await after(stream)).ours
    change = await after(stream)
    assert (change.process, change.pid, change.ours, change.touched) == ("nft", pid, False, True)
    assert change.what.startswith("table deleted")


async def test_a_port_is_known_although_another_socket_took_the_usual_one(namespace):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as first:
        first.bind((os.getpid(), 0))  # what libnftables would have got
        made = adapter.NftFirewall()
        try:
            stream = made.changes()
            await made.apply(PROGRAM)
            nft("add chain inet ecluse k2_y")
            assert [(await after(stream)).ours for _ in range(2)] == [True, False]
            assert made._own_ports - {os.getpid()}
        finally:
            made.close()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("delete table inet ecluse", "table deleted, "),
        ("add table inet ecluse { flags dormant; }", "table made dormant"),
        ("flush chain inet ecluse forward", "rule deleted in chain forward"),
        ("add rule inet ecluse k1_at.cut accept", "rule added in chain k1_at.cut"),
        ("flush chain inet ecluse k1_at.open", "2 rules deleted in chain k1_at.open"),
        ("add chain inet ecluse forward { policy drop; }", "chain forward added or altered"),
        ("add set inet ecluse x { type ipv4_addr; }", "set x added or altered"),
        (
            "add element inet ecluse k1_granted { 192.0.2.1, 192.0.2.2, 192.0.2.3 }",
            "3 elements added to k1_granted",
        ),
        ('delete element inet ecluse k1_inside { "lan0" }', "elements deleted from k1_inside"),
        ("add counter inet ecluse c", "object c added or altered"),
    ],
)
async def test_what_was_done_is_said_in_words(firewall, text, what):
    await firewall.apply(PROGRAM)
    stream = firewall.changes()
    nft(text)
    change = await after(stream)
    assert what in change.what
    assert change.touched
    assert not change.ours


async def test_words_are_bounded(firewall):
    stream = firewall.changes()
    nft(
        "add table inet ecluse\n"
        + "\n".join(f"add chain inet ecluse {'c' * 90}{n}" for n in range(40))
    )
    change = await after(stream)
    assert len(change.what) < 320
    assert change.what.endswith("35 more")


async def test_other_tables_are_told_as_untouched(firewall):
    stream = firewall.changes()
    nft("add table ip ecluse\nadd table inet other")
    change = await after(stream)
    assert (change.touched, change.what, change.process) == (False, "", "nft")


async def test_events_wait_from_the_call_on_and_survive_a_cancelled_wait(firewall):
    stream = firewall.changes()
    await nothing_more(stream)
    await firewall.apply(PROGRAM)
    nft("add chain inet ecluse k2_a")
    await nothing_more_raised(stream)
    assert (await after(stream)).ours
    assert (await after(stream)).what == "chain k2_a added or altered"
    await nothing_more(stream)


async def nothing_more_raised(stream):
    """Begin to wait and give up at once."""
    task = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_large_load_of_our_own_is_one_event_and_the_loop_lives(firewall):
    stream = firewall.changes()
    many = ", ".join(f"198.{18 + i // 65536}.{i // 256 % 256}.{i % 256}" for i in range(100_000))
    await firewall.apply(
        f"table inet ecluse {{ set k1_x {{ type ipv4_addr; elements = {{ {many} }}\n }}\n }}"
    )
    async with Heart(time.thread_time) as heart:
        change = await after(stream)
    assert (change.ours, change.lost) == (True, False)
    assert "100000 elements added to k1_x" in change.what
    assert heart.longest < 0.03


async def test_a_burst_beyond_the_buffer_is_said_and_the_stream_lives_on(firewall):
    await firewall.apply(PROGRAM)
    stream = firewall.changes()
    stream._netlink.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for n in range(60):
        await firewall.apply(f"add chain inet ecluse k2_c{n}")
    seen = [await after(stream)]
    while not seen[-1].lost:
        seen.append(await after(stream))
    assert (seen[-1].touched, seen[-1].ours) == (True, False)
    assert len(seen) < 60
    while True:  # what had still found room in the buffer
        try:
            await asyncio.wait_for(anext(stream), 0.3)
        except TimeoutError:
            break
    nft("delete chain inet ecluse k2_c0")
    change = await after(stream)
    assert (change.what, change.ours, change.lost) == ("chain k2_c0 deleted", False, False)


async def test_closing_ends_the_stream_for_whoever_waits(firewall):
    stream = firewall.changes()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.01)
    firewall.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(asyncio.shield(waiting), 5)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nft")]


async def test_a_change_of_the_second_lock_is_told_and_what_is_learned_is_not(firewall):
    nft(
        "table netdev ecluse_exit { set learned4 { type ipv4_addr; }; chain on.wan0 { }; }; "
        "table netdev other { }"
    )
    stream = firewall.changes()
    pid = nft("delete chain netdev ecluse_exit on.wan0")
    change = await after(stream)
    assert (change.process, change.pid, change.ours, change.touched) == ("nft", pid, False, False)
    assert change.second_lock == "chain on.wan0 deleted"
    nft("add element netdev ecluse_exit learned4 { 192.0.2.77 }")
    assert not (await after(stream)).second_lock
    nft("delete table netdev other")
    assert not (await after(stream)).second_lock
    nft("delete table netdev ecluse_exit")
    assert (await after(stream)).second_lock.startswith("table deleted")
