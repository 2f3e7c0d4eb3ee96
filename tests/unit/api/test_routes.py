"""Every route reaches the controller with what was asked."""

import os

from ecluse.api.peer import Role
from ecluse.api.routes import Route
from ecluse.api.wire import GenerationDetail
from tests.unit.api.fake_controller import DIGEST, FakeController
from tests.unit.api.harness import (
    LEVEL,
    ask,
    running,
)


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


async def test_what_a_path_allows_is_said():
    async with running() as (_, path, *_rest):
        _, headers, _ = await ask(path, "GET", "/v1/rollback")
        assert headers["allow"] == "POST"


async def test_routes_of_extensions_are_answered_described_and_guarded_as_any_other():
    async def hello(call):
        return GenerationDetail(call.controller.generation(call.number), None)

    more = (
        Route("GET", "/v1/grants/{number}", "One grant", Role.OPERATOR, GenerationDetail, hello),
        Route("GET", "/v1/status", "Another status", Role.READER, GenerationDetail, hello),
    )
    async with running(FakeController(routes=more)) as (commands, path, *_):
        status, _, answer = await ask(path, "GET", "/v1/grants/1")
        assert (status, answer["generation"]["number"]) == (200, 1)
        assert (await ask(path, "POST", "/v1/grants/1"))[0] == 405
        assert "site" in (await ask(path, "GET", "/v1/status"))[2], "the core's own come first"
        paths = (await ask(path, "GET", "/v1/openapi.json"))[2]["paths"]
        assert paths["/v1/grants/{number}"]["get"]["x-role"] == "operator"
        commands.routes = ()
        assert (await ask(path, "GET", "/v1/grants/1"))[0] == 404
        paths = (await ask(path, "GET", "/v1/openapi.json"))[2]["paths"]
        assert "/v1/grants/{number}" not in paths
