"""Requests that a browser may have sent are refused by every route."""

import json

import pytest

from ecluse.api.routes import ROUTES
from tests.unit.api.harness import (
    LEVEL,
    ask,
    parse,
    raw,
    running,
)


async def test_web_pages_are_refused():
    async with running() as (commands, path, *_):
        status, _, answer = await ask(
            path, "POST", "/v1/level", LEVEL, ["Origin: http://evil.example"]
        )
        assert (status, answer["kind"]) == (403, "forbidden")
        assert not commands.calls
        assert "web page" in commands.attempts[0][1]


BROWSERS = [
    ["Host: localhost:8480"],  # what a browser sends through a tunnel: the port, always
    ["Host: rebind.example"],
    ["Host: 127.0.0.1"],
    ["Host: "],
    ["Host: localhost", "Sec-Fetch-Site: none"],
    ["Host: localhost", "Sec-Fetch-Site: same-origin"],
    ["Host: localhost", "sec-fetch-mode: no-cors"],
    ["Host: localhost", "Sec-Fetch-Anything: x"],
    ["Host: localhost", "Origin: null"],
    [],
]


@pytest.mark.parametrize("headers", BROWSERS, ids=" ".join)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_what_a_browser_sends_is_refused_by_every_route(route, headers):
    """DNS rebinding through a forwarded socket: a page of anybody's read the status, and a bare
    POST rolled back.
    """
    where = route.path.replace("{number}", "1")
    body = b"{}" if route.method == "POST" else b""
    lines = [f"{route.method} {where} HTTP/1.0", *headers, "Content-Type: application/json"]
    data = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
    async with running() as (commands, path, *_):
        status, _, answer = parse(await raw(path, data))
        assert (status, json.loads(answer)["kind"]) == (403, "forbidden")
        assert "curl --unix-socket" in json.loads(answer)["hint"]
        assert not commands.calls
        assert "web page" in commands.attempts[0][1]


async def test_two_hosts_are_no_request_at_all():
    async with running() as (commands, path, *_):
        head = b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nHost: rebind.example\r\n"
        data = (
            head
            + b"Content-Type: application/json\r\nContent-Length: 15\r\n\r\n"
            + b'{"level":"cut"}'
        )
        assert parse(await raw(path, data))[0] == 400
        assert not commands.calls


async def test_a_bare_localhost_is_answered_whatever_its_case():
    async with running() as (_, path, *_rest):
        data = b"GET /v1/status HTTP/1.1\r\nHost: LocalHost\r\nConnection: close\r\n\r\n"
        assert parse(await raw(path, data))[0] == 200


async def test_pages_do_not_use_up_the_lines_of_the_person_whose_browser_it_is():
    async with running() as (commands, path, *_):
        for _ in range(30):
            await ask(path, "GET", "/v1/status", None, ["Origin: http://evil.example"])
        written = len(commands.attempts)
        assert 0 < written < 30, "positive control: they are bounded"
        for _ in range(3):
            await ask(path, "GET", "/v1/status", None, ["Sec-Fetch-Site: none"])
        assert len(commands.attempts) <= written + 1
