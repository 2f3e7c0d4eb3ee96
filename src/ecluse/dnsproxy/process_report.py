"""Parser for the DNS proxy's report: another user's file, so each row is judged by itself."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from ecluse.lenient_rows import parse_rows

_NUMBERS = ("starts", "learned", "refused", "removed", "adopted", "unread")
_MOST = (1 << 63) - 1
_LONGEST = 1000
"""Characters of a text: a name has at most 253 bytes, each written with four at the most."""


@dataclass(frozen=True, slots=True)
class RefusedQuery:
    """Refused queries of one machine for one name.

    why: `name`, `type`, `length`. last: UNIX time.
    """

    client: str
    name: str
    type: str
    why: str
    times: int
    last: float


@dataclass(frozen=True, slots=True)
class DnsReport:
    """What the DNS proxy reports.

    filtered: why queries that dnsmasq let through were refused, and how many.
    removed: addresses of somebody else that it deleted from its sets; removed_last: the newest.
    adopted: those that it kept after its journal was lost.
    unread: rows of dnsmasq's log or of the report that can't be read, and are left out.
    validating: machines that asked for keys of zones in the last hour.
    """

    trouble: tuple[str, ...]
    starts: int
    learned: int
    filtered: Mapping[str, int]
    refused: int
    questions: tuple[RefusedQuery, ...]
    removed: int = 0
    removed_last: str = ""
    adopted: int = 0
    unread: int = 0
    validating: tuple[str, ...] = ()


def parse_report(data: bytes) -> DnsReport | None:
    """Return a report, None for other data; rows that can't be read are left out and counted."""
    try:
        report = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict):
        return None
    numbers, bad_numbers = parse_rows(_NUMBERS, lambda key: (key, _number(report.get(key, 0))))
    last, bad_last = parse_rows(("removed_last",), lambda key: _text(report.get(key, "")))
    trouble, bad_trouble = parse_rows(_list(report.get("trouble", [])), _text)
    filtered, bad_filtered = parse_rows(
        _items(report.get("strained", {})), lambda item: (_text(item[0]), _number(item[1]))
    )
    questions, bad_questions = parse_rows(_list(report.get("questions", [])), _question)
    validating, bad_validating = parse_rows(
        _list(report.get("validating", [])), lambda row: str(ip_address(_text(row)))
    )
    bad = bad_validating + bad_numbers + bad_last + bad_trouble + bad_filtered + bad_questions
    if bad:
        trouble.append(f"{bad} rows of its report could not be read and are left out")
    known = dict.fromkeys(_NUMBERS, 0) | dict(numbers)
    return DnsReport(
        trouble=tuple(trouble),
        starts=known["starts"],
        learned=known["learned"],
        filtered=dict(filtered),
        refused=known["refused"],
        questions=tuple(questions),
        removed=known["removed"],
        removed_last="".join(last),
        adopted=known["adopted"],
        unread=known["unread"] + bad,
        validating=tuple(validating),
    )


def _list(value: Any) -> Iterable[Any]:
    """Return the rows; any other value counts as one row that can't be read."""
    return value if isinstance(value, list) else [None]


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else [(None, None)]


def _question(row: Any) -> RefusedQuery:
    last = row["last"]
    if type(last) not in {int, float} or not math.isfinite(last) or not 0 <= last <= _MOST:
        raise ValueError("no moment")
    client = ip_address(_text(row["client"]).partition("%")[0])
    return RefusedQuery(
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
    """Return a text; ValueError for another value, one too long, or a lone surrogate."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError("no text")
    value.encode()
    return value
