"""A connection whose client is slow, silent, hostile or gone harms no other."""

import asyncio
import contextlib
import json
import socket
import time

import pytest

from tests.unit.api.fake_controller import FakeController
from tests.unit.api.harness import (
    hold,
    is_fast,
    parse,
    raw,
    read_until_closed,
    request_bytes,
    running,
)

POST = b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "start",
    [
        b"G",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n",
        POST + b"Content-Length: 50\r\n\r\n{",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["one byte", "headers", "body", "chunk"],
)
async def test_a_request_that_does_not_end_is_ended(start):
    async with running(request_seconds=0.6) as (commands, path, *_):
        with hold(path, start) as sock:
            await is_fast(path)
            got, took = await read_until_closed(sock, 5)
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
            assert (await read_until_closed(silent, 5))[0] == b""
            assert b"200 OK" in (await read_until_closed(idle, 5))[0]


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
        (
            b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"
        ),
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
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


async def test_who_does_not_read_his_answer_blocks_nobody_and_is_dropped():
    commands = FakeController(title="x" * 2_000_000)  # more than socket and transport hold
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
    async with running(FakeController(title="x" * size), stall_seconds=0.5) as (
        _,
        path,
        server,
        _log,
    ):
        with hold(path, request_bytes("GET", "/v1/status")):
            await asyncio.sleep(1.2)
            assert sum(server._acceptor.quotas.taken().values()) == 0


async def test_pipelining_without_end_is_held_back():
    async with running(FakeController(delay=0.05), stall_seconds=1) as (commands, path, *_):
        with hold(path) as sock:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.send(request_bytes("GET", "/v1/status", close=False) * 2000)
            await asyncio.sleep(0.2)
            assert commands.most_reading == 1
            await is_fast(path)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("method", "where", "body"),
    [("POST", "/v1/level", b'{"level":"cut"}'), ("GET", "/v1/status", b"")],
)
async def test_a_client_that_only_stopped_sending_gets_its_answer(version, method, where, body):
    """shutdown(2) with SHUT_WR after the request: what `nc -N` and some proxies do."""
    lines = [
        f"{method} {where} HTTP/{version}",
        "Host: localhost",
        "Content-Type: application/json",
    ]
    data = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
    async with running(FakeController(delay=0.2)) as (_commands, path, server, _log):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(data)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert parse(answer)[0] == 200
        writer.close()
        await asyncio.sleep(0.05)
        assert sum(server._acceptor.quotas.taken().values()) == 0, "and its place is free again"


async def test_a_client_that_stops_sending_in_the_middle_or_before_is_let_go():
    async with running(request_seconds=0.5) as (commands, path, server, _log):
        for start in (
            b"",
            POST + b"Content-Length: 50\r\n\r\n{",
        ):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(start)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 10)
            writer.close()
        await asyncio.sleep(0.05)
        assert not commands.calls
        assert sum(server._acceptor.quotas.taken().values()) == 0


async def test_only_the_first_request_of_an_early_connection_is_early(tmp_path):
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    waiting.bind(str(tmp_path / "s"))
    waiting.listen(8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(tmp_path / "s"))
        request = request_bytes(
            "POST", "/v1/level", json.dumps({"level": "cut"}).encode(), close=False
        )
        client.sendall(request)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        async with running(listen_fds=[waiting.detach()]) as (commands, *_):
            await loop.sock_recv(client, 65536)
            await loop.sock_sendall(client, request)
            await loop.sock_recv(client, 65536)
            assert commands.senders == [(False, True), (False, False)]


async def test_who_stops_sending_and_waits_for_the_answer_has_not_given_up():
    async with running() as (commands, path, *_):
        with hold(
            path, request_bytes("POST", "/v1/level", json.dumps({"level": "open"}).encode())
        ) as sock:
            sock.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.2)
        assert commands.calls
