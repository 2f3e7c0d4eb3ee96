"""Reads files that a person edits: regular files of bounded size only, else a fault."""

import os
import stat
from pathlib import Path

from ecluse.config.yaml_tree import MAX_BYTES
from ecluse.faults import Fault
from ecluse.safe_text import escape_unsafe

MAX_FILES = 1000


def file_name(path: Path | str) -> str:
    """Return a path as it may be shown: bytes that are no text, and controls, as escapes."""
    return escape_unsafe(os.fspath(path))


def read_file(path: Path) -> bytes | Fault:
    """Read a regular file of at most 4 MiB, or a link to one; never wait, as at a FIFO."""
    shown = file_name(path)
    try:
        # Before the open, because to open a device is already to use it; after it, because only
        # that is sure.
        before = path.stat()
        if not stat.S_ISREG(before.st_mode):
            return Fault(shown, 0, 0, _kind_of_file(before.st_mode), "a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Fault(shown, 0, 0, "the file changed while it was opened", "a regular file")
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        return Fault(shown, 0, 0, *_open_fault(path, error))
    if len(data) > MAX_BYTES:
        return Fault(
            shown,
            0,
            0,
            f"the file is larger than {MAX_BYTES} bytes",
            "several files in allowlist.d",
        )
    return data


def allowlist_files(directory: Path) -> tuple[list[Path], list[Fault], list[Fault]]:
    """Return the `*.yaml` files of `allowlist.d` in bytewise name order, faults, and warnings.

    Hidden files belong to editors and are passed over. A `.yml` is a fault: its services would be
    missing.
    """
    shown = file_name(directory)
    try:
        with os.scandir(directory) as entries:
            names = sorted((entry.name for entry in entries), key=os.fsencode)
    except (OSError, ValueError) as error:
        return [], [Fault(shown, 0, 0, *_open_fault(directory, error))], []
    paths: list[Path] = []
    faults: list[Fault] = []
    warnings: list[Fault] = []
    for name in names:
        path = directory / name
        if name.startswith("."):
            continue
        if name.endswith(".yaml"):
            paths.append(path)
        elif name.lower().endswith((".yml", ".yaml")):
            faults.append(
                Fault(
                    file_name(path), 0, 0, "the file would not be read", "a name that ends in .yaml"
                )
            )
        else:
            warnings.append(
                Fault(
                    file_name(path), 0, 0, "this file is not read: its name does not end in .yaml"
                )
            )
    if len(paths) > MAX_FILES:
        faults.append(Fault(shown, 0, 0, f"{len(paths)} files", f"at most {MAX_FILES}"))
        paths = []
    return paths, faults, warnings


def loose_mode(path: Path) -> Fault | None:
    """Return a warning about a file or directory that every user of the machine may change."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        wrong = f"every user of this machine may change it; type: chmod o-w {file_name(path)}"
        return Fault(file_name(path), 0, 0, wrong)
    return None


def _open_fault(path: Path, error: OSError | ValueError) -> tuple[str, str]:
    match error:
        case FileNotFoundError() if path.is_symlink():
            return f"a link to {file_name(path.readlink())}, which does not exist", "a file"
        case FileNotFoundError():
            return "there is no such file or directory", "one, with the form that config/ shows"
        case PermissionError():
            return f"user {os.geteuid()} may not read it", "read permission for the daemon"
        case NotADirectoryError():
            return "this is not a directory", "a directory"
        case OSError():
            return f"it can't be read: {error.strerror}", "a readable file"
        case _:
            return "this path has a NUL byte", "a path"


def _kind_of_file(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "this is a directory",
        stat.S_IFIFO: "this is a FIFO",
        stat.S_IFSOCK: "this is a socket",
        stat.S_IFCHR: "this is a device",
        stat.S_IFBLK: "this is a device",
    }
    return kinds.get(stat.S_IFMT(mode), "this is no regular file")
