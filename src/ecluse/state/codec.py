"""Frozen dataclasses to canonical JSON and back.

Equal values give equal bytes, and the bytes give an equal value.
"""

import dataclasses
import enum
import functools
import hashlib
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

from ecluse.gc_pause import without_gc
from ecluse.policy import Policy, parse_network
from ecluse.policy.networks import network_text

T = TypeVar("T")

_AS_TEXT = (IPv4Address, IPv6Address, IPv4Network, IPv6Network)
_AS_IS = (str, int, bool)


def encode(value: Any) -> Any:
    """Give the JSON value of a value.

    dataclass -> object, tuple -> list, frozenset -> sorted list, address and date -> text.
    """
    if isinstance(value, _AS_TEXT):
        return network_text(value) if type(value) is IPv4Network else str(value)
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(encode(item) for item in value)
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {name: encode(item) for name, item in _written_fields(value)}
    return _encode_scalar(value)


def _written_fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Give the fields of a dataclass that are written.

    One that was added later (policy.ADDED_LATER) is written only when it differs from its
    default.
    """
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if not field.metadata or item != field.default:
            yield field.name, item


def _encode_scalar(value: Any) -> str | int | bool | None:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, date):  # a datetime is a date too
        return value.isoformat()
    if value is None or isinstance(value, _AS_IS):
        return value
    raise TypeError(f"no JSON for {type(value).__name__}")


def decode(kind: type[T], value: Any) -> T:
    """Give the value of type `kind` that `value` stands for.

    ValueError when it is not one: nothing is coerced.
    """
    hashable: Any = kind  # as every type is; mypy is not so sure of a type[T]
    return typing.cast("T", _decoder(hashable)(value))


@functools.cache
def _decoder(kind: Any) -> Callable[[Any], Any]:
    """Make the function that decodes a value of this type.

    Cached: a type's fields are looked up once, and not for every value.
    """
    origin = typing.get_origin(kind)
    if origin is None:
        return _object_decoder(kind) if dataclasses.is_dataclass(kind) else _scalar_decoder(kind)
    arguments = typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _union_decoder(arguments)
    if issubclass(origin, Mapping):
        part = _decoder(arguments[1])
        return lambda value: {key: part(item) for key, item in _checked_type(dict, value).items()}
    # What is left are tuple[X, ...] and frozenset[X].
    part = _decoder(arguments[0])
    return lambda value: origin(map(part, _checked_type(list, value)))


def _scalar_decoder(kind: Any) -> Callable[[Any], Any]:
    if kind in (date, datetime):
        return lambda value: kind.fromisoformat(_checked_type(str, value))
    if kind in _AS_TEXT or issubclass(kind, enum.Enum):
        return lambda value: kind(_checked_type(str, value))
    return lambda value: _checked_type(kind, value)


def _union_decoder(kinds: tuple[Any, ...]) -> Callable[[Any], Any]:
    parts = [_decoder(kind) for kind in kinds]

    def decode(value: Any) -> Any:
        for part in parts:
            try:
                return part(value)
            except ValueError:
                continue
        raise ValueError(f"{value!r:.80} is none of {kinds}")

    if set(kinds) == {IPv4Network, IPv6Network}:  # nearly all of a large policy
        return lambda value: (parse_network(value) if type(value) is str else None) or decode(value)
    return decode


def _object_decoder(kind: Any) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    parts = {field.name: _decoder(hints[field.name]) for field in dataclasses.fields(kind)}
    needed = {field.name for field in dataclasses.fields(kind) if not field.metadata}

    def decode(value: Any) -> Any:
        found = _checked_type(dict, value)
        if not needed <= found.keys() <= parts.keys():
            wrong = sorted(needed - found.keys() | found.keys() - parts.keys())
            raise ValueError(f"{kind.__name__} has the wrong parts: {wrong}")
        return kind(**{name: parts[name](item) for name, item in found.items()})

    return decode


def _checked_type(kind: type, value: Any) -> Any:
    if type(value) is not kind:  # exact: True is an int to isinstance
        raise ValueError(f"expected {kind.__name__}, got {value!r:.80}")
    return value


def canonical(value: Any) -> bytes:
    """Give the one spelling of a value: sorted keys, no spaces, UTF-8, no newline at the end."""
    text = json.dumps(
        encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode()


@without_gc()
def read_json(kind: type[T], data: bytes) -> T:
    """Read what `canonical` wrote, where a digest already proves that it is those bytes.

    ValueError when it is no `kind`.
    """
    try:
        return decode(kind, json.loads(data))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_canonical(kind: type[T], data: bytes) -> T:
    """Read what `canonical` wrote.

    ValueError when it is anything else, another spelling of the same value included.
    """
    value = read_json(kind, data)
    if canonical(value) != data:
        raise ValueError("not the canonical spelling")
    return value


def digest(data: bytes) -> str:
    """Give `sha256:HEX` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def policy_digest(policy: Policy) -> str:
    """Give the digest that a policy is known by: sha256 of its canonical JSON."""
    return digest(canonical(policy))
