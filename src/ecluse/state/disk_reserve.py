"""Disk space that is reserved beforehand, for the records of closings on a full disk.

It is files of zeros, written and fsynced while there is room. On a full disk one of them is
overwritten in place, truncated, and renamed to the file that is needed. That takes no block, no
inode and no folder entry that is not there already, so a process that fills the disk cannot take
the room first. Those for the log are deleted, one at a time, for lines that are appended.

Tried on ext4 and tmpfs. A file system that never writes in place (btrfs) may need room all the
same, and then reports a full disk.
"""

import contextlib
import errno
import os
from pathlib import Path

from ecluse import atomic_files
from ecluse.errors import StateError
from ecluse.state import durable_files

BOOT_FILES = {f"boot-{number}": 64 * 1024 for number in range(1, 5)}
"""Bytes of each; `boot.nft` of a dozen zones has 4 KiB."""

LOG_FILES = {f"log-{number}": 16 * 1024 for number in range(1, 5)}
"""Bytes of each; a line has at most 8 KiB."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BLOCK_BYTES = 512
"""Bytes that st_blocks counts in (stat(2))."""


class DiskReserve:
    """The reserved files in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fill(self) -> None:
        """Make the files that are missing or too small.

        Raises:
            StateError: The disk has no room.
        """
        whole = BOOT_FILES | LOG_FILES
        missing = {
            name: bytes(size)
            for name, size in whole.items()
            if not _is_whole(self._folder / name, size)
        }
        if missing:
            durable_files.make_folder(self._folder)
            atomic_files.remove_temporaries(self._folder)
            durable_files.write_all(self._folder, missing)

    def write_file(self, path: Path, data: bytes) -> None:
        """Replace a file as `durable_files.write_file` does; on a full disk, by a reserved file.

        Raises:
            StateError: It was not replaced.
        """
        try:
            durable_files.write_file(path, data)
        except StateError as error:
            if not is_full(error) or not self._overwrite_reserved(path, data):
                raise

    def _overwrite_reserved(self, path: Path, data: bytes) -> bool:
        for name in BOOT_FILES:
            reserved = self._folder / name
            if not _is_whole(reserved, len(data)):
                continue
            try:
                with durable_files.regular_file(reserved, os.O_WRONLY) as fd:
                    atomic_files.write_fully(fd, data)
                    os.ftruncate(fd, len(data))
                    os.fsync(fd)
                reserved.rename(path)
                atomic_files.sync_folder(path.parent)
            except (OSError, StateError):
                continue
            return True
        return False

    def release_log_file(self) -> bool:
        """Delete a reserved file, to make room for lines of a log; False when none is left."""
        for name in LOG_FILES:
            try:
                (self._folder / name).unlink()
                atomic_files.sync_folder(
                    self._folder
                )  # ext4 gives blocks back once its journal is written
            except OSError:
                continue
            return True
        return False


def is_full(error: StateError) -> bool:
    """Say whether a write failed for want of room (blocks, inodes, quota)."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def _is_whole(path: Path, size: int) -> bool:
    """Say whether a regular file with one name holds blocks for so many bytes."""
    with contextlib.suppress(OSError, StateError), durable_files.regular_file(path) as fd:
        found = os.fstat(fd)
        return (
            found.st_size >= size and found.st_blocks * _BLOCK_BYTES >= size and found.st_nlink == 1
        )
    return False
