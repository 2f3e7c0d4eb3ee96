"""Every route of the core's API in one table.

The server dispatches by it, and the OpenAPI document is made from it.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from ecluse.api.peer import Role
from ecluse.api.wire import (
    GenerationDetail,
    Generations,
    Heartbeat,
    LevelRequest,
    LimitQuery,
    NoQuery,
    PlanRequest,
    ReloadRequest,
    RollbackRequest,
    Services,
)
from ecluse.controller import Controller
from ecluse.records import Action, Actor, Command, Sender
from ecluse.results import Change, Event, Plan, Refused, Status

JSON = "application/json"
NDJSON = "application/x-ndjson"
METRICS = "text/plain"


@dataclass(frozen=True, slots=True)
class Call:
    """One request after its check.

    number: of the generation in its path; 0 when there is none.
    """

    controller: Controller
    actor: Actor
    sender: Sender
    body: Any
    query: Any
    number: int

    def command(self, action: Action) -> Command:
        """Make the command that this request is."""
        return Command(
            action, self.actor, self.body.reason, self.body.authorised_by, sender=self.sender
        )


@dataclass(frozen=True)
class Route:
    """One request that the API answers.

    act: makes the answer; None where the server itself does (streams, metrics, this very list).
    changes: it may change what passes. Such a call runs to its end even when the client hangs up.
    """

    method: str
    path: str
    summary: str
    needs: Role
    answer: Any
    act: Callable[[Call], Awaitable[Any]] | None = None
    body: type[BaseModel] | None = None
    query: type[BaseModel] = NoQuery
    media: str = JSON
    changes: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Give the pattern of its paths; the only parameter is a generation's number."""
        return re.compile(self.path.replace("{number}", "(?P<number>[0-9]{1,12})"))


async def _services(call: Call) -> Services:
    return Services(await call.controller.services())


async def _generations(call: Call) -> Generations:
    return Generations(call.controller.generations())


async def _generation(call: Call) -> GenerationDetail:
    return GenerationDetail(
        call.controller.generation(call.number),
        call.controller.purge(call.number),
        await call.controller.second_lock(call.number),
    )


async def _level(call: Call) -> Change:
    asked: LevelRequest = call.body
    return await call.controller.set_level(
        asked.level, asked.zones, call.command(Action.LEVEL), expect=asked.expect_generation
    )


async def _rollback(call: Call) -> Change:
    asked: RollbackRequest = call.body
    return await call.controller.rollback(
        asked.generation, call.command(Action.ROLLBACK), expect=asked.expect_generation
    )


async def _reload(call: Call) -> Change:
    asked: ReloadRequest = call.body
    return await call.controller.reload(call.command(Action.RELOAD), expect=asked.expect)


async def _plan(call: Call) -> Plan:
    asked: PlanRequest = call.body
    return await call.controller.plan(
        level=asked.level, zones=asked.zones, rollback=asked.generation, reload=asked.reload
    )


_R, _O = Role.READER, Role.OPERATOR

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/status", "Where we are", _R, Status, lambda call: call.controller.status()),
    Route("GET", "/v1/services", "Every service of the allowlist", _R, Services, _services),
    Route("GET", "/v1/generations", "Every recorded state, newest first", _R, Generations,
          _generations),
    Route("GET", "/v1/generations/{number}", "One recorded state", _R, GenerationDetail,
          _generation),
    Route("POST", "/v1/level", "Set a level", _O, Change, _level, LevelRequest, changes=True),
    Route("POST", "/v1/rollback", "Go back to a recorded state", _O, Change, _rollback,
          RollbackRequest, changes=True),
    Route("POST", "/v1/reload", "Apply the site's files", _O, Change, _reload, ReloadRequest,
          changes=True),
    Route("POST", "/v1/plan", "What a change would do, with nothing done", _R, Plan, _plan,
          PlanRequest),
    Route("GET", "/v1/refused", "Who keeps trying to get out, most packets first", _R, Refused,
          lambda call: call.controller.refused(call.query.limit), query=LimitQuery),
    Route("GET", "/v1/events", "What happens, a line of JSON each", _R, Event | Heartbeat,
          media=NDJSON),
    Route("GET", "/metrics", "The status for Prometheus", _R, str, media=METRICS),
    Route("GET", "/v1/openapi.json", "This description", _R, dict[str, Any]),
)  # fmt: skip


def find_route(
    method: str, path: str, more: Sequence[Route] = ()
) -> tuple[Route | None, int, tuple[str, ...]]:
    """Find the route of a request in ROUTES, then in `more`: the routes of extensions.

    Returns the route (None: there is none), the number in its path (0: none), and the methods that
    the path has.
    """
    allowed: list[str] = []
    for route in (*ROUTES, *more):
        match = route.pattern.fullmatch(path)
        if match is None:
            continue
        if route.method == method:
            return route, int(match.groupdict().get("number") or 0), (method,)
        allowed.append(route.method)
    return None, 0, tuple(allowed)
