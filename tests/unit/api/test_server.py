"""Roles, bodies, running commands and slots of the real server on a real socket."""

import asyncio
import json

import pytest

from ecluse.api.routes import ROUTES
from tests.unit.api.fake_controller import FakeController
from tests.unit.api.harness import (
    LEVEL,
    OPERATORS,
    READERS,
    ask,
    ask_as,
    hold,
    parse,
    raw,
    request_bytes,
    running,
)


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


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (
            [],
            {
                "GET /v1/status": 403,
                "GET /nowhere": 403,
                "POST /v1/plan": 403,
                "POST /v1/level": 403,
            },
        ),
        (
            [READERS],
            {
                "GET /v1/status": 200,
                "GET /v1/openapi.json": 200,
                "GET /nowhere": 404,
                "POST /v1/plan": 200,
                "POST /v1/level": 403,
                "POST /v1/rollback": 403,
                "POST /v1/reload": 403,
            },
        ),
        ([OPERATORS], {"GET /v1/status": 200, "POST /v1/plan": 200, "POST /v1/level": 200}),
    ],
)
async def test_roles_of_other_users(groups, expected):
    bodies = {
        "POST /v1/plan": {"reload": True},
        "POST /v1/level": LEVEL,
        "POST /v1/rollback": {},
        "POST /v1/reload": {},
    }
    async with running() as (commands, path, *_):
        found = {}
        for what in expected:
            method, where = what.split()
            found[what], _, answer = await ask_as(
                61011, groups, path, method, where, bodies.get(what)
            )
            if found[what] == 403:
                assert answer["kind"] == "forbidden"
                assert "group" in answer["hint"]
                assert answer["detail"].startswith("user reader may not "), (
                    "a user may be called nobody"
                )
        assert found == expected
        refused = [what for what, status in expected.items() if status == 403]
        assert [what for _, what in commands.attempts] == refused
        assert all((a.uid, a.user) == (61011, "reader") and a.command for a, _ in commands.attempts)
        changed = [call for call in commands.calls if call[0] in {"level", "rollback", "reload"}]
        assert bool(changed) is (groups == [OPERATORS])


async def test_a_group_by_primary_gid_counts_and_numbers_are_groups():
    async with running(readers="61011", operators="61012") as (_, path, *_rest):
        status, _, _ = await ask_as(61011, [], path, "GET", "/v1/status")
        assert status == 200


async def test_unknown_role_groups_are_said_and_lock_nobody_but_non_root_out():
    async with running(readers="nowhere", operators="no-such", group="neither") as (
        _,
        path,
        server,
        log,
    ):
        assert len(server.warnings) == 2
        assert len([line for line in log.lines if line[0] == "warning"]) == 3
        assert (await ask(path, "GET", "/v1/status"))[0] == 200
        assert (await ask_as(61011, [READERS, OPERATORS], path, "GET", "/v1/status"))[0] == 403


POSTS = [route for route in ROUTES if route.method == "POST"]


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
@pytest.mark.parametrize("body", [b"", b"{}"])
@pytest.mark.parametrize("route", POSTS, ids=lambda route: route.path)
async def test_every_post_says_that_it_is_json(route, kind, body):
    lines = [f"POST {route.path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"Content-Type: {kind}"] if kind else []
    data = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
    async with running() as (commands, path, *_):
        status, _, answer = parse(await raw(path, data))
        assert (status, "application/json" in json.loads(answer)["hint"]) == (415, True)
        assert not commands.calls


async def test_no_answer_may_be_taken_for_something_else():
    async with running() as (_, path, *_rest):
        for method, where in (
            ("GET", "/v1/status"),
            ("GET", "/metrics"),
            ("GET", "/no"),
            ("POST", "/v1/reload"),
        ):
            assert (await ask(path, method, where))[1]["x-content-type-options"] == "nosniff"
        head = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(head)
        assert b"nosniff" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert b"nosniff" in await raw(path, b"nonsense\r\n\r\n")


async def test_who_hangs_up_does_not_stop_the_command():
    async with running(FakeController(delay=0.3)) as (commands, path, *_):
        with hold(path, request_bytes("POST", "/v1/level", json.dumps(LEVEL).encode())):
            await asyncio.sleep(0.1)
        assert commands.calls
        assert commands.finished == 0
        await asyncio.sleep(0.4)
        assert commands.finished == 1


async def test_closing_lets_a_running_command_end_and_answers_it():
    async with running(FakeController(delay=2.6)) as (commands, path, server, _):
        asked = asyncio.ensure_future(ask(path, "POST", "/v1/level", LEVEL))
        await asyncio.sleep(0.1)
        await server.close()
        assert commands.finished == 1
        status, _, change = await asked
        assert (status, change["changed"]) == (200, True)


async def test_readings_of_readers_wait_in_their_own_lane():
    async with running(FakeController(delay=0.1)) as (commands, path, *_):
        await asyncio.gather(*(ask(path, "GET", "/v1/status") for _ in range(8)))
        assert commands.most_reading == 2


async def test_keep_alive_and_pipelining():
    async with running() as (_commands, path, *_):
        two = request_bytes("GET", "/v1/status", close=False) + request_bytes(
            "GET", "/v1/generations"
        )
        answer = await raw(path, two)
        assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_expect_100_continue():
    async with running() as (_commands, path, *_):
        body = json.dumps(LEVEL).encode()
        answer = await raw(path, request_bytes("POST", "/v1/level", body, ["Expect: 100-continue"]))
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
