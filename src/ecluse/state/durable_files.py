"""Files of the state directory: durable replacement, bounded reading, checksums.

A write is on the disk when it returns (fsync(2) of the file and of its folder), unless it says
otherwise. A failure is a StateError with words and a hint, and leaves the file before.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ecluse.atomic_files import MAX_ENTRIES, TEMPORARY, replace_file, sync_folder
from ecluse.errors import CorruptError, StateError

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Bytes. A state file larger than this was not written by us."""

_FILE_MODE = 0o640
_FOLDER_MODE = 0o750
_MAX_SET_ASIDE = 9

_REASONS: Mapping[int, tuple[str, str]] = {
    errno.ENOSPC: (
        "the disk is full",
        "see 'df -h {folder}', free some space, then repeat the command",
    ),
    errno.EDQUOT: (
        "the disk quota is used up",
        "see 'quota', free some space, then repeat the command",
    ),
    errno.EROFS: (
        "the file system is read-only",
        "see 'dmesg | tail' for why, then 'mount -o remount,rw' its mount point",
    ),
    errno.EIO: ("the disk reports an error", "see 'dmesg | tail': the disk may be failing"),
    errno.EACCES: ("not permitted", "see 'ls -ld {folder}': eclused must own it and may need root"),
    errno.EPERM: ("not permitted", "see 'lsattr -d {folder}' and 'ls -ld {folder}'"),
    errno.ELOOP: (
        "a symbolic link stands in its place",
        "see 'ls -l {folder}' and remove the link",
    ),
    errno.EISDIR: ("a folder stands in its place", "see 'ls -l {folder}' and move the folder away"),
    errno.ENOTDIR: ("a file stands where a folder should be", "see 'ls -ld {folder}'"),
    errno.ENOENT: ("it is missing", "see 'ls -l {folder}'"),
}


def state_error(doing: str, path: Path, error: OSError) -> StateError:
    """Make the error for a file operation (`write`, `read`) that failed, with a hint."""
    unknown = (
        os.strerror(error.errno) if error.errno else str(error),
        "see 'ls -l {folder}' and 'dmesg | tail'",
    )
    what, hint = _REASONS.get(error.errno or 0, unknown)
    return StateError(f"could not {doing} {path}: {what}", hint=hint.format(folder=path.parent))


def make_folder(folder: Path) -> None:
    """Make a folder (mode 0750) and its missing parents, durably.

    Raises:
        StateError: It is not there and cannot be made.
    """
    try:
        if folder.is_dir():
            return
        missing = [folder, *(parent for parent in folder.parents if not parent.exists())]
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                each.mkdir(_FOLDER_MODE)
                _give_folder_to_owner(each)
            sync_folder(each.parent)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise state_error("make the folder", folder, error) from error


def _give_folder_to_owner(folder: Path) -> None:
    owner = folder.parent.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(folder, owner.st_uid, owner.st_gid, follow_symlinks=False)


def write_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace one file (mode 0640), whole or not at all.

    durable=False: without the fsync of the folder. The file outlives the process, kill -9 included;
    after a power cut there is this file or the one before, each of them whole.
    """
    write_all(path.parent, {path.name: data}, durable=durable)


def write_all(folder: Path, files: Mapping[str, bytes], *, durable: bool = True) -> None:
    """Replace several files of one folder, each whole or not at all, in the order given.

    The folder is synced once, at the end.
    """
    path = folder
    try:
        for name, data in files.items():
            path = folder / name
            replace_file(path, data, mode=_FILE_MODE, sync_name=False, to_folder_owner=True)
        if durable:
            sync_folder(folder)
    except OSError as error:
        raise state_error("write", path, error) from error


def remove_file(path: Path, *, durable: bool = True) -> None:
    """Remove a file; one that is not there is no error."""
    try:
        path.unlink(missing_ok=True)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise state_error("remove", path, error) from error


def list_folder(folder: Path) -> list[str]:
    """Name the entries of a folder, sorted, without temporaries; empty when it is missing.

    At most MAX_ENTRIES are read.
    """
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in itertools.islice(found, MAX_ENTRIES)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise state_error("list", folder, error) from error
    return sorted(name for name in names if not name.startswith(TEMPORARY))


def read_file(path: Path, limit: int = MAX_FILE_BYTES) -> bytes | None:
    """Read a whole file of at most `limit` bytes; None when it is missing.

    Raises:
        CorruptError: It is too large, or no regular file (a link, a folder, a FIFO). None of these
            is followed or waited for (open(2), O_NOFOLLOW and O_NONBLOCK).
        StateError: The disk does not read.
    """
    try:
        with regular_file(path) as fd:
            size = os.fstat(fd).st_size
            if size > limit:
                raise CorruptError(f"{path} has {size} bytes, more than the {limit} that may be")
            data = bytearray()
            while len(data) <= limit and (part := os.read(fd, 1 << 20)):
                data += part
    except FileNotFoundError:
        return None
    except OSError as error:
        raise state_error("read", path, error) from error
    return bytes(data)


@contextlib.contextmanager
def regular_file(path: Path, flags: int = os.O_RDONLY, mode: int = _FILE_MODE) -> Iterator[int]:
    """Open a regular file and nothing else; gives the descriptor.

    CorruptError when it is not one; OSError as open(2).
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        # ELOOP: a symbolic link. ENXIO: a FIFO without reader, or a socket. EISDIR: a folder opened
        # to write.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise CorruptError(f"{path} is not a regular file") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CorruptError(f"{path} is not a regular file")
        yield fd
    finally:
        os.close(fd)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `NAME.damaged-N`: evidence stays, and the name is free.

    N is at most 9; then the last one is replaced.
    """
    for number in range(1, _MAX_SET_ASIDE + 1):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        if not os.path.lexists(aside):
            break
    try:
        path.rename(aside)
        sync_folder(path.parent)
    except OSError as error:
        raise state_error("set aside", path, error) from error
    return aside


def _trailer(data: bytes, form: str) -> bytes:
    return form.replace("HEX", hashlib.sha256(data).hexdigest()).encode()


JSON_TRAILER = '{"sha256":"HEX"}\n'
"""Last line of a JSON state file: a second JSON value, so that `jq . FILE` still reads it."""

COMMENT_TRAILER = "# sha256: HEX\n"
"""Last line of a ruleset file: a comment to nft, and `head -n -1 FILE | sha256sum` gives it."""


def with_checksum(data: bytes, form: str) -> bytes:
    """Add the checksum line. `data` ends with a newline."""
    return data + _trailer(data, form)


def without_checksum(path: Path, sealed: bytes, form: str) -> bytes:
    """Check and remove the checksum line.

    Raises:
        CorruptError: Some byte is not the one that was written.
    """
    length = len(form) - len("HEX") + hashlib.sha256().digest_size * 2
    data, trailer = sealed[:-length], sealed[-length:]
    if trailer != _trailer(data, form):
        raise CorruptError(f"{path} is not what was written (checksum differs)")
    return data
