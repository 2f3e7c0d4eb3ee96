"""The description is true: it names what the server has, and its answers fit it."""

import json

import jsonschema
import pytest

from ecluse.api.openapi import document
from ecluse.api.routes import ROUTES
from ecluse.errors import ConfigError
from ecluse.faults import Fault
from tests.unit.api.fake_controller import DIGEST, FakeController
from tests.unit.api.harness import READERS, ask, ask_as, raw, running
from tests.unit.api.test_problems import PROBLEMS

BODIES = {
    "/v1/level": {"level": "cut", "zones": ["care"], "reason": "drill"},
    "/v1/rollback": {"generation": 1},
    "/v1/reload": {"expect": DIGEST},
    "/v1/plan": {"level": "cut"},
}


def closed(schema):
    """The same schema where an object may hold nothing that is not described."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: closed(part) for key, part in schema.items()}
    if "properties" in copy:
        copy.setdefault("additionalProperties", False)
    return copy


def check(served, schema, value):
    whole = {**closed(schema), "components": closed(served["components"])}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(
        value, whole, jsonschema.Draft202012Validator, format_checker=jsonschema.FormatChecker()
    )


async def described(path):
    status, headers, served = await ask(path, "GET", "/v1/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    return served


def operation(served, method, where):
    return served["paths"][where][method.lower()]


async def test_every_answer_of_the_real_server_fits_its_description():
    async with running() as (commands, path, *_):
        await ask(path, "POST", "/v1/level", {"level": "cut"})
        served = await described(path)
        seen = set()
        for where, operations in served["paths"].items():
            for method, one in operations.items():
                real = where.replace("{number}", "2")
                ((media, content),) = one["responses"]["200"]["content"].items()
                if media == "application/x-ndjson":
                    continue
                status, headers, answer = await ask(path, method.upper(), real, BODIES.get(where))
                assert (status, headers["content-type"].split(";")[0]) == (200, media), where
                value = answer.decode() if isinstance(answer, bytes) else answer
                check(served, content["schema"], value)
                seen.add((method.upper(), where))
        assert len(seen) == len(ROUTES) - 1
        assert commands.purge(2).state == "done"


async def test_both_kinds_of_event_lines_fit():
    async with running() as (commands, path, *_):
        served = await described(path)
        schema = operation(served, "GET", "/v1/events")["responses"]["200"]["content"][
            "application/x-ndjson"
        ]["schema"]
        import asyncio

        stream = asyncio.ensure_future(
            raw(path, b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        )
        await asyncio.sleep(0.1)
        commands.tell("one")
        commands.subscribers[0].put_nowait(None)
        lines = (await stream).partition(b"\r\n\r\n")[2].splitlines()
        assert len(lines) == 2
        for line in lines:
            check(served, schema, json.loads(line))
        with pytest.raises(jsonschema.ValidationError):
            check(served, schema, {"kind": "heartbeat"})


async def test_the_description_names_just_what_the_server_has():
    async with running() as (_, path, *_rest):
        served = await described(path)
        named = {
            (method.upper(), where) for where, found in served["paths"].items() for method in found
        }
        assert named == {(route.method, route.path) for route in ROUTES}
        for where in served["paths"]:
            real = where.replace("{number}", "1")
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
                if (method, where) == ("GET", "/v1/events"):
                    continue
                status, _, _ = await ask(path, method, real, b"{" if method == "POST" else None)
                assert (status == 405) is ((method, where) not in named), (method, where)


async def test_the_server_and_the_description_refuse_the_same_bodies():
    words = [
        {},
        {"level": "cut"},
        {"level": ""},
        {"level": 1},
        {"level": None},
        {"level": "x" * 64},
        {"level": "x" * 65},
        {"level": "cut", "zones": None},
        {"level": "cut", "zones": []},
        {"level": "cut", "zones": ["care"]},
        {"level": "cut", "zones": "care"},
        {"level": "cut", "reason": "x" * 1000},
        {"level": "cut", "reason": "x" * 1001},
        {"level": "cut", "reason": None},
        {"level": "cut", "other": 1},
        {"level": "cut", "authorised_by": 3},
        {"generation": 1},
        {"generation": 0},
        {"generation": -1},
        {"generation": 1.5},
        {"generation": "1"},
        {"generation": None},
        {"expect": DIGEST},
        {"expect": ""},
        {"expect": 5},
        {"reload": True},
        {"reload": "yes"},
        [],
        3,
    ]
    # What JSON Schema does not say: the one rule of /v1/plan about its parts, and `strict` about
    # true for 1.
    unsaid = "give exactly one of"
    async with running() as (_, path, *_rest):
        served = await described(path)
        for where in BODIES:
            schema = operation(served, "POST", where)["requestBody"]["content"]["application/json"][
                "schema"
            ]
            for word in words:
                status, _, answer = await ask(path, "POST", where, word)
                try:
                    check(served, schema, word)
                    fits = True
                except jsonschema.ValidationError:
                    fits = False
                if unsaid not in answer.get("detail", ""):
                    assert fits is (status != 400), (where, word, answer)


async def test_every_problem_fits_its_description():
    error = ConfigError((Fault("site.yaml", 3, 7, "unknown key 'x'", "a known one"),))
    async with running() as (_, path, *_rest):
        served = await described(path)
        schema = operation(served, "POST", "/v1/level")["responses"]["default"]["content"][
            "application/problem+json"
        ]["schema"]
        for method, where, body, headers, _ in PROBLEMS:
            _, _, answer = await ask(path, method, where, body, headers)
            check(served, schema, answer)
        _, _, answer = await ask_as(61011, [], path, "GET", "/v1/status")
        check(served, schema, answer)
    async with running(FakeController(raising=error)) as (_, path, *_rest):
        _, _, answer = await ask(path, "POST", "/v1/level", {"level": "cut"})
        assert answer["faults"]
        check(served, schema, answer)


async def test_the_roles_that_are_described_are_those_that_hold():
    async with running() as (_, path, *_rest):
        served = await described(path)
        for where, operations in served["paths"].items():
            for method, one in operations.items():
                if where == "/v1/events":
                    continue
                status, _, _ = await ask_as_reader(
                    path, method.upper(), where.replace("{number}", "1"), BODIES.get(where)
                )
                assert (status == 403) is (one["x-role"] == "operator"), where


async def ask_as_reader(path, method, where, body):
    if where == "/metrics":  # not JSON
        return 200, None, None
    return await ask_as(61011, [READERS], path, method, where, body)


def test_every_reference_leads_somewhere_and_names_are_unique():
    text = json.dumps(document())
    names = set(document()["components"]["schemas"])
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= names
    ids = [one["operationId"] for found in document()["paths"].values() for one in found.values()]
    assert len(ids) == len(set(ids))
    assert document()["openapi"].startswith("3.1")
