"""Closings without the daemon: noted by `ecluse cut --no-daemon`, taken into the audit log at the
daemon's next start.

Root wrote them beside a dead daemon, perhaps on a dying disk: no checksum, nothing believed but
that somebody closed.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ecluse import atomic_files
from ecluse.errors import CorruptError, StateError
from ecluse.policy import CUT, ISOLATE
from ecluse.records import Actor, AuditRecord, Generation
from ecluse.state import codec, durable_files
from ecluse.state.disk_reserve import DiskReserve, is_full

MOST = 100
"""Lines that are taken; who closes by hand more often has other trouble."""


@dataclass(frozen=True, slots=True)
class OfflineClosing:
    """One closing without the daemon.

    level: `cut` or `isolate`, of every zone. file: the ruleset that was loaded.
    """

    at: datetime
    level: str
    file: str
    actor: Actor
    reason: str
    authorised_by: str

    def record(self) -> AuditRecord:
        """Give the line for the audit log."""
        what = f"{self.level} without the daemon at {self.at:%Y-%m-%d %H:%M:%S} UTC, by {self.file}"
        return AuditRecord("by-hand", self.actor, what, self.reason, self.authorised_by)


def append_closing(path: Path, closing: OfflineClosing) -> None:
    """Append a closing, durably.

    StateError when the disk does not take it: then no part of it stays.

    The folder may belong to another user than root: what he planted there is not followed, and he
    gets what is made.
    """
    try:
        _append(path, codec.canonical(closing) + b"\n")
    except StateError as error:
        if not is_full(error) or not DiskReserve(path.parent / "spare").release():
            raise
        _append(path, codec.canonical(closing) + b"\n")


def _append(path: Path, line: bytes) -> None:
    try:
        with durable_files.regular_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as fd:
            before = os.fstat(fd)
            if before.st_nlink != 1:
                raise CorruptError(f"{path} has another name elsewhere: it may be anybody's file")
            torn = before.st_size and os.pread(fd, 1, before.st_size - 1) != b"\n"
            try:
                atomic_files.write_fully(fd, b"\n" * bool(torn) + line)
                atomic_files.give_to_owner(fd, path.parent)
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, before.st_size)
                raise
    except OSError as error:
        raise durable_files.failure("write", path, error) from error


def read_closings(path: Path) -> tuple[tuple[OfflineClosing, ...], str]:
    """Give what was noted, and what of the file cannot be read, in words.

    StateError: none of it can.
    """
    lines = (durable_files.read_file(path) or b"").splitlines()
    found = tuple(filter(None, map(_closing, lines[:MOST])))
    unread = len(lines) - len(found)
    return found, f"{unread} lines cannot be read" if unread else ""


def _closing(line: bytes) -> OfflineClosing | None:
    try:
        closing = codec.read_canonical(OfflineClosing, line)
    except ValueError:
        return None
    return closing if closing.level in {CUT.name, ISOLATE.name} else None


def level_since(closings: Iterable[OfflineClosing], newest: Generation | None) -> str:
    """Give the level of the newest closing, if no generation came after it; else nothing."""
    after = [one for one in closings if newest is None or one.at > newest.at]
    return max(after, key=lambda one: one.at).level if after else ""
