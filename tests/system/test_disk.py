"""A disk that is really full, out of inodes, read-only, broken, slow or frozen.

It closes, it says, it writes when it can.
"""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import places
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT
from tests.system import disks

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ZONES = ("care", "administration", "guests", "gateway")
CUT, ISOLATE, OPEN = (dict.fromkeys(ZONES, level) for level in ("cut", "isolate", "open"))
ANSWER = 5.0
"""Seconds that an answer waits for the disk."""

FULL = {
    "tmpfs without a byte": (disks.tmpfs, disks.fill),
    "tmpfs without an inode": (
        lambda daemon: disks.tmpfs(daemon, "nr_inodes=400"),
        disks.use_up_inodes,
    ),
    "ext4 without a byte": (disks.ext4, disks.fill),
    "ext4 without an inode": (lambda daemon: disks.ext4(daemon, "-N", "400"), disks.use_up_inodes),
}


@pytest.fixture(params=FULL)
def small(request: pytest.FixtureRequest, hospital: Hospital) -> Iterator[tuple[Daemon, object]]:
    """An open gate on a small disk, and what fills that."""
    mount, fill = FULL[request.param]
    daemon = hospital.daemon()
    with mount(daemon) as folder:
        daemon.start()
        disks.settle(folder)
        yield daemon, fill


def wait_for(condition, seconds: float = 15.0) -> None:
    """Wait until it holds; what waits in memory is tried again every ten seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def leaks(hospital: Hospital) -> bool:
    return bool(hospital.guest.tcp(places.WEB.v4, timeout=0.2))


def reboot(hospital: Hospital, daemon: Daemon) -> None:
    """As a reboot: the daemon ends, the kernel forgets, the boot unit loads `boot.nft`.

    The daemon is not started yet.
    """
    daemon.kill9()
    hospital.forget_gate()
    assert leaks(hospital), "positive control"
    hospital.shell("gw", f"nft -f {daemon.state}/boot.nft")


def alone(hospital: Hospital, daemon: Daemon, level: str, *words: str):
    environment = (f"PYTHONPATH={ROOT / 'src'}", f"ECLUSE_STATE_DIR={daemon.state}")
    command = [sys.executable, "-m", "ecluse.cli", level, "--no-daemon", "--json", *words]
    return hospital.run("gw", ["env", *environment, *command])


def audited(daemon: Daemon) -> list[dict]:
    return [json.loads(line) for line in (daemon.state / "audit.log").read_text().splitlines()]


def whole(hospital: Hospital, daemon: Daemon, *, by_itself: bool = False) -> None:
    """All is on disk, in order, and the chain says so.

    by_itself: without a command, which tries at once what waits.
    """
    if not by_itself:
        daemon.level(daemon.status()["levels"]["care"])
    wait_for(lambda: daemon.status()["recorded"])
    command = [sys.executable, "-m", "ecluse.cli", "audit", "verify"]
    environment = (f"PYTHONPATH={ROOT / 'src'}", f"ECLUSE_STATE_DIR={daemon.state}")
    verified = hospital.run("gw", ["env", *environment, *command])
    assert verified.returncode == 0, verified.stdout + verified.stderr
    done = [
        line for line in audited(daemon) if line["event"] == "level" and line["result"] == "done"
    ]
    reached = [line["to_generation"] for line in done]
    assert reached == sorted(reached)
    newest = daemon.status()["generation"]
    assert (daemon.state / "generations" / f"{newest:08d}.json").exists()


def refuses_to_open(hospital: Hospital, daemon: Daemon) -> None:
    reply = daemon.api("POST", "/v1/level", {"level": "open", "reason": "x"})
    assert reply.status >= 500, reply.body
    assert not leaks(hospital)


# -- full


def test_a_closing_on_a_full_disk_is_recorded_and_outlasts_a_reboot(hospital: Hospital, small):
    daemon, fill = small
    fill(daemon.state)
    assert leaks(hospital), "positive control"
    change = daemon.level("cut")
    assert change["unrecorded"] == []
    assert not leaks(hospital)
    fill(daemon.state)  # what the closing gave back
    refuses_to_open(hospital, daemon)
    reboot(hospital, daemon)
    assert not leaks(hospital)
    assert hospital.care.tcp(places.LABORATORY.v4)
    daemon.start()
    assert daemon.status()["levels"] == CUT
    change = daemon.level("isolate")
    assert not any("boot" in words for words in change["unrecorded"]), (
        "there was room for more than one",
        change,
    )
    disks.empty(daemon.state)
    whole(hospital, daemon)
    reboot(hospital, daemon)
    daemon.start()
    assert daemon.status()["levels"] == ISOLATE
    assert not leaks(hospital)


def test_without_the_room_that_was_kept_it_waits_in_memory_and_is_written_later(
    hospital: Hospital, small
):
    daemon, fill = small
    disks.give_spare_back(daemon.state)
    fill(daemon.state)
    change = daemon.level("cut")
    assert any("the disk is full" in words for words in change["unrecorded"]), change
    assert not leaks(hospital)
    status = daemon.status()
    assert not status["recorded"]
    assert any("boot ruleset" in words for words in status["warnings"])
    refuses_to_open(hospital, daemon)
    done = daemon.cli("isolate", "--reason", "worse")
    assert done.returncode == 6
    assert "NOT FULLY" in done.stdout
    disks.empty(daemon.state)
    whole(hospital, daemon)
    reboot(hospital, daemon)
    assert not leaks(hospital)
    daemon.start()
    assert daemon.status()["levels"] == ISOLATE


def test_without_the_daemon_on_a_full_disk(hospital: Hospital, small):
    daemon, fill = small
    daemon.kill9()
    fill(daemon.state)
    done = alone(hospital, daemon, "cut", "--reason", "ransom note")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not leaks(hospital)
    # A machine without the boot unit: the file alone has to say it.
    hospital.forget_gate()
    daemon.start()
    assert daemon.status()["levels"] == CUT
    assert not leaks(hospital)
    disks.empty(daemon.state)
    whole(hospital, daemon)
    assert [line["reason"] for line in audited(daemon) if line["event"] == "by-hand"] == [
        "ransom note"
    ]


# -- read-only, broken


def test_read_only_then_mended(hospital: Hospital):
    daemon = hospital.daemon()
    with disks.ext4(daemon) as folder:
        daemon.start()
        disks.settle(folder)
        daemon.kill9()
        shutil.rmtree(
            daemon.state / "spare"
        )  # as after an upgrade to the first version that has it
        disks.remount(daemon, "ro")  # the kernel refuses that while a file is open to be written
        daemon.start()
        assert leaks(hospital), "positive control"
        change = daemon.level("cut")
        assert any("read-only" in words for words in change["unrecorded"])
        assert not leaks(hospital)
        refuses_to_open(hospital, daemon)
        disks.remount(daemon, "rw")
        whole(hospital, daemon, by_itself=True)
        daemon.kill9()
        disks.remount(daemon, "ro")
        reboot(hospital, daemon)
        assert not leaks(hospital)
        daemon.start()
        assert daemon.status()["levels"] == CUT
        daemon.kill9()
        done = alone(hospital, daemon, "isolate")
        assert done.returncode == 6
        answer = json.loads(done.stdout)
        assert answer["verified"]
        assert "read-only" in str(answer["unrecorded"])
        assert not hospital.care.tcp(places.LABORATORY.v4, timeout=0.2)


def test_turned_read_only_by_the_kernel_under_a_running_daemon(hospital: Hospital):
    daemon = hospital.daemon()
    with disks.ext4(daemon) as folder:
        daemon.start()
        disks.settle(folder)
        disks.fail(folder)
        change = daemon.level("cut")
        assert change["unrecorded"]
        assert not leaks(hospital)
        refuses_to_open(hospital, daemon)
        assert not daemon.status()["recorded"]


@pytest.fixture
def slow(hospital: Hospital) -> Iterator[tuple[Daemon, disks.SlowDisk]]:
    daemon = hospital.daemon(argv=("-m", "tests.system.slow_disk")).start()
    disk = disks.SlowDisk(daemon)
    disks.settle(daemon.state)
    yield daemon, disk
    disk.mend()
    daemon.stop(patience=30)


def test_a_disk_that_reports_errors_then_mended(hospital: Hospital, slow):
    daemon, disk = slow
    disk.break_down()
    change = daemon.level("cut")
    assert any("the disk reports an error" in words for words in change["unrecorded"])
    assert not leaks(hospital)
    refuses_to_open(hospital, daemon)
    disk.mend()
    whole(hospital, daemon)
    reboot(hospital, daemon)
    assert not leaks(hospital)
    daemon.start()
    assert daemon.status()["levels"] == CUT


# -- slow, frozen


def cut_in_a_stream(hospital: Hospital, daemon: Daemon) -> tuple[float, float, list[str]]:
    """Cut while a stream that is not kept runs.

    Ms to its last packet outside, seconds to the answer, what is not recorded.
    """
    with hospital.sniff() as witness:
        stream = hospital.guest.stream(places.WEB.v4, 5000, rate=2000)
        time.sleep(0.3)
        assert witness.count(destination=places.WEB.v4), "positive control"
        began = time.time_ns()
        change = daemon.level("cut")
        answered = time.time_ns()
        time.sleep(0.05)
        last = max(seen.last for seen in witness.seen(destination=places.WEB.v4))
        stream.stop(grace=0)
        return (last - began) / 1e6, (answered - began) / 1e9, change["unrecorded"]


def test_a_slow_fsync_delays_the_answer_and_not_the_cut(hospital: Hospital, slow):
    daemon, disk = slow
    sound = []
    for _ in range(3):
        last, _, unrecorded = cut_in_a_stream(hospital, daemon)
        assert not unrecorded
        sound.append(last)
        daemon.level("open")
        time.sleep(0.3)
    disk.slow_fsync(5.0)
    last, answer, unrecorded = cut_in_a_stream(hospital, daemon)
    disk.mend()
    print(
        f"last packet outside: sound {sound} ms, with an fsync of 5 s {last} ms; "
        f"answer after {answer:.2f} s"
    )
    assert any("has not taken it yet" in words for words in unrecorded), unrecorded
    assert answer < ANSWER + 2
    assert last < 20 * max(sound), sound
    whole(hospital, daemon)


def test_a_disk_that_freezes_during_a_cut(hospital: Hospital):
    daemon = hospital.daemon()
    with disks.ext4(daemon) as folder:
        daemon.start()
        disks.settle(folder)
        disks.freeze(folder)
        began = time.monotonic()
        change = daemon.level("cut")
        assert time.monotonic() - began < ANSWER + 2
        assert any("has not taken it yet" in words for words in change["unrecorded"])
        assert not leaks(hospital)
        assert not daemon.status()["recorded"]
        disks.thaw(folder)
        whole(hospital, daemon)
        reboot(hospital, daemon)
        daemon.start()
        assert daemon.status()["levels"] == CUT


# -- a directory that belongs to the daemon's own user

DAEMON = 61_234


def as_daemon(*argv: str) -> list[str]:
    return ["setpriv", "--reuid", str(DAEMON), "--regid", str(DAEMON), "--clear-groups", *argv]


@contextlib.contextmanager
def owned(daemon: Daemon) -> Iterator[Path]:
    for path in [daemon.state, *daemon.state.rglob("*")]:
        os.chown(path, DAEMON, DAEMON)
    yield daemon.state


def test_root_leaves_the_daemons_user_files_that_it_can_use(hospital: Hospital):
    daemon = hospital.daemon().start()
    daemon.kill9()
    with owned(daemon) as state:
        assert alone(hospital, daemon, "cut").returncode == 0
        for name in ("boot.nft", "by-hand.log"):
            found = (state / name).stat()
            assert (found.st_uid, found.st_gid) == (DAEMON, DAEMON), name
            copy = (
                f"cp {state}/{name} {state}/{name}.new && mv -f {state}/{name}.new {state}/{name}"
            )
            done = hospital.run("gw", as_daemon("sh", "-c", copy))
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo"])
def test_root_follows_nothing_that_was_planted(hospital: Hospital, kind: str):
    daemon = hospital.daemon().start()
    daemon.kill9()
    victim = daemon.directory / "victim"
    victim.write_text("not yours\n")
    with owned(daemon) as state:
        for name in ("by-hand.log", ".tmp-boot.nft-by-hand"):
            if kind == "fifo":
                os.mkfifo(state / name)
            elif kind == "link":
                (state / name).symlink_to(victim)
            else:
                os.link(victim, state / name)
        done = alone(hospital, daemon, "cut", "--reason", "evil")
        assert done.returncode == 6
        assert not leaks(hospital)
        assert victim.read_text() == "not yours\n"
        assert victim.stat().st_uid == 0
