"""Clients that are broken, slow, greedy or hostile harm nobody else."""

import asyncio
import contextlib
import json
import os
import time

import pytest

from ecluse.api.denied_attempts import (
    LINES_A_DAY,
    LINES_PER_UID,
    LINES_PER_UID_A_DAY,
    MAX_UIDS,
    DeniedAttempts,
)
from ecluse.api.quota import CONNECTION_QUOTAS, Quota, QuotaCounter
from ecluse.records import Actor
from tests.unit.api.fake_commands import FakeCommands
from tests.unit.api.harness import (
    SYSTEM_PYTHON,
    ListLog,
    ask,
    hold,
    parse,
    raw,
    request_bytes,
    running,
)

GET = request_bytes("GET", "/v1/status")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def closes(sock, within):
    """Read until the other side closes; give what came and after how long."""
    sock.setblocking(False)
    loop, begin, got = asyncio.get_running_loop(), time.monotonic(), b""
    with contextlib.suppress(ConnectionError):
        while chunk := await asyncio.wait_for(loop.sock_recv(sock, 65536), within):
            got += chunk
    return got, time.monotonic() - begin


async def is_fast(path, seconds=1.0):
    begin = time.monotonic()
    assert (await ask(path, "GET", "/v1/status"))[0] == 200
    assert time.monotonic() - begin < seconds


@pytest.mark.parametrize(
    "start",
    [
        b"G",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["one byte", "headers", "body", "chunk"],
)
async def test_a_request_that_does_not_end_is_ended(start):
    async with running(request_seconds=0.6) as (commands, path, *_):
        with hold(path, start) as sock:
            await is_fast(path)
            got, took = await closes(sock, 5)
        assert 0.3 < took < 3
        status, headers, body = parse(got)
        assert (status, headers["content-type"]) == (408, "application/problem+json")
        assert json.loads(body)["status"] == 408
        assert not commands.calls


async def test_a_request_that_trickles_is_ended_at_the_same_time():
    async with running(request_seconds=0.8) as (_, path, *_rest):
        begin = time.monotonic()
        with hold(
            path, b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n"
        ) as sock:
            with contextlib.suppress(OSError):
                for byte in b"Content-Type: application/json\r\n\r\n" + b" " * 500:
                    sock.sendall(bytes([byte]))
                    await asyncio.sleep(0.02)
        assert time.monotonic() - begin < 3


async def test_a_connection_that_never_speaks_or_goes_idle_is_ended(monkeypatch):
    monkeypatch.setattr("ecluse.api.http_connection.IDLE_SECONDS", 0.5)
    async with running() as (_, path, *_rest):
        with (
            hold(path) as silent,
            hold(path, request_bytes("GET", "/v1/status", close=False)) as idle,
        ):
            assert (await closes(silent, 5))[0] == b""
            assert b"200 OK" in (await closes(idle, 5))[0]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nBad Header : y\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n"
        + b"".join(b"X%d: y\r\n" % n for n in range(500))
        + b"\r\n",
        b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n{}",
        b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    ],
)
async def test_what_is_no_http_gets_a_problem_and_the_door(data):
    async with running() as (commands, path, _server, log):
        status, headers, body = parse(await raw(path, data, timeout=5))
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert json.loads(body)["status"] == 400
        assert not commands.calls
        assert not [line for line in log.lines if line[0] == "error"]
        await is_fast(path)


@pytest.mark.parametrize("length", [b"Content-Length: 3000000", b"Transfer-Encoding: chunked"])
async def test_an_oversized_body_is_refused_without_being_read(length):
    async with running() as (commands, path, *_):
        head = (
            b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + length
            + b"\r\n\r\n"
        )
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        status, _, body = parse(await raw(path, head + chunk * 10, timeout=6))
        assert (status, json.loads(body)["kind"]) == (413, "http")
        assert not commands.calls


async def test_200_clients_at_once_are_all_answered_and_nothing_is_left():
    async with running() as (_, path, server, _log):
        await is_fast(path)
        before = descriptors()
        answers = asyncio.gather(*(ask(path, "GET", "/v1/status") for _ in range(200)))
        begin = time.monotonic()
        assert [status for status, _, _ in await answers] == [200] * 200
        assert time.monotonic() - begin < 10
        await asyncio.sleep(0.1)
        assert descriptors() == before
        assert sum(server._acceptor.quotas.taken().values()) == 0


async def test_200_lying_connections_do_not_slow_a_normal_client():
    # None of them is ended within the test: whoever had to wait for one would wait longer than he
    # does here.
    async with running(request_seconds=600.0) as (_, path, *_rest):
        before = descriptors()
        kinds = [
            b"",
            b"GET /v1/st",
            b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
            b"\x00\xff",
        ]
        with contextlib.ExitStack() as stack:
            for number in range(200):
                stack.enter_context(hold(path, kinds[number % 4]))
                if number % 20 == 0:
                    await asyncio.sleep(0)
            for _ in range(20):
                assert (await asyncio.wait_for(ask(path, "GET", "/v1/status"), 60))[0] == 200
        async with asyncio.timeout(60):
            while descriptors() > before:
                await asyncio.sleep(0.01)


_FLOOD = """
import socket, sys, time
held = []
for number in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(sys.argv[1])
    held.append(s)
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_users_thousand_connections_do_not_lock_out_root_or_another_user():
    async with running() as (_, path, server, _log):
        before = descriptors()
        flood = await asyncio.create_subprocess_exec(
            SYSTEM_PYTHON, "-I", "-c", _FLOOD, str(path), "900",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, user=61011, group=61011, extra_groups=[],
            cwd="/",
        )  # fmt: skip
        assert await asyncio.wait_for(flood.stdout.readline(), 20) == b"held\n"
        assert server._acceptor.quotas.taken()["none"] == CONNECTION_QUOTAS["none"].per_uid
        await is_fast(path)
        assert server._acceptor.quotas.turned_away == 900 - CONNECTION_QUOTAS["none"].per_uid
        assert descriptors() - before < CONNECTION_QUOTAS["none"].per_uid + 20
        await is_fast(path)
        flood.stdin.close()
        await flood.wait()


async def test_who_is_turned_away_is_told_why():
    async with running() as (_, path, server, _log):
        server._acceptor.quotas.quotas = {
            "root": Quota(1, 1),
            "reader": Quota(0, 0),
            "operator": Quota(0, 0),
            "none": Quota(0, 0),
        }
        with hold(path):
            await asyncio.sleep(0.1)
            status, _, body = parse(await raw(path, request_bytes("GET", "/v1/status")))
            assert (status, json.loads(body)["kind"]) == (503, "busy")


async def test_who_has_had_his_share_may_close_all_the_same():
    """The door knows nothing of what somebody wants; so a few places are there to hear it, for a
    second each.
    """
    async with running() as (commands, path, server, _log):
        nothing = Quota(0, 0)
        server._acceptor.quotas.quotas = dict.fromkeys(("reader", "operator", "none"), nothing) | {
            "root": Quota(1, 1)
        }
        with hold(path):
            await asyncio.sleep(0.1)
            assert (await ask(path, "POST", "/v1/level", {"level": "open"}))[0] == 503
            assert (await ask(path, "POST", "/v1/rollback", {}))[0] == 503
            assert commands.calls == []
            assert (await ask(path, "POST", "/v1/level", {"level": "cut"}))[0] == 200
            silent = [hold(path) for _ in range(20)]
            await asyncio.sleep(0.1)
            answers = [(await asyncio.to_thread(one.recv, 4096))[9:12] for one in silent]
            assert sorted(answers) == [b"408"] * 16 + [b"503"] * 4, "nobody keeps such a place"
            for one in silent:
                one.close()
        await asyncio.sleep(0.1)
        assert (await ask(path, "GET", "/v1/status"))[0] == 200, "every place was given back"


async def test_idle_connections_go_where_descriptors_run_out():
    """60 idle connections on 40 descriptors: whoever has something to ask does not wait for their
    15 seconds.
    """
    async with running() as (_, path, server, _log):
        idle = [hold(path) for _ in range(20)]
        await asyncio.sleep(0.3)
        listener = server._acceptor._listeners[0]
        left = 0

        class Short:
            def accept(self):
                if len(server._registry.connections) > 12:
                    raise OSError(24, "Too many open files")
                return real.accept()

            def __getattr__(self, name):
                return getattr(real, name)

        real = listener.sock
        listener.sock = Short()
        assert (await asyncio.wait_for(ask(path, "POST", "/v1/level", {"level": "cut"}), 5))[
            0
        ] == 200
        listener.sock = real
        for one in idle:
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                left += bool(one.recv(1) == b"")
            one.close()
        assert left >= 8, "those that were idle the longest had to go"


async def test_who_does_not_read_his_answer_blocks_nobody_and_is_dropped():
    commands = FakeCommands(title="x" * 2_000_000)  # more than socket and transport hold
    async with running(commands, stall_seconds=0.6) as (_, path, server, _log):
        with hold(path, request_bytes("GET", "/v1/status", close=False) * 3):
            await asyncio.sleep(0.2)
            await is_fast(path)
            await asyncio.sleep(1.0)
            assert sum(server._acceptor.quotas.taken().values()) == 0


@pytest.mark.parametrize("size", [150_000, 250_000, 400_000])
async def test_an_answer_that_is_half_taken_does_not_stay_for_ever(size):
    # Sizes around what the socket itself holds: some of it stays in the transport with no writer
    # waiting for it.
    async with running(FakeCommands(title="x" * size), stall_seconds=0.5) as (
        _,
        path,
        server,
        _log,
    ):
        with hold(path, request_bytes("GET", "/v1/status")):
            await asyncio.sleep(1.2)
            assert sum(server._acceptor.quotas.taken().values()) == 0


async def test_a_slow_reader_of_events_is_dropped():
    async with running(stall_seconds=0.5) as (commands, path, _server, _log):
        with hold(path, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            for _ in range(200):
                commands.tell("x" * 20_000)
                await asyncio.sleep(0.01)
                if not commands.subscribers:
                    break
            await asyncio.sleep(0.3)
            assert commands.ended_streams == 1
            await is_fast(path)


async def test_event_streams_are_bounded():
    async with running() as (_, path, *_rest):
        with contextlib.ExitStack() as stack:
            for _ in range(32):
                stack.enter_context(
                    hold(path, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                )
            await asyncio.sleep(0.3)
            status, _, answer = await ask(path, "GET", "/v1/events")
            assert (status, answer["kind"]) == (503, "busy")
            await is_fast(path)


async def test_pipelining_without_end_is_held_back():
    async with running(FakeCommands(delay=0.05), stall_seconds=1) as (commands, path, *_):
        with hold(path) as sock:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.send(request_bytes("GET", "/v1/status", close=False) * 2000)
            await asyncio.sleep(0.2)
            assert commands.most_reading == 1
            await is_fast(path)


async def test_no_descriptors_left_is_survived(monkeypatch):
    async with running() as (_, path, server, log):
        listener = server._acceptor._listeners[0]

        class Exhausted:
            def __init__(self, sock):
                self._sock = sock

            def accept(self):
                raise OSError(24, "Too many open files")

            def __getattr__(self, name):
                return getattr(self._sock, name)

        real = listener.sock
        monkeypatch.setattr("ecluse.api.acceptor._PAUSE_SECONDS", 0.3)
        listener.sock = Exhausted(real)
        asked = asyncio.ensure_future(ask(path, "GET", "/v1/status"))
        await asyncio.sleep(0.1)
        listener.sock = real
        assert (await asyncio.wait_for(asked, 3))[0] == 200
        assert len([line for line in log.lines if "no connection can be accepted" in line[1]]) == 1


def test_places_are_given_back():
    quotas = QuotaCounter({"a": Quota(3, 2), "b": Quota(1, 1)})
    assert [quotas.enter("a", 1) for _ in range(3)] == [True, True, False]
    assert quotas.enter("b", 1)
    assert [quotas.enter("a", 2), quotas.enter("a", 3)] == [True, False]
    quotas.leave("a", 1)
    assert quotas.enter("a", 3)
    assert (quotas.taken(), quotas.turned_away) == ({"a": 3, "b": 1}, 2)


def test_all_rooms_together_leave_descriptors_for_the_daemon():
    assert sum(quota.total for quota in CONNECTION_QUOTAS.values()) <= 768


async def test_attempts_of_many_users_are_bounded_and_summed_up():
    commands = FakeCommands()
    denied = DeniedAttempts(commands.forbidden, ListLog(), window=0.2)
    for _ in range(15):
        for uid in range(100):
            await denied.record_attempt(lambda uid=uid: Actor(uid, f"u{uid}", 5, "x"), uid, "GET /")
    written = len(commands.attempts)
    assert written == (MAX_UIDS + 1) * LINES_PER_UID
    await asyncio.sleep(0.4)
    summaries = [what for _, what in commands.attempts[written:]]
    assert len(summaries) == MAX_UIDS + 1
    assert sum(int(what.split()[0]) for what in summaries) + written == denied.total == 1500
    await denied.record_attempt(lambda: Actor(1, "u1", 5, "x"), 1, "GET /again")
    assert commands.attempts[-1][1] == "GET /again"
    await denied.close()


async def attempts(denied: DeniedAttempts, uids: range, times: int) -> None:
    """Have each of these users try so often in each of the windows, which the test ends itself."""
    for _ in range(times):
        for uid in uids:
            await denied.record_attempt(lambda uid=uid: Actor(uid, f"u{uid}", 5, "x"), uid, f"GET /{uid}")
    denied._end_window()


async def test_a_day_has_so_many_lines_whoever_tries_and_however_often():
    """RED before: one user wrote 15,840 lines a day, 40 users 522,720 (10 and 331 MB)."""
    commands = FakeCommands()
    denied = DeniedAttempts(commands.forbidden, ListLog(), window=3600, day=7200)
    for _ in range(200):
        await attempts(denied, range(1), LINES_PER_UID + 5)
    await asyncio.sleep(0)
    one = len(commands.attempts)
    assert one == LINES_PER_UID_A_DAY + 1, "and that there is no room for more"
    assert "a day has no room for more" in commands.attempts[-1][1]
    for _ in range(10):
        for first in range(100, 100 + 40 * MAX_UIDS, MAX_UIDS):
            await attempts(denied, range(first, first + MAX_UIDS), 2)
    await asyncio.sleep(0)
    assert len(commands.attempts) <= 2 * LINES_A_DAY + 1
    firsts = {actor.uid for actor, _ in commands.attempts}
    assert len(firsts) >= LINES_A_DAY, "who is new is named, though others used the day up"
    denied._end_day()
    await asyncio.sleep(0)
    summaries = [what for _, what in commands.attempts if "more attempts" in what]
    told = sum(int(what.split()[0]) for what in summaries)
    assert told + len(commands.attempts) - len(summaries) == denied.total, "none is passed over"
    assert "beyond the lines that a day has for them" in summaries[-1]
    await attempts(denied, range(1), 1)
    assert commands.attempts[-1][1] == "GET /0", "another day"
    await denied.close()


async def test_a_day_that_is_over_is_told_by_itself():
    commands = FakeCommands()
    denied = DeniedAttempts(commands.forbidden, ListLog(), window=3600, day=1.0)
    async with asyncio.timeout(20):
        while not any("beyond the lines" in what for _, what in commands.attempts):
            await attempts(denied, range(1), LINES_PER_UID + 1)
            await asyncio.sleep(0)
    await denied.close()
