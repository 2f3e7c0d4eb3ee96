"""Durable writes: whole or not at all, whatever the disk does."""

import errno
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ecluse.errors import CorruptError, StateError
from ecluse.state import durable_files


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file"
    durable_files.write_file(path, b"one")
    durable_files.write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["file"]


FAILURES = [
    (errno.ENOSPC, "the disk is full"),
    (errno.EDQUOT, "quota"),
    (errno.EROFS, "read-only"),
    (errno.EIO, "the disk reports an error"),
    (errno.EACCES, "not permitted"),
]


@pytest.mark.parametrize("number, words", FAILURES)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "fchmod"])
def test_a_failing_disk_leaves_the_file_before_and_says_why(
    tmp_path, monkeypatch, call, number, words
):
    path = tmp_path / "file"
    durable_files.write_file(path, b"before")

    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(StateError, match=words) as caught:
            durable_files.write_file(path, b"after")
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_reading_gives_none_for_missing_and_never_waits_for_what_is_no_file(tmp_path):
    assert durable_files.read_file(tmp_path / "none") is None
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("fifo", "folder", "link"):
        with pytest.raises(CorruptError, match="not a regular file"):
            durable_files.read_file(tmp_path / name)
    with (tmp_path / "large").open("wb") as large:
        large.truncate(durable_files.MAX_FILE_BYTES + 1)
    with pytest.raises(CorruptError, match="more than"):
        durable_files.read_file(tmp_path / "large")


@pytest.mark.parametrize("form", [durable_files.JSON_TRAILER, durable_files.COMMENT_TRAILER])
def test_every_altered_byte_is_seen(form):
    path = Path("file")
    sealed = durable_files.with_checksum(b'{"a":1}\n', form)
    assert durable_files.without_checksum(path, sealed, form) == b'{"a":1}\n'
    for place in range(len(sealed)):
        for bit in (1, 0x20):
            altered = bytearray(sealed)
            altered[place] ^= bit
            with pytest.raises(CorruptError):
                durable_files.without_checksum(path, bytes(altered), form)
    for length in range(len(sealed)):
        with pytest.raises(CorruptError):
            durable_files.without_checksum(path, sealed[:length], form)


def test_set_aside_keeps_evidence_and_is_bounded(tmp_path):
    path = tmp_path / "file"
    for number in range(12):
        path.write_text(str(number))
        durable_files.set_aside(path)
    assert len(os.listdir(tmp_path)) == 9
    assert (tmp_path / "file.damaged-1").read_text() == "0"
    assert (tmp_path / "file.damaged-9").read_text() == "11"


FULL_DISK = """
    import sys
    from pathlib import Path
    from datetime import UTC, datetime
    from ecluse.errors import StateError
    from ecluse.state import durable_files
    from ecluse.state.audit_log import HashChainAudit, verify
    from tests.unit.state import samples

    root = Path(sys.argv[1])
    log = HashChainAudit(root / "audit.log", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    durable_files.write_file(root / "file", b"before")
    log.append(samples.audit_record())
    (root / "ballast").write_bytes(b"x" * (96 * 1024))
    try:
        for _ in range(10_000):
            log.append(samples.audit_record(what="w" * 700))
    except StateError as error:
        print("audit:", error.message, "|", error.hint)
    raw = (root / "audit.log").read_bytes()
    assert raw.endswith(b"\\n") and verify(root / "audit.log") == [], verify(root / "audit.log")
    try:
        durable_files.write_file(root / "file", b"y" * 100_000)
    except StateError as error:
        print("file:", error.message)
    assert (root / "file").read_bytes() == b"before"
    (root / "ballast").unlink()
    log.append(samples.audit_record(what="there is room again"))
    assert verify(root / "audit.log") == []
    assert (root / "audit.log").read_bytes().startswith(raw)
    assert not list(root.glob(".tmp-*")) and not list(root.glob("*.torn-*"))
"""


@pytest.mark.kernel
def test_a_full_disk_loses_nothing_and_leaves_nothing(tmp_path):
    """A real one: a tmpfs of 256 KiB in a mount namespace of its own."""
    mount = f"mount -t tmpfs -o size=256k none {tmp_path} && exec {sys.executable} - {tmp_path}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount],
        check=False,
        input=textwrap.dedent(FULL_DISK),
        env={**os.environ, "PYTHONPATH": "src:."},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    audit, file = done.stdout.splitlines()
    assert "the disk is full" in audit and "df -h" in audit
    assert "the disk is full" in file
