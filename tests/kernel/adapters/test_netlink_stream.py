"""The stream of kernel events: what was lost is said, and the loop lives beside it."""

import asyncio
import itertools
import socket
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from ecluse.kernel import netlink_stream
from tests.kernel.adapters.conftest import Heart, gather, ip, run

pytestmark = pytest.mark.kernel


async def test_a_burst_is_said_and_the_stream_lives_on(links):
    stream = links.changes()
    stream._netlink.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    for n in range(40):
        ip(f"addr add 198.51.100.{n + 1}/24 dev wan0")
    seen = await gather(stream, {"changes of links were missed (No buffer space available)"})
    assert len(seen) < 80
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            while True:
                await anext(stream)
    ip("link add late0 type veth peer name late1")
    await gather(stream, {"interface late0 is down"})


async def test_a_thousand_events_do_not_hold_the_loop(links, monkeypatch):
    """The stream lets the loop go after each slice of time, however many wait: here time is what
    the test says.
    """
    clock = itertools.count()
    time_of_test = SimpleNamespace(monotonic=lambda: next(clock) * 0.6 * netlink_stream.SLICE)
    monkeypatch.setattr(netlink_stream, "time", time_of_test)
    stream = links.changes()
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    batch = "".join(f"addr add 10.{n // 250}.{n % 250}.1/24 dev wan0\n" for n in range(1000))
    run("ip", "-b", "-", text=batch)
    seen, beats = [], Counter()
    async with Heart(time.monotonic) as heart:
        async for words in stream:
            seen.append(words)
            beats[heart.beats] += 1
            if words == "address 10.3.249.1/24 on wan0 is there":
                break
    assert sum(words.endswith("/24 on wan0 is there") for words in seen) == 1000
    assert max(beats.values()) <= 2, "each slice has time for one datagram"


async def test_closing_ends_the_stream(links):
    stream = links.changes()

    async def listen():
        return [words async for words in stream]

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.01)
    assert not listening.done()
    links.close()
    await asyncio.wait_for(listening, 5)
    assert await listen() == []


async def test_an_event_that_cannot_be_read_was_missed_and_the_next_is_read(links, monkeypatch):
    stream = links.changes()
    decode, broken = stream._decode, [True]

    def fails_once(datagram):
        if broken.pop() if broken else False:
            raise TypeError("nobody foresaw this")
        return decode(datagram)

    monkeypatch.setattr(stream, "_decode", fails_once)
    ip("link add wan0 type veth peer name lan0")
    assert "changes of links were missed (unreadable: TypeError" in await anext(stream)
    ip("link set wan0 up")
    ip("link set lan0 up")
    await gather(stream, {"interface wan0 is up"})
