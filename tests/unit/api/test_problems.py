"""Every error is a problem document that changes nothing and gives nothing away."""

import json

import pytest

from ecluse.errors import (
    ConfigError,
    EcluseError,
    KernelError,
    NotVerifiedError,
    RulesetRejectedError,
    StateError,
)  # fmt: skip
from ecluse.faults import Fault
from tests.unit.api.fake_controller import FakeController
from tests.unit.api.harness import (
    LEVEL,
    ask,
    running,
)

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


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EcluseError("it failed", hint="look"), 500, "failed"),
        (EcluseError("busy", retry=True), 503, "failed"),
        (KernelError("no"), 500, "kernel"),
        (RulesetRejectedError("no"), 500, "ruleset-rejected"),
        (NotVerifiedError("level open stands"), 500, "not-verified"),
        (StateError("disk full"), 500, "state"),
        (ConfigError((Fault("site.yaml", 3, 7, "unknown key 'x'", "a known one"),)), 422, "config"),
    ],
)
async def test_errors_become_problems(error, status, kind):
    async with running(FakeController(raising=error)) as (_, path, *_rest):
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
    async with running(FakeController(raising=error)) as (_, path, _server, log):
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
        assert "fake_controller" in str(logged[0]["at"])
