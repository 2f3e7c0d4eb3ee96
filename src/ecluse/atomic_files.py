"""Replace a file whole or not at all: a temporary beside it, fsync(2), rename(2).

The only writer of whole files, for the daemon, the DNS process and a closing without the daemon.
Standard library only, few modules: the closing must start at once.
"""

import contextlib
import errno
import itertools
import os
from pathlib import Path

MAX_ENTRIES = 100_000
"""Folder entries that are looked at; more than that was not written by us."""

TEMPORARY = ".tmp-"
"""Prefix of a temporary's name. The rest is random: two writers never share one."""


def replace_file(
    path: Path,
    data: bytes,
    *,
    mode: int = 0o640,
    sync_data: bool = True,
    sync_name: bool = True,
    to_folder_owner: bool = False,
) -> None:
    """Replace `path` by a file of `data`. A reader finds the file before or this one, whole.

    Args:
        mode: Permission bits of the file.
        sync_data: Whether the bytes are on the disk before the file gets its name. Without it, a
            power cut may leave an empty file.
        sync_name: Whether the name is on the disk on return. Without it, a power cut may leave the
            file before.
        to_folder_owner: Whether a file that root makes belongs to the folder's owner.

    Raises:
        OSError: It was not replaced, or perhaps not durably. No temporary stays.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.urandom(6).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        try:
            write_fully(fd, data)
            os.fchmod(fd, mode)
            if to_folder_owner:
                give_to_owner(fd, path.parent)
            if sync_data:
                os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
    except BaseException:
        _remove_quietly(temporary)
        raise
    if sync_name:
        sync_folder(path.parent)


def write_fully(fd: int, data: bytes) -> None:
    """Write all of `data`.

    A disk that fills up first writes a part (write(2)); only the next write raises ENOSPC.
    """
    view = memoryview(data)
    while view:
        count = os.write(fd, view)
        if count <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[count:]


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk (fsync(2): a file's own fsync does not)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def give_to_owner(fd: int, folder: Path) -> None:
    """Give a file that root has made to the folder's owner.

    `ecluse cut --no-daemon` runs as root; the daemon need not. Only for a file that is ours alone:
    one name, made by root.

    Raises:
        OSError: As fchown(2).
    """
    if os.geteuid() != 0:
        return
    owner, made = folder.stat(), os.fstat(fd)
    if made.st_uid == 0 and made.st_nlink == 1 and owner.st_uid != 0:
        os.fchown(fd, owner.st_uid, owner.st_gid)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporaries that a crash left in a folder. They were never part of any record."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for entry in itertools.islice(found, MAX_ENTRIES):
            if entry.name.startswith(TEMPORARY):
                _remove_quietly(Path(entry.path))


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
