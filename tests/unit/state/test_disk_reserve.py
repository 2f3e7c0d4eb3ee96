"""Room for a full disk: what is written by it is whole, what is not sound of it is not used."""

import errno
import os

import pytest

from ecluse import atomic_files
from ecluse.errors import StateError
from ecluse.state import durable_files
from ecluse.state.audit_log import HashChainAudit
from ecluse.state.disk_reserve import BOOT_FILES, LOG_FILES, DiskReserve
from ecluse.state.store import DirectoryState
from tests.unit.state import samples
from tests.unit.state.samples import CUT_LEVELS, GATE, generation


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "state"
    store = DirectoryState(root)
    store.recover()
    store.fill_disk_reserve()
    return root


def no_room(*_, **__):
    """No new file can be made."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def full(monkeypatch):
    monkeypatch.setattr(durable_files, "replace_file", no_room)


def test_the_room_is_there_in_blocks_and_not_made_twice(root):
    def found():
        return {path.name: path.stat() for path in (root / "spare").iterdir()}

    before = found()
    assert {name: stat.st_size for name, stat in before.items()} == BOOT_FILES | LOG_FILES
    assert all(stat.st_blocks * 512 >= stat.st_size for stat in before.values())
    DirectoryState(root).fill_disk_reserve()
    assert {name: stat.st_ino for name, stat in found().items()} == {
        name: stat.st_ino for name, stat in before.items()
    }


def test_a_full_disk_takes_as_many_closings_as_there_is_room(root, full):
    store = DirectoryState(root)
    for number in range(2, 2 + len(BOOT_FILES)):
        store.point_boot("program-x.nft", GATE, generation(number, CUT_LEVELS), use_reserve=True)
        assert DirectoryState(root).recover().recorded.number == number
        assert (root / "boot.nft").stat().st_mode & 0o777 == 0o640
    with pytest.raises(StateError, match="the disk is full"):
        store.point_boot("program-x.nft", GATE, generation(9, CUT_LEVELS), use_reserve=True)
    assert DirectoryState(root).recover().recorded.number == 1 + len(BOOT_FILES)


def test_an_opening_does_not_use_it(root, full):
    with pytest.raises(StateError, match="the disk is full"):
        DirectoryState(root).point_boot("program-x.nft", GATE, generation(2))
    assert not (root / "boot.nft").exists()


@pytest.mark.parametrize("kind", ["link", "hard link", "hole", "small", "folder", "gone"])
def test_what_is_not_what_was_made_is_left_alone_and_made_anew(root, tmp_path, kind, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"v" * 70_000)
    for name in BOOT_FILES:
        path = root / "spare" / name
        path.unlink()
        match kind:
            case "link":
                path.symlink_to(victim)
            case "hard link":
                os.link(victim, path)
            case "hole":
                with path.open("wb") as file:
                    file.truncate(70_000)
            case "small":
                path.write_bytes(b"x")
            case "folder":
                path.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(durable_files, "replace_file", no_room)
        with pytest.raises(StateError, match="full"):
            DiskReserve(root / "spare").write_file(root / "boot.nft", b"cut\n")
    assert victim.read_bytes() == b"v" * 70_000
    if kind == "folder":
        return
    DirectoryState(root).fill_disk_reserve()
    with monkeypatch.context() as patch:
        patch.setattr(durable_files, "replace_file", no_room)
        DiskReserve(root / "spare").write_file(root / "boot.nft", b"cut\n")
    assert (root / "boot.nft").read_bytes() == b"cut\n"
    assert victim.read_bytes() == b"v" * 70_000


def test_room_for_lines_is_given_back_one_at_a_time(root):
    spare = DiskReserve(root / "spare")
    assert [spare.release_log_file() for _ in range(5)] == [True] * 4 + [False]
    assert sorted(os.listdir(root / "spare")) == sorted(BOOT_FILES)


def test_the_line_of_a_closing_alone_uses_the_room_for_lines(root, monkeypatch):
    """Lines of attempts, tampering, leaks and starts tell the levels too, and others cause them as
    often as they like.
    """
    write = atomic_files.write_fully

    def while_no_room_was_given(fd, data):
        if len(list((root / "spare").iterdir())) == len(BOOT_FILES | LOG_FILES):
            no_room()
        write(fd, data)

    monkeypatch.setattr(atomic_files, "write_fully", while_no_room_was_given)
    log = HashChainAudit(root / "audit.log", lambda: samples.NOW)
    for event in ("tamper", "exit", "leak", "level"):
        with pytest.raises(StateError, match="the disk is full"):
            log.append(samples.audit_record(event=event, levels=CUT_LEVELS))
    log.append(samples.audit_record(levels=CUT_LEVELS), use_reserve=True)
    assert len(list((root / "spare").iterdir())) == len(BOOT_FILES | LOG_FILES) - 1
    log.close()


def test_another_error_is_not_taken_for_a_full_disk(root, monkeypatch):
    def broken(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable_files, "replace_file", broken)
    with pytest.raises(StateError, match="reports an error"):
        DiskReserve(root / "spare").write_file(root / "boot.nft", b"cut\n")
    assert len(os.listdir(root / "spare")) == len(BOOT_FILES | LOG_FILES)
