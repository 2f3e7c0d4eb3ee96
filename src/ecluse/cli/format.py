"""Times, counts and levels as text for a person."""

from __future__ import annotations

from datetime import UTC, datetime

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


def local_time(iso: str | None) -> str:
    """Give a time of the daemon (ISO 8601, UTC) in this machine's own time; `-` for None."""
    at = _parse_time(iso)
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def time_ago(iso: str | None, now: datetime | None = None) -> str:
    """Say roughly how long ago a time of the daemon (ISO 8601) was; `-` for None."""
    at = _parse_time(iso)
    return duration((now or datetime.now(UTC)) - at) + " ago" if at else "-"


def duration(length: Any) -> str:
    """Give a timedelta, or seconds, in its largest fitting unit."""
    seconds = int(getattr(length, "total_seconds", lambda: length)())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def _parse_time(iso: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(iso) if iso else None
    except ValueError:
        return None


def count_of(number: int, one: str, many: str = "") -> str:
    """Give `1 connection`, `1,204 connections`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def byte_size(number: float) -> str:
    """Give a number of bytes, three digits or so."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def join_names(names: Iterable[str]) -> str:
    """Give names as `a, b, c`, or `none`."""
    return ", ".join(names) or "none"


def zones_by_level(levels: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Group zones by their level, in the order of the mapping."""
    groups: dict[str, list[str]] = {}
    for zone, level in levels.items():
        groups.setdefault(level, []).append(zone)
    return list(groups.items())


def levels_summary(levels: Mapping[str, str]) -> str:
    """Give `cut` when every zone has it, else `care cut, guests open`."""
    groups = zones_by_level(levels)
    if len(groups) == 1:
        return groups[0][0]
    return ", ".join(f"{'+'.join(zones)} {level}" for level, zones in groups)


def actor_name(actor: Mapping[str, Any]) -> str:
    """Name an actor: the user, and the login behind it where that is another."""
    login = actor.get("login")
    behind = f" (login uid {login})" if login not in {None, actor.get("uid")} else ""
    return f"{actor.get('user') or actor.get('uid')}{behind}"
