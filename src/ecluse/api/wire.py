"""What goes over the wire: requests checked strictly, answers written field for field from the
frozen values.
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
from ecluse.results import Purge, ServiceStatus
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


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Why(_Strict):
    reason: Words = ""
    authorised_by: Words = ""


class LevelRequest(_Why):
    """Set a level. zones: where, left out: everywhere.

    expect_generation: the one that stood when somebody decided; if another stands, nothing is
    opened.
    """

    level: Name
    zones: Zones | None = None
    expect_generation: Number | None = None


class RollbackRequest(_Why):
    """Go back. generation: to which, left out: to the one before.

    expect_generation: the one that stood when somebody decided; if another stands, nothing is done.
    """

    generation: Number | None = None
    expect_generation: Number | None = None


class ReloadRequest(_Why):
    """Apply the site's files.

    expect: digest of the plan that was shown; if it is no longer true nothing is done.
    """

    expect: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


class PlanRequest(_Strict):
    """Ask what one change would do: `level` (and `zones`), or `generation` (a rollback), or
    `reload`.
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


class NoQuery(_Strict):
    """No query parameters."""


class LimitQuery(BaseModel):
    """How many to give. Not strict: a query parameter is always text."""

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
    """One generation, and how the end of its connections went."""

    generation: Generation
    purge: Purge | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A line of the event stream that says only that the stream lives."""

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

    kind: of ecluse.errors, or `http` for what HTTP itself refuses. retry: the same request may work
    in a moment.
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
    """Give the one serialiser of a type; the OpenAPI document is written from the same."""
    return TypeAdapter(kind)


def to_json(value: Any, kind: Any) -> bytes:
    """Write a value of type `kind` as JSON, times as ISO 8601 in UTC."""
    return adapter(kind).dump_json(value, fallback=_plain, warnings=False)


def in_pieces(value: Any, kind: Any) -> bytes:
    """Write as `to_json` does, long lists of values one by one: on a thread no piece keeps the
    interpreter from the loop.
    """
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return to_json(value, kind)
    return (
        b"{"
        + b",".join(
            f'"{name}":'.encode() + _field(getattr(value, name), of) for name, of in _hints(kind)
        )
        + b"}"
    )


@cache
def _hints(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((one.name, hints[one.name]) for one in fields(kind))


def _field(value: Any, kind: Any) -> bytes:
    if get_origin(kind) is tuple and is_dataclass(get_args(kind)[0]):
        return b"[" + b",".join(to_json(one, get_args(kind)[0]) for one in value) + b"]"
    return to_json(value, kind)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):  # a read-only view is a mapping too
        return dict(value)
    raise TypeError(type(value).__name__)


def read_body(body: bytes, model: type[Model]) -> Model:
    """Check a request body. ValueError in words for a person; an empty body counts as `{}`."""
    body = body or b"{}"
    try:
        json.loads(body, object_pairs_hook=_no_twins)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise ValueError(_in_words(error)) from None


def read_query(query: Mapping[str, str], model: type[Model]) -> Model:
    """Check query parameters. ValueError in words for a person."""
    try:
        return model.model_validate(dict(query))
    except ValidationError as error:
        raise ValueError(_in_words(error)) from None


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the same key stands twice: {key[:64]!r}")
        found[key] = value
    return found


def _in_words(error: ValidationError) -> str:
    def words(one: Any) -> str:
        place = ".".join(str(part)[:64] for part in one["loc"])
        message = str(one["msg"]).removeprefix("Value error, ")
        return f"{place}: {message}" if place else message

    return "; ".join(
        words(one) for one in error.errors(include_url=False, include_context=False)[:8]
    )
