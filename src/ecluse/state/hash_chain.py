"""The audit chain as bytes: how a line is made, read back and checked.

Standard library only: the command line imports it.

A line is a JSON object whose last two parts are `prev`, the hash of the line before, and `hash`,
the sha256 of the line's own bytes without that last part. The first line's `prev` is GENESIS. Lines
are pure ASCII: a caller's text cannot move a terminal's cursor.

The chain alone cannot show that the last lines were cut off, or that all lines from some point on
were rewritten. The head file beside the log (`audit.head`: number and hash of the last line) shows
the first, and the second unless the head was rewritten too. Root can rewrite both: for that, copy
the log, or its last hash, to another machine.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ecluse.errors import CorruptError
from ecluse.records import AuditRecord
from ecluse.state import durable_files

MAX_LINE_BYTES = 8192
"""Bytes of a line, newline included."""

GENESIS = hashlib.sha256(b"ecluse audit log, version 1").hexdigest()
"""What the first line names as the hash of the line before."""

_TEXT_LIMITS = (4000, 1000, 400, 100, 40)
_HEAD_SIZE = 256
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: number of the last line (0 when there is none) and its hash."""

    seq: int
    hash: str


NO_LINES = Head(0, GENESIS)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log, without its newline.

    number: counts from 1 where reading began. record: None when it is no record. intact: its hash
    matches its bytes. whole: it ends in a newline.
    """

    number: int
    raw: bytes
    record: dict[str, Any] | None
    intact: bool
    whole: bool

    def end_hash(self) -> str:
        """Give the hash that the next line must name as `prev`.

        It is the line's own hash, or that of its bytes when it has none.
        """
        own = self.record["hash"] if self.record else ""
        return own if _HASH.fullmatch(own) else hashlib.sha256(self.raw).hexdigest()


@dataclass(frozen=True, slots=True)
class ChainFault:
    """Something wrong with the log. line counts from 1; 0 when it is about the whole of it."""

    line: int
    what: str

    def __str__(self) -> str:
        """Give `line 12: altered ...`."""
        return f"line {self.line}: {self.what}" if self.line else self.what


def make_line(record: AuditRecord, head: Head, at: datetime) -> tuple[bytes, Head]:
    """Write the line that follows `head`, newline included, and give the new head.

    Long texts are cut to fit LONGEST_LINE.
    """
    for limit in _TEXT_LIMITS:
        line, new = _make_line(record, head, at, limit, with_levels=True)
        if len(line) <= MAX_LINE_BYTES:
            return line, new
    # Only hundreds of zones get here: the line is worth more than the levels in it, which the
    # generation holds too.
    return _make_line(record, head, at, _TEXT_LIMITS[-1], with_levels=False)


def _make_line(
    record: AuditRecord, head: Head, at: datetime, limit: int, *, with_levels: bool
) -> tuple[bytes, Head]:
    actor = record.actor
    parts = {
        "seq": head.seq + 1,
        "at": at.isoformat(timespec="milliseconds"),
        "event": _shorten(record.event, limit),
        "actor": {
            "uid": actor.uid,
            "user": _shorten(actor.user, limit),
            "pid": actor.pid,
            "command": _shorten(actor.command, limit),
            "login": actor.login,
        },
        "what": _shorten(record.what, limit),
        "reason": _shorten(record.reason, limit),
        "authorised_by": _shorten(record.authorised_by, limit),
        "from_generation": record.from_generation,
        "to_generation": record.to_generation,
        "ruleset": _shorten(record.ruleset, limit),
        "result": _shorten(record.result, limit),
        "levels": dict(record.levels) if with_levels and record.levels is not None else None,
        "prev": head.hash,
    }
    body = json.dumps(parts, separators=(",", ":"), ensure_ascii=True).encode()
    mark = hashlib.sha256(body).hexdigest()
    return _with_hash(body, mark) + b"\n", Head(head.seq + 1, mark)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


def _with_hash(body: bytes, mark: str) -> bytes:
    return body[:-1] + f',"hash":"{mark}"}}'.encode()


def parse_line(raw: bytes, number: int = 0, *, whole: bool = True) -> Line:
    """Read one line, given without its newline."""
    record = _parse_record(raw)
    return Line(number, raw, record, record is not None and _own_hash(raw, record), whole)


def _own_hash(raw: bytes, record: dict[str, Any]) -> bool:
    if not _HASH.fullmatch(record["hash"]):
        return False
    tail = f',"hash":"{record["hash"]}"}}'.encode()
    return (
        raw.endswith(tail)
        and hashlib.sha256(raw[: -len(tail)] + b"}").hexdigest() == record["hash"]
    )


def head_after(last: Head, line: Line) -> Head:
    """Give the head after `line`.

    A line that is not intact is taken for the next one: its own number means nothing.
    """
    number = line.record["seq"] if line.record and line.intact else last.seq + 1
    return Head(number, line.end_hash())


def _parse_record(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or type(value.get("seq")) is not int:
        return None
    return (
        value if all(isinstance(value.get(key), str) for key in ("prev", "hash", "event")) else None
    )


def read_chain(path: Path, start: int = 0) -> Iterator[Line]:
    """Give the lines of the log from byte `start` on, one at a time; none when it is missing.

    Of a line longer than LONGEST_LINE only the start is given; it is no record. CorruptError when
    `path` is not a regular file.
    """
    try:
        with durable_files.regular_file(path) as fd, os.fdopen(os.dup(fd), "rb") as log:
            log.seek(start)
            number = 0
            while raw := log.readline(MAX_LINE_BYTES):
                number += 1
                rest = raw
                while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
                    rest = log.readline(MAX_LINE_BYTES)
                whole = rest.endswith(b"\n")
                yield parse_line(raw.removesuffix(b"\n"), number, whole=whole)
    except FileNotFoundError:
        return
    except OSError as error:
        raise durable_files.state_error("read", path, error) from error


def head_path(log: Path) -> Path:
    """Name the head file of a log: `audit.log` -> `audit.head`."""
    return log.with_suffix(".head")


def read_head(log: Path) -> Head | None:
    """Read the head file; None when it is missing. CorruptError when it is not what was written."""
    path = head_path(log)
    data = durable_files.read_file(path, _HEAD_SIZE)
    if data is None:
        return None
    head = _parse_head(data)
    if head is None:
        raise CorruptError(f"{path} is not what was written")
    return head


def _parse_head(data: bytes) -> Head | None:
    try:
        number, mark, _ = data.decode("ascii").split()
        head = Head(int(number), mark)
    except ValueError:
        return None
    return head if head_bytes(head) == data else None


def head_bytes(head: Head) -> bytes:
    """Give the bytes of the head file: fixed width, with a check of its own at the end.

    So one write within one disk sector overwrites it.
    """
    text = f"{head.seq:020d} {head.hash}"
    return f"{text} {hashlib.sha256(text.encode()).hexdigest()[:16]}\n".encode()


def verify(path: Path) -> list[ChainFault]:
    """Check the whole log against itself and against its head file; empty when nothing is wrong.

    Finds altered, removed, inserted and reordered lines by line number, and a cut-off end as far
    as the head file tells (the module's docstring says what cannot be seen).

    Raises:
        StateError: It cannot be read.
    """
    return list(find_faults(path, read_chain(path)))


def find_faults(
    path: Path, lines: Iterable[Line], *, from_start: bool = True
) -> Iterator[ChainFault]:
    """Give the faults that `verify` reports in `lines` of the log at `path`, one at a time.

    from_start: the lines begin with the log's first; else the predecessor of the first one is not
    checked.
    """
    last = NO_LINES
    trusted = not from_start
    head, head_problem = _head_or_fault(path)
    head_seen = head == NO_LINES
    for line in lines:
        yield from _faults_in(line, last, trusted=trusted)
        last = head_after(last, line)
        trusted = False
        head_seen = head_seen or last == head
    if head_problem is not None:
        yield head_problem
    elif head is None:
        if last.seq:
            yield ChainFault(
                0,
                f"{head_path(path).name} is missing: "
                "whether the last lines are all there cannot be told",
            )
    elif head.seq > last.seq:
        yield ChainFault(
            0,
            f"lines are missing at the end: record {head.seq} was written, "
            f"the last one here is {last.seq}",
        )
    elif not head_seen:
        yield ChainFault(
            0,
            f"record {head.seq} is not the one that {head_path(path).name} names: it was rewritten",
        )


def _head_or_fault(path: Path) -> tuple[Head | None, ChainFault | None]:
    try:
        return read_head(path), None
    except CorruptError as error:
        return None, ChainFault(0, error.message)


def _faults_in(line: Line, last: Head, *, trusted: bool) -> Iterator[ChainFault]:
    record = line.record
    if not line.whole:
        yield ChainFault(line.number, "torn: it does not end in a newline")
    if record is None:
        yield ChainFault(line.number, "not a record: altered or inserted")
        return
    if not line.intact:
        yield ChainFault(line.number, f"altered: record {record['seq']} is not what was written")
    if trusted:
        return
    if record["seq"] != last.seq + 1:
        yield ChainFault(
            line.number,
            f"record {record['seq']} follows record {last.seq}: "
            f"{_describe_gap(record['seq'], last.seq)}",
        )
    elif record["prev"] != last.hash:
        yield ChainFault(
            line.number,
            "does not follow the line before it: one of them was altered, removed or inserted",
        )


def _describe_gap(found: int, last: int) -> str:
    if found <= last:
        return "repeated, inserted or out of order"
    missing = f"{last + 1}" if found == last + 2 else f"{last + 1} to {found - 1}"
    return f"removed: {missing}, or out of order"


def levels_of(line: Line) -> dict[str, str] | None:
    """Give the levels that are in force after this line's event.

    None when it says none: an intent, a refusal, a failure.
    """
    record = line.record
    if record is None or not line.intact or record["event"] == "intent":
        return None
    levels = record.get("levels")
    if not isinstance(levels, dict) or str(record.get("result")).startswith(("refused", "failed")):
        return None
    texts = all(isinstance(zone, str) and isinstance(level, str) for zone, level in levels.items())
    return dict(levels) if texts else None
