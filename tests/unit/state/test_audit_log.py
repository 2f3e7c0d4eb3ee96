"""The audit log: an answered line stays, a torn end is mended and said."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from ecluse.errors import CorruptError, StateError
from ecluse.state import audit_log, hash_chain
from ecluse.state.audit_log import HashChainAudit, verify
from tests.unit.state import samples


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.log"


def write(path, count=6, **changes):
    log = HashChainAudit(path, lambda: samples.NOW)
    for number in range(1, count + 1):
        log.append(samples.audit_record(to_generation=number, levels=samples.CUT_LEVELS, **changes))
    log.close()


def test_a_line_tells_all_and_the_chain_goes_on_after_a_restart(path):
    write(path, 3)
    write(path, 2)
    records = list(audit_log.read_audit(path))
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5]
    assert records[0]["prev"] == hash_chain.GENESIS
    assert [record["prev"] for record in records[1:]] == [record["hash"] for record in records[:-1]]
    first = records[0]
    assert first["actor"] == {
        "uid": 1000,
        "user": "garde",
        "pid": 4242,
        "command": "ecluse cut",
        "login": 1000,
    }
    assert (first["event"], first["reason"], first["result"]) == ("level", "attaque", "done")
    assert (first["to_generation"], first["levels"]) == (1, samples.CUT_LEVELS)
    assert first["at"] == "2026-03-04T03:00:05.123+00:00"
    assert verify(path) == []


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("keep", [1, 20, 200])
def test_a_torn_end_is_cut_kept_aside_and_said(path, keep):
    write(path, 3)
    whole = lines_of(path)
    put(path, [*whole[:2], whole[2][:keep]])
    (said,) = audit_log.repair(path, lambda: samples.NOW)
    assert "torn" in said and "audit.torn-1" in said
    assert path.with_name("audit.torn-1").read_bytes() == whole[2][:keep]
    assert lines_of(path)[:2] == whole[:2]
    last = list(audit_log.read_audit(path))[-1]
    assert (last["event"], last["what"]) == ("repair", said)
    assert audit_log.repair(path, lambda: samples.NOW) == ()


def test_a_line_that_lacks_only_its_newline_counts(path):
    write(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    (said,) = audit_log.repair(path, lambda: samples.NOW)
    assert "newline" in said
    assert path.read_bytes().startswith(whole)
    assert verify(path) == []


def test_append_repairs_by_itself_when_nobody_did(path):
    write(path, 2)
    with path.open("ab") as log:
        log.write(b"\0" * 100)
    write(path, 1)
    assert [record["event"] for record in audit_log.read_audit(path)] == [
        "level",
        "level",
        "repair",
        "level",
    ]
    assert verify(path) == []


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_failed_append_leaves_no_part_of_a_line(path, monkeypatch, call):
    log = HashChainAudit(path, lambda: samples.NOW)
    log.append(samples.audit_record())
    before = path.read_bytes()
    real_write = os.write

    def short_then_full(fd, data):
        if call == "write" and len(data) <= 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(fd, data[:-40]) if call == "write" else real_write(fd, data)

    calls = iter([True])

    def fails_once(fd):
        if call == "fdatasync" and next(calls, False):
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short_then_full)
        patch.setattr(os, "fdatasync", fails_once)
        with pytest.raises(StateError):
            log.append(samples.audit_record(what="lost"))
    assert path.read_bytes() == before
    log.append(samples.audit_record(what="kept"))
    assert [record["what"] for record in audit_log.read_audit(path)][-1] == "kept"
    assert verify(path) == []


def test_a_log_moved_away_gets_a_new_file_that_says_what_is_missing(path):
    log = HashChainAudit(path, lambda: samples.NOW)
    for _ in range(3):
        log.append(samples.audit_record())
    path.rename(path.with_name("audit.log.1"))
    log.append(samples.audit_record())
    assert [record["seq"] for record in audit_log.read_audit(path)] == [4]
    assert "removed: 1 to 3" in verify(path)[0].what


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_what_is_no_file_is_refused_without_waiting(path, kind):
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(CorruptError):
        HashChainAudit(path, lambda: samples.NOW).append(samples.audit_record())
    with pytest.raises(CorruptError):
        verify(path)


def test_last_levels_are_those_that_stood(path):
    log = HashChainAudit(path, lambda: samples.NOW)
    assert audit_log.last_levels(path) is None
    log.append(samples.audit_record(levels=samples.CUT_LEVELS, to_generation=2))
    log.append(samples.audit_record(event="intent", levels=samples.OPEN_LEVELS, to_generation=3))
    log.append(
        samples.audit_record(result="failed: no", levels=samples.OPEN_LEVELS, to_generation=3)
    )
    log.append(samples.audit_record(result="refused", levels=samples.OPEN_LEVELS))
    log.append(samples.audit_record(event="start"))
    assert audit_log.last_levels(path) == samples.CUT_LEVELS
    assert audit_log.survey(path).generation == 2
    log.append(samples.audit_record(levels=samples.OPEN_LEVELS, to_generation=3))
    assert audit_log.last_levels(path) == samples.OPEN_LEVELS
    path.write_bytes(path.read_bytes().replace(b'"care":"cut"', b'"care":"opn"'))
    put(path, lines_of(path)[:-1])
    assert audit_log.last_levels(path) is None  # an altered line tells nothing


def test_a_long_log_is_read_from_its_end_only_at_start(path, monkeypatch):
    write(path, 40)
    put(path, [lines_of(path)[0].replace(b"attaque", b"attacke"), *lines_of(path)[1:]])
    assert audit_log.survey(path).damage
    monkeypatch.setattr(audit_log, "_CHECKED_BYTES", 2000)
    assert audit_log.survey(path).damage == ()
    assert audit_log.survey(path).levels == samples.CUT_LEVELS
    assert verify(path)


def put(path, lines):
    path.write_bytes(b"".join(lines))


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from ecluse.state.audit_log import HashChainAudit
from tests.unit.state import samples
log = HashChainAudit(Path(sys.argv[1]), lambda: datetime.now(UTC))
while True:
    log.append(samples.audit_record(what="w" * 200))
    print(flush=True)
"""


def test_kill_9_loses_no_answered_line(path):
    answered = 0
    for round_ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "src:."},
        )
        writer.stdout.readline()
        time.sleep(0.02 + 0.007 * round_)
        writer.send_signal(signal.SIGKILL)
        answered += 1 + writer.stdout.read().count(b"\n")
        writer.wait()
        writer.stdout.close()
        audit_log.repair(path, lambda: samples.NOW)
        assert verify(path) == []
    written = sum(record["event"] == "level" for record in audit_log.read_audit(path))
    assert answered <= written <= answered + 8


def test_verify_and_read_need_the_standard_library_only():
    """The command line checks the log; it has to start fast."""
    program = (
        "import sys; import ecluse.state.audit_log; "
        "print([m for m in ('pydantic', 'structlog', 'aiohttp', 'dns') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
