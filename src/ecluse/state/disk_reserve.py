"""Room on the disk that is taken beforehand: a closing is recorded, and outlasts a reboot, also
when the disk is full.

Files of zeros, written and fsynced in peace time. On a full disk one of them is overwritten in
place, cut to length and renamed to what it is to be: that needs no block, no inode and no folder
entry which is not there already, so that whoever fills the disk cannot be quicker. Those for the
log are given back, one at a time, for lines that are appended.

Tried on ext4 and tmpfs. A file system that never writes in place (btrfs) may need room all the
same, and then says so.
"""

import contextlib
import errno
import os
from pathlib import Path

from ecluse import atomic_files
from ecluse.errors import StateError
from ecluse.state import durable_files

BOOT = {f"boot-{number}": 64 * 1024 for number in range(1, 5)}
"""Bytes of each; `boot.nft` of a dozen zones has 4 KiB."""

LOG = {f"log-{number}": 16 * 1024 for number in range(1, 5)}
"""Bytes of each; a line has at most 8 KiB."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BLOCK = 512
"""Bytes that st_blocks counts in (stat(2))."""


class DiskReserve:
    """The folder `spare/`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self) -> None:
        """Make what is missing. StateError when the disk has no room."""
        whole = BOOT | LOG
        missing = {
            name: bytes(size)
            for name, size in whole.items()
            if not _is_whole(self._folder / name, size)
        }
        if missing:
            durable_files.make_folder(self._folder)
            atomic_files.remove_temporaries(self._folder)
            durable_files.write_all(self._folder, missing)

    def write(self, path: Path, data: bytes) -> None:
        """Replace a file as `durable.write` does; where the disk is full, by a file of this folder.

        StateError.
        """
        try:
            durable_files.write_file(path, data)
        except StateError as error:
            if not is_full(error) or not self._from_spare(path, data):
                raise

    def _from_spare(self, path: Path, data: bytes) -> bool:
        for name in BOOT:
            spare = self._folder / name
            if not _is_whole(spare, len(data)):
                continue
            try:
                with durable_files.regular_file(spare, os.O_WRONLY) as fd:
                    atomic_files.write_fully(fd, data)
                    os.ftruncate(fd, len(data))
                    os.fsync(fd)
                spare.rename(path)
                atomic_files.sync_folder(path.parent)
            except (OSError, StateError):
                continue
            return True
        return False

    def release(self) -> bool:
        """Give room for some lines of a log back to the disk; say whether there was any."""
        for name in LOG:
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
        return found.st_size >= size and found.st_blocks * _BLOCK >= size and found.st_nlink == 1
    return False
