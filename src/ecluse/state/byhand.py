"""Closings without the daemon: the lines that `ecluse cut --no-daemon` left, for the audit log.

Root wrote them beside a dead daemon, perhaps on a dying disk: no checksum, nothing believed but that somebody closed.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ecluse.records import Actor, AuditRecord
from ecluse.state import durable

MOST = 100
"""Lines that are taken; who closes by hand more often has other trouble."""


@dataclass(frozen=True, slots=True)
class Closing:
    """One closing without the daemon: when, to which level, and the record of it."""

    at: datetime
    level: str
    record: AuditRecord


def read(path: Path) -> tuple[tuple[Closing, ...], str]:
    """Give a closing for each line, and what of the file cannot be read, in words. StateError: none of it can."""
    data = durable.read(path)
    if data is None:
        return (), ""
    records: list[Closing] = []
    unread = 0
    for line in data.splitlines():
        try:
            record = _record(json.loads(line)) if len(records) < MOST else None
        except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
            record = None
        if record is None:
            unread += 1
        else:
            records.append(record)
    return tuple(records), f"{unread} lines cannot be read" if unread else ""


def _record(found: object) -> Closing | None:
    if not isinstance(found, dict) or found["level"] not in {"cut", "isolate"}:
        return None
    uid, login = int(found["uid"]), found.get("login")
    at = datetime.fromtimestamp(float(found["at"]), tz=UTC)
    what = (
        f"{found['level']} without the daemon at {at:%Y-%m-%d %H:%M:%S} UTC, by {str(found['file'])[-200:]}"
    )
    record = AuditRecord(
        event="by-hand",
        actor=Actor(uid, f"uid {uid}", 0, "ecluse", None if login is None else int(login)),
        what=what,
        reason=str(found.get("reason", "")),
        authorised_by=str(found.get("authorised_by", "")),
    )
    return Closing(at, str(found["level"]), record)
