"""Disks for a daemon's state that are really small, full, read-only or frozen.

A tmpfs, or ext4 on a loop device.
"""

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab import netns
from tests.lab.daemon import Daemon

MKFS = ("mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard", "-e", "remount-ro")


@contextlib.contextmanager
def tmpfs(daemon: Daemon, options: str = "size=3m") -> Iterator[Path]:
    """Keep this daemon's state on a tmpfs of its own; the daemon is killed at the end."""
    with _mounted(daemon, "-t", "tmpfs", "-o", f"{options},mode=750", "tmpfs"):
        yield daemon.state


@contextlib.contextmanager
def ext4(daemon: Daemon, *options: str) -> Iterator[Path]:
    """Keep this daemon's state on an ext4 of 8 MiB of its own. options: more of mkfs.ext4."""
    image = daemon.directory / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    netns.run(*MKFS, *options, str(image))
    with _mounted(daemon, "-o", "loop", str(image)):
        yield daemon.state


@contextlib.contextmanager
def _mounted(daemon: Daemon, *what: str) -> Iterator[None]:
    netns.run("mount", *what, str(daemon.state))
    try:
        yield
    finally:
        thaw(daemon.state)
        daemon.kill9()
        netns.run("umount", "-l", str(daemon.state))


def settle(folder: Path) -> None:
    """Wait until a daemon that has just started writes nothing any more, the room for a full disk
    included.
    """
    before: dict[Path, int] | None = None
    for _ in range(50):
        with contextlib.suppress(FileNotFoundError):
            now = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
            if now == before and folder / "spare" / "log-4" in now:
                return
            before = now
        time.sleep(0.5)
    raise AssertionError("it goes on writing")


def fill(folder: Path) -> None:
    """Leave not one byte: `ballast`, which may be removed again."""
    handle = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(20):
        for size in (65536, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(handle, b"x" * size)
        with contextlib.suppress(OSError):
            os.fsync(handle)  # what ext4 holds back until its journal is written is free then
        if not os.statvfs(folder).f_bavail:
            break
    os.close(handle)
    assert not os.statvfs(folder).f_bavail


def use_up_inodes(folder: Path) -> None:
    """Leave not one inode: `ballast-N`.

    ext4 holds back those of files just deleted for some seconds.
    """
    end = time.monotonic() + 15
    for number in itertools.count():
        try:
            os.close(os.open(folder / f"ballast-{number}", os.O_WRONLY | os.O_CREAT))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            if not os.statvfs(folder).f_ffree:
                return
            assert time.monotonic() < end, "inodes are left and cannot be had"
            time.sleep(0.2)


def give_spare_back(folder: Path) -> None:
    """Take away the room that the daemon keeps for a full disk (its names stay: ext4 holds inodes
    back for seconds).
    """
    for path in (folder / "spare").iterdir():
        os.truncate(path, 0)


def empty(folder: Path) -> None:
    """Take the ballast away."""
    for path in folder.glob("ballast*"):
        path.unlink()


def remount(daemon: Daemon, how: str) -> None:
    """Remount: `ro` or `rw`.

    Also as the daemon sees it, which `ip netns exec` gave mounts of its own.
    """
    command = ("mount", "-o", f"remount,{how}", str(daemon.state))
    netns.run(*command)
    if daemon.process:
        netns.run("nsenter", "-t", str(daemon.pid), "-m", *command)


def fail(folder: Path) -> None:
    """Have the kernel find an error in an ext4: it turns read-only, even with files open."""
    device = Path(netns.run("findmnt", "-n", "-o", "SOURCE", str(folder)).strip()).name
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")


def freeze(folder: Path) -> None:
    """Have every write and every fsync wait until `thaw`, as on storage that went away
    (fsfreeze(8)).
    """
    netns.run("fsfreeze", "-f", str(folder))


def thaw(folder: Path) -> None:
    netns.run("fsfreeze", "-u", str(folder), check=False)


class SlowDisk:
    """The disk of a daemon that was started by `tests.system.slow_disk`."""

    def __init__(self, daemon: Daemon) -> None:
        self._folder = daemon.directory

    def hang(self) -> None:
        (self._folder / "hangs").touch()

    def slow(self, seconds: float) -> None:
        (self._folder / "slow").write_text(str(seconds))

    def slow_fsync(self, seconds: float) -> None:
        (self._folder / "fsync").write_text(str(seconds))

    def break_down(self) -> None:
        (self._folder / "broken").touch()

    def mend(self) -> None:
        for name in ("hangs", "slow", "fsync", "broken"):
            (self._folder / name).unlink(missing_ok=True)
