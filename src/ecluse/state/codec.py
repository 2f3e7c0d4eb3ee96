"""Frozen dataclasses to canonical JSON and back: equal values give equal bytes, and the bytes give an equal value."""

import dataclasses
import enum
import functools
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

from ecluse.policy import Policy

T = TypeVar("T")

_AS_TEXT = (IPv4Address, IPv6Address, IPv4Network, IPv6Network)
_AS_IS = (str, int, bool)


def encode(value: Any) -> Any:
    """Give what JSON can hold: dataclass -> object, tuple -> list, frozenset -> sorted list, address, date -> text."""
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(encode(item) for item in value)
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return _encode_scalar(value)


def _encode_scalar(value: Any) -> str | int | bool | None:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, date):  # a datetime is a date too
        return value.isoformat()
    if isinstance(value, _AS_TEXT):
        return str(value)
    if value is None or isinstance(value, _AS_IS):
        return value
    raise TypeError(f"no JSON for {type(value).__name__}")


def decode(kind: type[T], value: Any) -> T:
    """Give the value of type `kind` that `value` stands for. ValueError when it is not one: nothing is coerced."""
    return typing.cast("T", _decode(kind, value))


def _decode(kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is None:
        return _decode_object(kind, value) if dataclasses.is_dataclass(kind) else _decode_scalar(kind, value)
    arguments = typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _decode_union(arguments, value)
    if issubclass(origin, Mapping):
        return {key: _decode(arguments[1], item) for key, item in _expect(dict, value).items()}
    # What is left are tuple[X, ...] and frozenset[X].
    return origin(_decode(arguments[0], item) for item in _expect(list, value))


def _decode_scalar(kind: Any, value: Any) -> Any:
    if kind in (date, datetime):
        return kind.fromisoformat(_expect(str, value))
    if kind in _AS_TEXT or issubclass(kind, enum.Enum):
        return kind(_expect(str, value))
    return _expect(kind, value)


def _decode_union(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return _decode(kind, value)
        except ValueError:
            continue
    raise ValueError(f"{value!r:.80} is none of {kinds}")


def _decode_object(kind: Any, value: Any) -> Any:
    hints = _hints(kind)
    found = set(_expect(dict, value))
    if found != set(hints):
        raise ValueError(f"{kind.__name__} has the wrong parts: {sorted(found ^ set(hints))}")
    return kind(**{name: _decode(hints[name], value[name]) for name in hints})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _expect(kind: type, value: Any) -> Any:
    if type(value) is not kind:  # exact: True is an int to isinstance
        raise ValueError(f"expected {kind.__name__}, got {value!r:.80}")
    return value


def canonical(value: Any) -> bytes:
    """Give the one spelling of a value: sorted keys, no spaces, UTF-8, no newline at the end."""
    text = json.dumps(
        encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode()


def read_canonical(kind: type[T], data: bytes) -> T:
    """Read what `canonical` wrote. ValueError when it is anything else, another spelling of the same value included."""
    try:
        value = decode(kind, json.loads(data))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if canonical(value) != data:
        raise ValueError("not the canonical spelling")
    return value


def digest(data: bytes) -> str:
    """Give `sha256:HEX` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def policy_digest(policy: Policy) -> str:
    """Give the digest that a policy is known by: sha256 of its canonical JSON."""
    return digest(canonical(policy))
