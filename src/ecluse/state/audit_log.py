"""The audit log on disk: append durably, repair a torn end, survey the newest part.

Standard library only.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ecluse import atomic_files
from ecluse.errors import CorruptError, StateError
from ecluse.policy import Levels
from ecluse.ports import Clock
from ecluse.records import Actor, AuditRecord
from ecluse.state import durable_files, hash_chain
from ecluse.state.disk_reserve import DiskReserve, is_full
from ecluse.state.hash_chain import ChainFault, Head, Line, verify

__all__ = [
    "ChainFault",
    "HashChainAudit",
    "last_levels",
    "read_audit",
    "repair",
    "survey",
    "verify",
]

_CHECKED_BYTES = 16 * 1024 * 1024
"""Bytes at the end of the log that `survey` checks (half a second); `verify` checks all of it."""

_TAIL = 8 * hash_chain.MAX_LINE_BYTES
_MAX_SIDE_FILES = 99
_MAX_FAULTS = 10


@dataclass(slots=True)
class _Open:
    """The log while it is written to. size: bytes that are known to be good."""

    log: int
    head: int
    size: int
    last: Head

    def close(self) -> None:
        for fd in (self.log, self.head):
            with contextlib.suppress(OSError):
                os.close(fd)


class HashChainAudit:
    """ports.AuditLog in one file of JSON lines, each with the hash of the line before.

    The format is in `state/hash_chain.py`. Nothing is touched before the first `append` or `open`,
    so that `DirectoryState.recover` sees what a crash left. An append is one write(2) and one
    fdatasync(2): 0.2 to 0.4 ms on a disk.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._open: _Open | None = None
        self._reserve = DiskReserve(path.parent / "spare")

    def open(self) -> tuple[str, ...]:
        """Open the log and repair a torn end; give what was repaired, in words.

        Raises:
            StateError: It cannot be opened.
        """
        self.close()
        repaired = _repair_end(self._path)
        last = _last_head(self._path)
        try:
            self._open = _open_files(self._path, last)
        except OSError as error:
            raise durable_files.state_error("open", self._path, error) from error
        if repaired:
            self._write(AuditRecord("repair", _daemon_actor(), "; ".join(repaired)))
        return repaired

    def append(self, record: AuditRecord, *, use_reserve: bool = False) -> None:
        """Write one line, durably.

        use_reserve: on a full disk, free a file of the disk reserve first. For the line of a
        closing alone: others can cause attempts, tampering, leaks and starts, and would use it up.

        Raises:
            StateError: It was not written; no part of it stays in the log.
        """
        try:
            self._append(record)
        except StateError as error:
            if not use_reserve or not is_full(error) or not self._reserve.release_log_file():
                raise
            self._append(record)

    def _append(self, record: AuditRecord) -> None:
        if self._open is None or not self._is_same_file(self._open):
            self.open()
        self._write(record)

    def close(self) -> None:
        """Close the files; the next `append` opens them again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _is_same_file(self, log: _Open) -> bool:
        """Say whether the path still leads to our file, and nobody else wrote to it.

        A rotated log gets a new file.
        """
        try:
            there = self._path.lstat()
            ours = os.fstat(log.log)
        except OSError:
            return False
        return (there.st_dev, there.st_ino, there.st_size) == (ours.st_dev, ours.st_ino, log.size)

    def _write(self, record: AuditRecord) -> None:
        log = self._open
        if log is None:
            raise StateError(f"{self._path} is not open")
        line, head = hash_chain.make_line(record, log.last, self._clock())
        try:
            atomic_files.write_fully(log.log, line)
            os.fdatasync(log.log)
        except OSError as error:
            self._undo_write(log)
            raise durable_files.state_error("write", self._path, error) from error
        log.size += len(line)
        log.last = head
        # Not synced: after a power cut the head may name an earlier line, which is in the log too.
        with contextlib.suppress(OSError):
            os.pwrite(log.head, hash_chain.head_bytes(head), 0)

    def _undo_write(self, log: _Open) -> None:
        """Cut off what a failed write left.

        If even that fails, the next append opens the log again and repairs its end.
        """
        try:
            os.ftruncate(log.log, log.size)
            os.fdatasync(log.log)
        except OSError:
            self.close()


def _open_files(path: Path, last: Head) -> _Open:
    durable_files.make_folder(path.parent)
    head_path = hash_chain.head_path(path)
    fresh = not (path.exists() and head_path.exists())
    flags = os.O_WRONLY | os.O_CREAT
    with (
        durable_files.regular_file(path, flags | os.O_APPEND) as log,
        durable_files.regular_file(head_path, flags) as head,
    ):
        # Before the first line: a log with lines and no head then means that somebody took the head
        # away.
        os.pwrite(head, hash_chain.head_bytes(last), 0)
        os.ftruncate(head, len(hash_chain.head_bytes(last)))
        os.fsync(head)
        if fresh:
            for fd in (log, head):
                atomic_files.give_to_owner(fd, path.parent)
            atomic_files.sync_folder(path.parent)
        return _Open(os.dup(log), os.dup(head), os.fstat(log).st_size, last)


def _last_head(path: Path) -> Head:
    """Give the head to continue from.

    It is the last line's, or the head file's when lines after the last one are gone.
    """
    last = hash_chain.NO_LINES
    for line in hash_chain.read_chain(path, _line_start(path, _TAIL)):
        last = hash_chain.head_after(last, line)
    try:
        head = hash_chain.read_head(path)
    except CorruptError:
        _set_aside_if_there(hash_chain.head_path(path))
        head = None
    return head if head is not None and head.seq > last.seq else last


def _set_aside_if_there(path: Path) -> None:
    if os.path.lexists(path):
        durable_files.set_aside(path)


def _line_start(path: Path, wanted: int) -> int:
    """Give the offset of the first line that begins in the last `wanted` bytes.

    0 when the log is that short, or missing.
    """
    try:
        with durable_files.regular_file(path) as fd:
            start = os.fstat(fd).st_size - wanted
            if start <= 0:
                return 0
            newline = os.pread(fd, min(wanted, _TAIL), start - 1).find(b"\n")
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise durable_files.state_error("read", path, error) from error
    return start + newline if newline >= 0 else 0


def repair(path: Path, clock: Clock) -> tuple[str, ...]:
    """Move a torn last line to a side file, and write a `repair` line.

    A power cut in the middle of a write leaves such a line. Gives what was done, in words; empty
    when nothing was.

    Raises:
        CorruptError: The log is not a regular file.
        StateError: It could not be repaired; nothing was cut.
    """
    if not _torn_end(path)[1]:
        return ()
    log = HashChainAudit(path, clock)
    try:
        return log.open()
    finally:
        log.close()


def _torn_end(path: Path) -> tuple[int, bytes]:
    """Give where the last whole line ends, and the bytes after it."""
    try:
        with durable_files.regular_file(path) as fd:
            size = os.fstat(fd).st_size
            parts: list[bytes] = []
            start = size
            while start > 0 and not (parts and b"\n" in parts[-1]):
                if size - start > durable_files.MAX_FILE_BYTES:
                    raise CorruptError(
                        f"{path} is no log: the last {size - start} bytes have no newline"
                    )
                step = min(_TAIL, start)
                start -= step
                parts.append(os.pread(fd, step, start))
    except FileNotFoundError:
        return 0, b""
    except OSError as error:
        raise durable_files.state_error("read", path, error) from error
    torn = b"".join(reversed(parts))
    torn = torn[torn.rfind(b"\n") + 1 :]
    return size - len(torn), torn


def _repair_end(path: Path) -> tuple[str, ...]:
    end, torn = _torn_end(path)
    if not torn:
        return ()
    # A whole line whose newline alone did not reach the disk: the record counts.
    complete = hash_chain.parse_line(torn).intact
    side = None if complete else _side_file(path)
    if side is not None:
        durable_files.write_file(side, torn)
    try:
        with durable_files.regular_file(path, os.O_WRONLY) as fd:
            if side is None:
                os.pwrite(fd, b"\n", end + len(torn))
            else:
                os.ftruncate(fd, end)
            os.fsync(fd)
    except OSError as error:
        raise durable_files.state_error("repair", path, error) from error
    if side is None:
        said = "the last line lacked its newline and was otherwise whole; the newline was added"
    else:
        said = f"the last line was torn ({len(torn)} bytes without end); "
        said += f"cut off and kept in {side.name}"
    return (f"{path.name}: {said}",)


def _side_file(path: Path) -> Path:
    for number in range(1, _MAX_SIDE_FILES + 1):
        side = path.with_name(f"{path.stem}.torn-{number}")
        if not os.path.lexists(side):
            break
    return side


def _daemon_actor() -> Actor:
    return Actor(uid=os.getuid(), user="", pid=os.getpid(), command="eclused")


@dataclass(frozen=True, slots=True)
class Survey:
    """What the newest 16 MiB of the log say.

    lines: whether there is any. damage: at most ten faults, and how many more. levels: those of the
    newest intact line that has some. generation: the highest that an intact line says was reached,
    0 for none.
    """

    lines: bool
    damage: tuple[str, ...]
    levels: Levels | None
    generation: int


def survey(path: Path) -> Survey:
    """Read the newest 16 MiB of the log once.

    Raises:
        CorruptError: It is not a regular file.
        StateError: The disk does not read.
    """
    count = generation = 0
    levels: Levels | None = None
    start = _line_start(path, _CHECKED_BYTES)

    def watched() -> Iterator[Line]:
        nonlocal count, generation, levels
        for line in hash_chain.read_chain(path, start):
            count += 1
            stands = hash_chain.levels_of(line)
            if stands is not None and line.record is not None:
                reached = line.record.get("to_generation")
                levels = stands
                generation = max(generation, reached if isinstance(reached, int) else 0)
            yield line

    found = [
        f"{path.name}: {problem}"
        for problem in hash_chain.find_faults(path, watched(), from_start=start == 0)
    ]
    more = len(found) - _MAX_FAULTS
    words = found[:_MAX_FAULTS] + (
        [f"{path.name}: {more} more; see 'ecluse audit verify'"] if more > 0 else []
    )
    return Survey(count > 0, tuple(words), levels, generation)


def last_levels(path: Path) -> Levels | None:
    """Give the levels of the newest intact line that has some.

    None when there is none in the newest 16 MiB.
    """
    return survey(path).levels


def read_audit(path: Path) -> Iterator[dict[str, Any]]:
    """Give each record of the log in order, as a JSON object; other lines are left out."""
    for line in hash_chain.read_chain(path):
        if line.record is not None:
            yield line.record


def utc_now() -> datetime:
    """Give the time now, UTC: the clock of a process that was given none."""
    return datetime.now(UTC)
