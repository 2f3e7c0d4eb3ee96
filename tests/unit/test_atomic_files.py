"""One file replaced: whole or not at all, whatever the disk does."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ecluse import atomic_files
from ecluse.atomic_files import replace_file


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"one")
    replace_file(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "options, steps",
    [
        ({}, ["file", "rename", "folder"]),
        ({"sync_name": False}, ["file", "rename"]),
        ({"sync_data": False, "sync_name": False}, ["rename"]),
    ],
)
def test_what_is_synced_and_in_which_order(tmp_path, monkeypatch, options, steps):
    seen = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(fd):
        seen.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_fsync(fd)

    def rename(self, target):
        seen.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    replace_file(tmp_path / "file", b"x", **options)
    assert seen == steps


@pytest.mark.parametrize("call", ["open", "write", "fsync", "fchmod"])
def test_a_failure_leaves_the_file_before_and_no_temporary(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    replace_file(path, b"before")

    def fails(*args, **kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(OSError, match="Input/output"):
            replace_file(path, b"after")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_short_write_goes_on_until_all_is_written(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    replace_file(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_planted_temporary_is_never_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / ".tmp-file-000000000000").symlink_to(victim)
    with pytest.raises(FileExistsError):
        replace_file(tmp_path / "file", b"x")
    assert victim.read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_is_given_to_the_folders_owner_only_when_asked(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    replace_file(tmp_path / "ours", b"x")
    replace_file(tmp_path / "theirs", b"x", to_folder_owner=True)
    assert (tmp_path / "ours").stat().st_uid == 0
    assert (tmp_path / "theirs").stat().st_uid == 12345


def test_only_temporaries_are_removed(tmp_path):
    (tmp_path / ".tmp-file-00").write_bytes(b"half")
    (tmp_path / "file").write_bytes(b"whole")
    atomic_files.remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["file"]
    atomic_files.remove_temporaries(tmp_path / "no folder")


def test_few_modules_are_loaded_for_it():
    """A closing without the daemon loads it: it must start at once."""
    program = (
        "import contextlib, errno, itertools, os, pathlib, sys\n"
        "before = set(sys.modules)\n"
        "import ecluse.atomic_files\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['ecluse', 'ecluse.atomic_files']\n"
