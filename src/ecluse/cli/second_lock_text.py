"""The lines of `ecluse status` about the second lock."""

from __future__ import annotations

from ecluse.cli.format import count_of, local_time

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ecluse.cli.terminal import Screen

_DROPPED_ROWS = 5
"""Rows of what it dropped that a person is shown; the API gives all."""


def show_second_lock(screen: Screen, lock: Mapping[str, Any] | None) -> None:
    """Say whether the second lock stands, and what left by each device since it does."""
    if lock is None:  # a daemon of an earlier version
        return
    if lock.get("being_set"):
        screen.line("  2nd lock  being set: it stands in a moment")
        return
    if not lock["stands"]:
        bad = "bad" if lock["wanted"] else ""
        screen.wrapped(
            "  2nd lock  ", f"{'MISSING' if lock['wanted'] else 'no'}: {lock['why']}", bad
        )
        return
    screen.line(f"  2nd lock  stands, since {local_time(lock['since'])}")
    used = [one for one in lock["devices"] if one["kept"] or one["lost"]]
    if not used:
        screen.wrapped("            ", "nothing passed it since then, but what links need")
    for one in used:
        left = f"{one['device']}: {count_of(one['kept'], 'packet')} to what is kept, "
        bad = "bad" if one["lost"] else ""
        screen.wrapped("            ", f"{left}{one['lost']:,} to others", bad)
    for row in lock["dropped"][:_DROPPED_ROWS]:
        what = (
            f"ethertype {row['ethertype']:#06x} from {row['source']}"
            if row["ethertype"]
            else f"{row['source']} to {row['destination']}, protocol {row['protocol']}"
            + (f" port {row['port']}" if row["port"] else "")
        )
        screen.wrapped("            ", f"dropped {what} ({row['packets']:,})", "bad")
