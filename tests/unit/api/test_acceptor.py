"""Many connections, turned away or accepted, slow nobody else."""

import asyncio
import contextlib
import json
import os
import socket
import time

import pytest

from ecluse.api.quota import Quota
from ecluse.records import Actor
from tests.unit.api.harness import (
    ask,
    descriptors,
    hold,
    is_fast,
    parse,
    raw,
    request_bytes,
    running,
)


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


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/level", {"level": "cut"}), ("/v1/rollback", {"generation": 1}), ("/v1/reload", {})],
)
@pytest.mark.parametrize("gives_up", [True, False])
async def test_a_command_that_was_sent_before_the_daemon_was_up_is_known_as_such(
    tmp_path, path, body, gives_up
):
    """systemd holds the socket while the daemon is down: what waits there may be minutes old.

    What of it is begun, and what is left out, the controller decides
    (tests/system/test_given_up.py).
    """
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    waiting.bind(str(tmp_path / "s"))
    waiting.listen(8)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(tmp_path / "s"))
    client.sendall(request_bytes("POST", path, json.dumps(body).encode()))
    if gives_up:
        client.close()
    async with running(listen_fds=[waiting.detach()]) as (commands, *_):
        await asyncio.sleep(0.2)
        assert commands.senders == [(gives_up, True)]
        actor = next(part for part in commands.calls[0] if isinstance(part, Actor))
        assert actor.pid == os.getpid()
        if gives_up:
            assert (actor.command, actor.login) == ("", None), "another may have that number by now"
        client.close()
