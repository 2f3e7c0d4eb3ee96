"""Closings without the daemon, appended to a file by `ecluse cut --no-daemon`.

The daemon takes them into the audit log at its next start. Root wrote them without a daemon,
perhaps on a dying disk: there is no checksum, and nothing is believed but that somebody closed.
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

MAX_LINES = 100
"""Lines that are taken; who closes by hand more often has other trouble."""


@dataclass(frozen=True, slots=True)
class OfflineClosing:
    """One closing without the daemon.

    level: `cut` or `isolate`, for every zone. file: the ruleset that was loaded.
    """

    at: datetime
    level: str
    file: str
    actor: Actor
    reason: str
    authorised_by: str

    def audit_record(self) -> AuditRecord:
        """Give the line for the audit log."""
        what = f"{self.level} without the daemon at {self.at:%Y-%m-%d %H:%M:%S} UTC, by {self.file}"
        return AuditRecord("by-hand", self.actor, what, self.reason, self.authorised_by)


def append_closing(path: Path, closing: OfflineClosing) -> None:
    """Append a closing, durably; on a full disk, in the room of a reserved file.

    The folder may belong to another user than root: a link planted there is not followed, and the
    file that is made belongs to that user.

    Raises:
        StateError: The disk does not take it; no part of it stays.
    """
    try:
        _append_line(path, codec.canonical(closing) + b"\n")
    except StateError as error:
        if not is_full(error) or not DiskReserve(path.parent / "spare").release_log_file():
            raise
        _append_line(path, codec.canonical(closing) + b"\n")


def _append_line(path: Path, line: bytes) -> None:
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
        raise durable_files.state_error("write", path, error) from error


def read_closings(path: Path) -> tuple[tuple[OfflineClosing, ...], str]:
    """Give the closings, and a sentence on lines that cannot be read (empty when all can).

    Raises:
        StateError: The file cannot be read.
    """
    lines = (durable_files.read_file(path) or b"").splitlines()
    found = tuple(filter(None, map(_parse_closing, lines[:MAX_LINES])))
    unread = len(lines) - len(found)
    return found, f"{unread} lines cannot be read" if unread else ""


def _parse_closing(line: bytes) -> OfflineClosing | None:
    try:
        closing = codec.read_canonical(OfflineClosing, line)
    except ValueError:
        return None
    return closing if closing.level in {CUT.name, ISOLATE.name} else None


def level_since(closings: Iterable[OfflineClosing], newest: Generation | None) -> str:
    """Give the level of the newest closing; empty when a generation came after it."""
    after = [one for one in closings if newest is None or one.at > newest.at]
    return max(after, key=lambda one: one.at).level if after else ""
