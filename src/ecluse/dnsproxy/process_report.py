"""The report of the gate's process, as the daemon takes it: another user's file, so each row is
judged by itself.
"""

import json
import math
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from ecluse.lenient_rows import parse_rows
from ecluse.ports import DeniedQuery, DnsReport

_NUMBERS = ("starts", "learned", "refused", "removed", "adopted", "unread")
_MOST = (1 << 63) - 1
_LONGEST = 1000
"""Characters of a text: a name has at most 253 bytes, each written with four at the most."""


def parse(data: bytes) -> DnsReport | None:
    """Read a report; None when it is no such thing at all.

    What of it can't be read is left out, counted and told.
    """
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    numbers, bad_numbers = parse_rows(_NUMBERS, lambda key: (key, _number(told.get(key, 0))))
    last, bad_last = parse_rows(("removed_last",), lambda key: _text(told.get(key, "")))
    trouble, bad_trouble = parse_rows(_list(told.get("trouble", [])), _text)
    strained, bad_strained = parse_rows(
        _items(told.get("strained", {})), lambda item: (_text(item[0]), _number(item[1]))
    )
    questions, bad_questions = parse_rows(_list(told.get("questions", [])), _question)
    validating, bad_validating = parse_rows(
        _list(told.get("validating", [])), lambda row: str(ip_address(_text(row)))
    )
    bad = bad_validating + bad_numbers + bad_last + bad_trouble + bad_strained + bad_questions
    if bad:
        trouble.append(f"{bad} rows of its report could not be read and are left out")
    known = dict.fromkeys(_NUMBERS, 0) | dict(numbers)
    return DnsReport(
        trouble=tuple(trouble),
        starts=known["starts"],
        learned=known["learned"],
        strained=dict(strained),
        refused=known["refused"],
        questions=tuple(questions),
        removed=known["removed"],
        removed_last="".join(last),
        adopted=known["adopted"],
        unread=known["unread"] + bad,
        validating=tuple(validating),
    )


def _list(value: Any) -> Iterable[Any]:
    """Give the rows; what is no list is one row, of a kind that nobody reads."""
    return value if isinstance(value, list) else [None]


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else [(None, None)]


def _question(row: Any) -> DeniedQuery:
    last = row["last"]
    if type(last) not in {int, float} or not math.isfinite(last) or not 0 <= last <= _MOST:
        raise ValueError("no moment")
    client = ip_address(_text(row["client"]).partition("%")[0])
    return DeniedQuery(
        str(client),
        _text(row["name"]),
        _text(row["type"]),
        _text(row["why"]),
        _number(row["times"]),
        float(last),
    )


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError("no number")
    return value


def _text(value: Any) -> str:
    """Give a text that can be written anywhere.

    ValueError: it is none, too long, or half of a character (a lone surrogate).
    """
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError("no text")
    value.encode()
    return value
