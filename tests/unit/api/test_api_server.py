import asyncio
import contextlib
import json
import os
import socket
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ecluse.api.listener import activated_fds
from ecluse.api.routes import ROUTES
from ecluse.errors import (
    ConfigError,
    EcluseError,
    KernelError,
    NotVerifiedError,
    ResolveError,
    RulesetRejectedError,
    StateError,
)  # fmt: skip
from ecluse.faults import Fault
from ecluse.records import Actor
from tests.unit.api.fake_commands import DIGEST, FakeCommands
from tests.unit.api.harness import (
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

LEVEL = {"level": "cut", "reason": "ransomware", "authorised_by": "Dr Martin", "zones": ["care"]}


async def test_every_reading():
    async with running() as (commands, path, *_):
        status, headers, answer = await ask(path, "GET", "/v1/status")
        assert (status, answer["site"], answer["levels"]["care"]) == (200, "chu-example", "open")
        assert answer["title"] == "CHU d'Exempl\u00e9"
        assert headers["cache-control"] == "no-store"
        _, _, answer = await ask(path, "GET", "/v1/services")
        assert [s["name"] for s in answer["services"]] == ["laboratory", "web-mail"]
        assert answer["services"][0]["review"] == "2026-01-31"
        _, _, answer = await ask(path, "GET", "/v1/generations")
        assert [g["number"] for g in answer["generations"]] == [1]
        _, _, answer = await ask(path, "GET", "/v1/generations/1")
        assert answer["purge"] is None
        assert answer["generation"]["actor"]["login"] == 1000
        _, _, answer = await ask(path, "GET", "/v1/refused?limit=1")
        assert answer["flows"][0]["packets"] == 900
        assert ("refused", 1) in commands.calls


async def test_a_command_carries_who_and_why():
    async with running() as (commands, path, *_):
        status, _, change = await ask(path, "POST", "/v1/level", LEVEL)
        assert (status, change["changed"], change["generation"]["number"]) == (200, True, 2)
        name, level, zones, actor, reason, authorised_by = commands.calls[-1]
        assert (name, level, zones, reason, authorised_by) == (
            "level",
            "cut",
            ("care",),
            "ransomware",
            "Dr Martin",
        )
        assert (actor.uid, actor.user, actor.pid) == (0, "root", os.getpid())
        status, _, _ = await ask(path, "POST", "/v1/rollback", {"generation": 1, "reason": "over"})
        assert (status, commands.calls[-1][:2]) == (200, ("rollback", 1))
        status, _, _ = await ask(path, "POST", "/v1/rollback")
        assert (status, commands.calls[-1][:2]) == (200, ("rollback", None))
        status, _, _ = await ask(path, "POST", "/v1/reload", {"expect": DIGEST})
        assert (status, commands.calls[-1][:2]) == (200, ("reload", DIGEST))
        status, _, plan = await ask(path, "POST", "/v1/plan", {"level": "cut", "zones": ["care"]})
        assert (status, plan["digest"], commands.calls[-1]) == (
            200,
            DIGEST,
            ("plan", "cut", ("care",), None, False),
        )


async def test_a_reason_never_stops_a_cut():
    async with running() as (commands, path, *_):
        status, _, _ = await ask(
            path, "POST", "/v1/level", {"level": "cut", "reason": "a\x00b\r\n\u202ec  d"}
        )
        assert (status, commands.calls[-1][4]) == (200, "a b c d")


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], {"GET /v1/status": 403, "GET /nowhere": 403, "POST /v1/plan": 403, "POST /v1/level": 403}),
        (
            [READERS],
            {
                "GET /v1/status": 200, "GET /v1/openapi.json": 200, "GET /nowhere": 404, "POST /v1/plan": 200,
                "POST /v1/level": 403, "POST /v1/rollback": 403, "POST /v1/reload": 403,
            },
        ),
        ([OPERATORS], {"GET /v1/status": 200, "POST /v1/plan": 200, "POST /v1/level": 200}),
    ],
)  # fmt: skip
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


async def test_a_flood_of_attempts_writes_few_lines():
    async with running() as (commands, path, server, _):
        script = request_bytes("POST", "/v1/level", json.dumps(LEVEL).encode(), close=False)
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/python3", "-I", "-c",
            "import socket,sys\ns=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); d=sys.stdin.buffer.read()\n"
            "for _ in range(200):\n s.sendall(d); s.recv(65536)",
            str(path), stdin=asyncio.subprocess.PIPE, user=61011, group=61011, extra_groups=[], cwd="/",
        )  # fmt: skip
        await process.communicate(script)
        assert process.returncode == 0
        assert len(commands.attempts) == 10
        await server.close()
        assert len(commands.attempts) == 11
        actor, what = commands.attempts[-1]
        assert actor.uid == 61011
        assert what.startswith("190 more attempts")
        assert not [call for call in commands.calls if call[0] == "level"]


async def test_a_refusal_stands_when_it_cannot_be_recorded():
    async with running(FakeCommands(forbidden_fails=True)) as (_, path, _server, log):
        assert (await ask_as(61011, [], path, "GET", "/v1/status"))[0] == 403
        assert "could not be recorded" in log.lines[-1][1]


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
    async with running(FakeCommands(delay=0.2)) as (_commands, path, server, _log):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(data)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert parse(answer)[0] == 200
        writer.close()
        await asyncio.sleep(0.05)
        assert sum(server._door.admission.held().values()) == 0, "and its place is free again"


async def test_a_client_that_stops_sending_in_the_middle_or_before_is_let_go():
    async with running(request_seconds=0.5) as (commands, path, server, _log):
        for start in (
            b"",
            b"POST /v1/level HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        ):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(start)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 10)
            writer.close()
        await asyncio.sleep(0.05)
        assert not commands.calls
        assert sum(server._door.admission.held().values()) == 0


PROBLEMS = [
    ("GET", "/nowhere", None, (), 404),
    ("GET", "/v1/status/", None, (), 404),
    ("GET", "/v1/generations/99", None, (), 404),
    ("GET", "/v1/generations/-1", None, (), 404),
    ("GET", "/v1/generations/9999999999999", None, (), 404),
    ("DELETE", "/v1/status", None, (), 405),
    ("GET", "/v1/level", None, (), 405),
    ("GET", "/v1/status?x=1", None, (), 400),
    ("GET", "/v1/refused?limit=0", None, (), 400),
    ("GET", "/v1/refused?limit=many", None, (), 400),
    ("POST", "/v1/level", b"", (), 400),
    ("POST", "/v1/level", b"{", (), 400),
    ("POST", "/v1/level", b"[]", (), 400),
    ("POST", "/v1/level", b"\xff\xfe", (), 400),
    ("POST", "/v1/level", b"[" * 60_000, (), 400),
    ("POST", "/v1/level", b'{"level": ' + b"9" * 5000 + b"}", (), 400),
    ("POST", "/v1/level", b'{"level":"cut","level":"open"}', (), 400),
    ("POST", "/v1/level", b'{"level":"cut","extra":1}', (), 400),
    ("POST", "/v1/level", b'{"level":1}', (), 400),
    ("POST", "/v1/level", b'{"level":"cut","zones":[]}', (), 400),
    ("POST", "/v1/level", b'{"level":"cut","zones":"care"}', (), 400),
    ("POST", "/v1/level", b'{"level":"' + b"x" * 65 + b'"}', (), 400),
    ("POST", "/v1/level", b'{"level":"cut","reason":"' + b"x" * 1001 + b'"}', (), 400),
    ("POST", "/v1/level", b'{"level":"nowhere"}', (), 422),
    ("POST", "/v1/rollback", b'{"generation":true}', (), 400),
    ("POST", "/v1/rollback", b'{"generation":-1}', (), 400),
    ("POST", "/v1/reload", b'{"expect":"sha256:other"}', (), 409),
    ("POST", "/v1/plan", b"{}", (), 400),
    ("POST", "/v1/plan", b'{"level":"cut","reload":true}', (), 400),
    ("POST", "/v1/plan", b'{"reload":true,"zones":["care"]}', (), 400),
    ("POST", "/v1/level", b"x" * 65537, (), 413),
    ("POST", "/v1/level", b'{"level":"cut"}', ("Content-Type: text/plain",), 415),
    ("POST", "/v1/level", b'{"level":"cut"}', ("Content-Encoding: gzip",), 415),
]


async def test_problems_are_documents_and_change_nothing():
    async with running() as (commands, path, *_):
        for method, where, body, headers, expected in PROBLEMS:
            status, found, answer = await ask(path, method, where, body, headers)
            what = (method, where, (body or b"")[:40])
            assert (status, answer["status"]) == (expected, expected), (what, answer)
            assert found["content-type"] == "application/problem+json", what
            assert {"type", "title", "detail", "instance", "hint", "kind", "retry"} <= set(
                answer
            ), what
            assert answer["detail"], what
            assert "Traceback" not in json.dumps(answer), what
        assert len(commands.history) == 1


async def test_what_a_path_allows_is_said():
    async with running() as (_, path, *_rest):
        _, headers, _ = await ask(path, "GET", "/v1/rollback")
        assert headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EcluseError("it failed", hint="look"), 500, "failed"),
        (EcluseError("busy", retry=True), 503, "failed"),
        (KernelError("no"), 500, "kernel"),
        (RulesetRejectedError("no"), 500, "ruleset-rejected"),
        (NotVerifiedError("level open stands"), 500, "not-verified"),
        (StateError("disk full"), 500, "state"),
        (ResolveError("no"), 500, "resolve"),
        (ConfigError((Fault("site.yaml", 3, 7, "unknown key 'x'", "a known one"),)), 422, "config"),
    ],
)
async def test_errors_become_problems(error, status, kind):
    async with running(FakeCommands(raising=error)) as (_, path, *_rest):
        found, _, answer = await ask(path, "POST", "/v1/level", LEVEL)
        assert (found, answer["kind"], answer["detail"], answer["hint"]) == (
            status,
            kind,
            error.message,
            error.hint,
        )
        assert answer["instance"] == "/v1/level"
        if kind == "config":
            assert answer["faults"] == [
                {
                    "file": "site.yaml",
                    "line": 3,
                    "column": 7,
                    "wrong": "unknown key 'x'",
                    "expected": "a known one",
                }
            ]


@pytest.mark.parametrize(
    "error", [ValueError("secret path"), ConnectionResetError("kernel went"), TimeoutError()]
)
async def test_the_unexpected_is_a_problem_without_its_insides(error):
    async with running(FakeCommands(raising=error)) as (_, path, _server, log):
        for method, where, body in (
            ("POST", "/v1/level", LEVEL),
            ("GET", "/v1/status", None),
            ("GET", "/metrics", None),
        ):
            status, _, answer = await ask(path, method, where, body)
            assert (status, answer["kind"]) == (500, "internal"), where
            assert "secret" not in json.dumps(answer)
            assert "not known" in answer["detail"]
        logged = [values for kind, _, values in log.lines if kind == "error"]
        assert len(logged) == 3
        assert "fake_commands" in str(logged[0]["at"])


async def test_who_hangs_up_does_not_stop_the_command():
    async with running(FakeCommands(delay=0.3)) as (commands, path, *_):
        with hold(path, request_bytes("POST", "/v1/level", json.dumps(LEVEL).encode())):
            await asyncio.sleep(0.1)
        assert commands.calls
        assert commands.finished == 0
        await asyncio.sleep(0.4)
        assert commands.finished == 1


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


async def test_closing_lets_a_running_command_end_and_answers_it():
    async with running(FakeCommands(delay=2.6)) as (commands, path, server, _):
        asked = asyncio.ensure_future(ask(path, "POST", "/v1/level", LEVEL))
        await asyncio.sleep(0.1)
        await server.close()
        assert commands.finished == 1
        status, _, change = await asked
        assert (status, change["changed"]) == (200, True)


async def test_readings_of_readers_wait_in_their_own_lane():
    async with running(FakeCommands(delay=0.1)) as (commands, path, *_):
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


async def test_metrics():
    async with running() as (commands, path, *_):
        commands.levels["care"] = "cut"
        status, headers, text = await ask(path, "GET", "/metrics")
        assert (status, headers["content-type"]) == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        )
        found = {
            (s.name, *sorted(s.labels.values())): s.value
            for family in text_string_to_metric_families(text.decode())
            for s in family.samples
        }
        assert found["ecluse_level", "care", "cut"] == 1
        assert ("ecluse_level", "care", "open") not in found
        assert (found["ecluse_zone_open", "care"], found["ecluse_zone_open", "guests"]) == (0, 1)
        assert found["ecluse_service_packets_total", "laboratory"] == 1200
        assert found["ecluse_service_bytes_total", "laboratory"] == 90_000
        assert found["ecluse_refused_packets_total", "outbound"] == 7
        assert (found["ecluse_in_step",], found["ecluse_generation",], found["ecluse_armed",]) == (
            1,
            1,
            1,
        )
        assert found["ecluse_api_connections", "root"] == 1
        assert not [name for name, *_ in found if not name.startswith("ecluse")]


async def test_events_come_as_lines_with_heartbeats_and_end_with_the_client():
    async with running(heartbeat_seconds=0.2) as (commands, path, *_):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"application/x-ndjson" in head
        assert json.loads(await reader.readline())["kind"] == "heartbeat"
        commands.tell("one")
        commands.tell("two")
        assert [json.loads(await reader.readline())["message"] for _ in range(2)] == ["one", "two"]
        assert json.loads(await asyncio.wait_for(reader.readline(), 2))["kind"] == "heartbeat"
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)
        assert (commands.ended_streams, commands.subscribers) == (1, [])


async def test_events_end_when_the_server_stops_or_the_source_ends():
    async with running() as (commands, path, server, _):
        first = asyncio.ensure_future(
            raw(path, b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        )
        await asyncio.sleep(0.1)
        commands.subscribers[0].put_nowait(None)
        assert b"heartbeat" in await asyncio.wait_for(first, 2)
        second = asyncio.ensure_future(
            raw(path, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        )
        await asyncio.sleep(0.1)
        await asyncio.wait_for(server.close(), 3)
        assert (await asyncio.wait_for(second, 2)).endswith(b"0\r\n\r\n")
        assert commands.ended_streams == 2


async def test_a_socket_file_of_a_dead_daemon_is_replaced_and_ours_removed(tmp_path):
    path = tmp_path / "run" / "e.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running(socket_path=path, mode=0o640, group="4711"):
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o640, 4711)
        assert (await ask(path, "GET", "/v1/status"))[0] == 200
        assert os.listdir(path.parent) == ["e.sock"]
    assert not path.exists()


async def test_a_living_daemon_keeps_its_socket(tmp_path):
    path = tmp_path / "e.sock"
    async with running(socket_path=path):
        with pytest.raises(StateError, match="another daemon"):
            async with running(socket_path=path):
                pass
        assert (await ask(path, "GET", "/v1/status"))[0] == 200
        assert os.listdir(tmp_path) == ["e.sock"]


async def test_what_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "e.sock"
    path.write_text("precious")
    with pytest.raises(StateError, match="is no socket"):
        async with running(socket_path=path):
            pass
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["e.sock"]


async def test_a_socket_that_another_made_since_is_not_removed(tmp_path):
    path = tmp_path / "e.sock"
    async with running(socket_path=path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


async def test_a_path_that_is_too_long_is_said(tmp_path):
    with pytest.raises(StateError, match="too long"):
        async with running(socket_path=tmp_path / ("x" * 120)):
            pass


async def test_a_socket_from_systemd(tmp_path):
    path = tmp_path / "given.sock"
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(path))
    given.listen()
    async with running(listen_fds=[given.detach()]):
        assert (await ask(path, "GET", "/v1/status"))[0] == 200
    assert path.exists()  # it is systemd's, not ours to remove


async def test_what_systemd_should_not_have_passed_is_said():
    one, other = socket.socketpair()
    with (
        contextlib.closing(one),
        contextlib.closing(other),
        pytest.raises(StateError, match="not a listening"),
    ):
        async with running(listen_fds=[os.dup(one.fileno())]):
            pass


def test_the_variables_of_systemd():
    assert activated_fds({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, 7) == (3, 4)
    assert activated_fds({"LISTEN_PID": "8", "LISTEN_FDS": "2"}, 7) == ()
    assert activated_fds({}, 7) == ()
    assert activated_fds({"LISTEN_PID": "7", "LISTEN_FDS": "x"}, 7) == ()
    assert activated_fds({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, 7) == ()
