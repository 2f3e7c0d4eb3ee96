"""Requests and answers on the wire.

Requests are checked strictly; answers are written field for field from the frozen values.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from ecluse.records import Generation
from ecluse.results import Purge, SecondLockState, ServiceStatus
from ecluse.safe_text import single_line

MAX_BODY = 64 << 10
"""Bytes of a request body; more is answered by 413."""


def _as_single_line(value: Any) -> Any:
    # A strange character in the reason must never be what a cut fails on.
    return single_line(value) if isinstance(value, str) else value


Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Words = Annotated[str, BeforeValidator(_as_single_line), StringConstraints(max_length=1000)]
Number = Annotated[int, Field(ge=0, le=10**12)]
Zones = Annotated[tuple[Name, ...], Field(min_length=1, max_length=256)]


Model = TypeVar("Model", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _ReasonedRequest(_Request):
    reason: Words = ""
    authorised_by: Words = ""


class LevelRequest(_ReasonedRequest):
    """Set a level.

    zones: where; everywhere when left out.
    expect_generation: the current one when the person decided; if another is current, nothing is
    opened.
    """

    level: Name
    zones: Zones | None = None
    expect_generation: Number | None = None


class RollbackRequest(_ReasonedRequest):
    """Go back.

    generation: to which; to the one before when left out.
    expect_generation: the current one when the person decided; if another is current, nothing is
    done.
    """

    generation: Number | None = None
    expect_generation: Number | None = None


class ReloadRequest(_ReasonedRequest):
    """Apply the site's files.

    expect: digest of the plan that was shown; if the plan is another by now, nothing is done.
    """

    expect: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


class PlanRequest(_Request):
    """Ask what one change would do.

    The change is `level` (and `zones`), or `generation` (a rollback), or `reload`.
    """

    level: Name | None = None
    zones: Zones | None = None
    generation: Number | None = None
    reload: bool = False

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if (self.level is not None) + (self.generation is not None) + self.reload != 1:
            raise ValueError("give exactly one of level, generation, reload")
        if self.zones is not None and self.level is None:
            raise ValueError("zones goes with level only")
        return self


class NoQuery(_Request):
    """No query parameters."""


class LimitQuery(BaseModel):
    """How many rows to give."""

    # Not strict: a query parameter is always text.

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=10_000)] = 100


@dataclass(frozen=True, slots=True)
class Services:
    """Every service of the allowlist."""

    services: tuple[ServiceStatus, ...]


@dataclass(frozen=True, slots=True)
class Generations:
    """Every recorded generation, newest first."""

    generations: tuple[Generation, ...]


@dataclass(frozen=True, slots=True)
class GenerationDetail:
    """One generation, and how the end of its connections went.

    second_lock: as it is now, where this is the newest generation.
    """

    generation: Generation
    purge: Purge | None
    second_lock: SecondLockState | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A line of the event stream that only shows that the stream works."""

    at: datetime
    kind: Literal["heartbeat"] = "heartbeat"


@dataclass(frozen=True, slots=True)
class FaultAt:
    """One thing wrong in one file of the site."""

    file: str
    line: int
    column: int
    wrong: str
    expected: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457). kind, retry, hint and faults are ours.

    kind: of ecluse.errors, or `http` for a request that HTTP itself refuses.
    retry: the same request may work in a moment.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    kind: str
    retry: bool = False
    hint: str = ""
    faults: tuple[FaultAt, ...] = ()


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Give the serialiser of a type. The OpenAPI document is made from the same one."""
    return TypeAdapter(kind)


def to_json(value: Any, kind: Any) -> bytes:
    """Write a value of type `kind` as JSON, times as ISO 8601 in UTC."""
    return adapter(kind).dump_json(value, fallback=_mapping_as_dict, warnings=False)


def to_json_in_pieces(value: Any, kind: Any) -> bytes:
    """Write as `to_json` does, but the values of long lists one by one.

    For a thread: the event loop can run between the pieces.
    """
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return to_json(value, kind)
    return (
        b"{"
        + b",".join(
            f'"{name}":'.encode() + _field_json(getattr(value, name), of)
            for name, of in _hints(kind)
        )
        + b"}"
    )


@cache
def _hints(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((one.name, hints[one.name]) for one in fields(kind))


def _field_json(value: Any, kind: Any) -> bytes:
    if get_origin(kind) is tuple and is_dataclass(get_args(kind)[0]):
        return b"[" + b",".join(to_json(one, get_args(kind)[0]) for one in value) + b"]"
    return to_json(value, kind)


def _mapping_as_dict(value: Any) -> Any:
    if isinstance(value, Mapping):  # a read-only view is a mapping too
        return dict(value)
    raise TypeError(type(value).__name__)


def parse_body(body: bytes, model: type[Model]) -> Model:
    """Parse and check a request body; an empty one counts as `{}`.

    ValueError: what is wrong with it, in words for a person.
    """
    body = body or b"{}"
    try:
        json.loads(body, object_pairs_hook=_refuse_duplicates)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise ValueError(_error_text(error)) from None


def parse_query(query: Mapping[str, str], model: type[Model]) -> Model:
    """Parse and check query parameters. ValueError as for a body."""
    try:
        return model.model_validate(dict(query))
    except ValidationError as error:
        raise ValueError(_error_text(error)) from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the same key stands twice: {key[:64]!r}")
        found[key] = value
    return found


def _error_text(error: ValidationError) -> str:
    def line(one: Any) -> str:
        place = ".".join(str(part)[:64] for part in one["loc"])
        message = str(one["msg"]).removeprefix("Value error, ")
        return f"{place}: {message}" if place else message

    return "; ".join(
        line(one) for one in error.errors(include_url=False, include_context=False)[:8]
    )
