"""Closing without the daemon.

By command, watched by packets, and on record when the daemon is back.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ecluse.records import Actor
from ecluse.state import offline_closings
from tests.lab import places
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def dead(hospital: Hospital) -> Daemon:
    """A daemon that was armed and is dead, with everything open."""
    daemon = hospital.daemon().start()
    assert hospital.care.tcp(places.WEB.v4)
    daemon.kill9()
    assert hospital.care.tcp(places.WEB.v4)
    return daemon


def alone(
    hospital: Hospital, daemon: Daemon, *words: str, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `ecluse` in the gateway's own namespace, where nft finds the gateway's table."""
    environment = (
        f"PYTHONPATH={ROOT / 'src'}",
        f"ECLUSE_STATE_DIR={daemon.state}",
        f"ECLUSE_SOCKET={daemon.socket}",
    )
    return hospital.run(
        "gw", ["env", *environment, *more, sys.executable, "-m", "ecluse.cli", *words]
    )


def closed(hospital: Hospital) -> bool:
    return not hospital.care.tcp(places.WEB.v4, timeout=0.3) and not hospital.guest.tcp(
        places.WEB.v4, timeout=0.3
    )


def test_a_cut_without_the_daemon_is_a_cut_and_is_recorded_when_it_is_back(
    hospital: Hospital, dead: Daemon
):
    leaking, kept = hospital.care.open(places.WEB.v4), hospital.care.open(places.LABORATORY.v4)
    assert leaking.talk()
    assert kept.talk()
    done = alone(
        hospital,
        dead,
        "cut",
        "--no-daemon",
        "--reason",
        "ransom note",
        "--authorised-by",
        "Dr Example",
    )
    assert done.returncode == 0, done.stderr
    assert "CUT: every zone, without the daemon" in done.stdout
    assert "yes, read back from the kernel" in done.stdout
    assert closed(hospital)
    assert hospital.care.tcp(places.LABORATORY.v4)
    assert not leaking.talk(timeout=0.3)
    assert kept.talk()
    dead.start()
    assert kept.talk()
    assert set(dead.status()["levels"].values()) == {"cut"}
    assert closed(hospital)
    assert hospital.care.tcp(places.LABORATORY.v4)
    records = [json.loads(line) for line in (dead.state / "audit.log").read_text().splitlines()]
    record = next(one for one in records if one["event"] == "by-hand")
    assert record["reason"] == "ransom note"
    assert record["authorised_by"] == "Dr Example"
    assert "cut without the daemon" in record["what"]
    assert not (dead.state / "by-hand.log").exists()
    assert alone(hospital, dead, "audit", "verify").returncode == 0
    dead.restart()
    again = (dead.state / "audit.log").read_text()
    assert again.count('"by-hand"') == 1


def test_it_outlasts_a_reboot(hospital: Hospital, dead: Daemon):
    assert alone(hospital, dead, "cut", "--no-daemon").returncode == 0
    hospital.forget_gate()  # the kernel of a machine that reboots knows nothing
    assert hospital.care.tcp(places.WEB.v4)
    hospital.nft((dead.state / "boot.nft").read_text())
    assert not hospital.care.tcp(places.WEB.v4, timeout=0.3)
    dead.start()
    assert set(dead.status()["levels"].values()) == {"cut"}


def test_it_outlasts_a_reboot_without_the_boot_unit(hospital: Hospital, dead: Daemon):
    assert alone(hospital, dead, "cut", "--no-daemon").returncode == 0
    hospital.forget_gate()
    assert hospital.care.tcp(places.WEB.v4)
    dead.start()
    assert set(dead.status()["levels"].values()) == {"cut"}
    dead.level("open")
    dead.restart()
    assert set(dead.status()["levels"].values()) == {"open"}


def test_where_the_level_cannot_be_loaded_the_lifeline_alone_is_kept(
    hospital: Hospital, dead: Daemon
):
    (dead.state / "ruleset" / "cut.nft").write_text("this is no ruleset\n")
    done = alone(hospital, dead, "cut", "--no-daemon")
    assert done.returncode == 0, done.stderr
    assert "the lifeline alone" in done.stdout
    assert "cut.nft cannot be used" in done.stderr
    assert closed(hospital)
    assert not hospital.care.tcp(places.LABORATORY.v4, timeout=0.3)


def _only_its_include(path: Path) -> None:
    path.write_text(
        "".join(
            line for line in path.read_text().splitlines(True) if line.startswith(("#", "include"))
        )
    )


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("ruleset/cut.nft", _only_its_include),
        ("ruleset/cut.nft", _fifo),
        ("ruleset/program-*.nft", lambda path: os.truncate(path, path.stat().st_size - 80)),
        ("ruleset/program-*.nft", _fifo),
    ],
    ids=["without its end", "a pipe", "program torn", "program a pipe"],
)
def test_a_torn_ruleset_opens_nothing(hospital: Hospital, daemon: Daemon, file: str, damage):
    """A level's file that lost its end loads, and leaves every base chain accepting."""
    daemon.level("cut")
    daemon.kill9()
    for path in daemon.state.glob(file):
        damage(path)
    done = alone(hospital, daemon, "cut", "--no-daemon")
    assert done.returncode == 0, done.stderr
    assert "cannot be used" in done.stderr
    assert "closed.nft" in done.stdout
    assert closed(hospital)
    hospital.nft(f'include "{daemon.state}/boot.nft"\n')
    assert closed(hospital), "the next boot, too"


def test_with_nothing_to_load_it_says_so_and_changes_nothing(hospital: Hospital, dead: Daemon):
    for path in (dead.state / "ruleset" / "cut.nft", dead.state / "closed.nft"):
        path.unlink()
    done = alone(hospital, dead, "cut", "--no-daemon")
    assert done.returncode == 5
    assert "nothing was changed" in done.stderr
    assert "pull the cable" in done.stderr
    assert hospital.care.tcp(places.WEB.v4)


def test_a_disk_that_takes_nothing_does_not_keep_it_open(hospital: Hospital, dead: Daemon):
    (dead.state / "by-hand.log").mkdir()
    done = alone(hospital, dead, "isolate", "--no-daemon", "--json")
    assert done.returncode == 6
    answer = json.loads(done.stdout)
    assert answer["verified"]
    assert answer["unrecorded"]
    assert closed(hospital)
    dead.start()
    assert set(dead.status()["levels"].values()) == {"isolate"}


def test_only_root_closes_without_the_daemon(hospital: Hospital, dead: Daemon):
    done = dead.cli("cut", "--no-daemon", user=1000)
    assert done.returncode == 3
    assert "sudo ecluse cut --no-daemon" in done.stderr
    assert hospital.care.tcp(places.WEB.v4)


def test_beside_a_daemon_that_lives_it_is_followed(hospital: Hospital, daemon: Daemon):
    done = alone(hospital, daemon, "cut", "--no-daemon")
    assert done.returncode == 0, done.stderr
    assert closed(hospital)
    assert wait_until(lambda: set(daemon.status()["levels"].values()) == {"cut"})
    assert hospital.care.tcp(places.LABORATORY.v4)


def test_torn_notes_are_told_and_do_no_harm(hospital: Hospital, dead: Daemon):
    at, nobody = datetime(2026, 1, 1, tzinfo=UTC), Actor(0, "root", 1, "ecluse")
    offline_closings.append_closing(
        dead.state / "by-hand.log", offline_closings.OfflineClosing(at, "cut", "x", nobody, "", "")
    )
    with (dead.state / "by-hand.log").open("ab") as log:
        log.write(b'{"lev\xff')
    dead.start()
    assert dead.status()["armed"]
    assert "by-hand.log: 1 lines cannot be read" in dead.tail()
    records = (dead.state / "audit.log").read_text()
    assert records.count('"by-hand"') == 1


@pytest.fixture
def unconfigured(hospital: Hospital) -> Daemon:
    """A gateway right after the package was installed.

    No site's files, a state directory with nothing in it.
    """
    daemon = hospital.daemon()
    shutil.rmtree(daemon.config)
    return daemon


def installed(hospital: Hospital, daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    more = (f"ECLUSE_CONFIG_DIR={daemon.config}", f"ECLUSE_BUILT_IN={ROOT / 'systemd/closed.nft'}")
    return alone(hospital, daemon, *words, more=more)


def test_after_an_install_without_files_what_is_said_is_true(
    hospital: Hospital, unconfigured: Daemon
):
    told = installed(hospital, unconfigured, "status")
    assert told.returncode == 4
    assert "there is no gate yet, and everything passes" in " ".join(told.stderr.split())
    assert hospital.care.tcp(places.WEB.v4), "so it is"
    assert f"editor {unconfigured.config}/site.yaml" in told.stderr
    assert "cut.nft" not in told.stderr, "that file is not there"
    done = installed(hospital, unconfigured, "isolate", "--no-daemon")
    assert closed(hospital)
    assert "no service is kept" in done.stdout
    assert "rollback" not in done.stdout + done.stderr.replace("nothing to roll back to", "")
    (way_back,) = (line.strip() for line in done.stderr.splitlines() if "nft delete table" in line)
    hospital.shell("gw", way_back)
    assert hospital.care.tcp(places.WEB.v4)
    assert "there is no gate yet" in " ".join(
        installed(hospital, unconfigured, "status").stderr.split()
    )


def test_set_up_after_a_closing_without_it_the_daemon_stays_shut_until_it_is_opened(
    hospital: Hospital, unconfigured: Daemon
):
    done = installed(hospital, unconfigured, "cut", "--no-daemon")
    assert "stays shut until 'ecluse open'" in " ".join(done.stderr.split())
    unconfigured.write_config()
    told = installed(hospital, unconfigured, "status").stderr
    assert "somebody shut the gate without it: no service is kept" in " ".join(told.split())
    unconfigured.start()
    assert set(unconfigured.status()["levels"].values()) == {"cut"}
    assert not hospital.care.tcp(places.WEB.v4, timeout=0.3)
    assert unconfigured.cli("open", "--yes", "--reason", "set up").returncode == 0
    assert hospital.care.tcp(places.WEB.v4)


@contextlib.contextmanager
def owned(hospital: Hospital, *lines: str) -> Iterator[None]:
    """Have a process of the gateway make tables that nobody else may delete."""
    argv = ["ip", "netns", "exec", hospital.namespace("gw"), "nft", "-i"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as owner:
        assert owner.stdin
        try:
            owner.stdin.write("".join(f"{line}\n" for line in lines))
            owner.stdin.flush()
            names = [line.split()[3] for line in lines]
            wait_until(lambda: all(n in hospital.shell("gw", "nft list tables") for n in names))
            yield
        finally:
            owner.stdin.close()


@pytest.mark.parametrize("level", ["cut", "isolate"])
def test_tables_of_the_extras_that_a_process_owns_refuse_no_closing(
    hospital: Hospital, dead: Daemon, level: str
):
    flows = "add table inet ecluse_flows { flags owner; }"
    lock = "add table netdev ecluse_exit { flags owner; }"
    with owned(hospital, flows, lock):
        by_hand = hospital.run("gw", ["nft", "-f", f"{dead.state}/ruleset/{level}.nft"])
        assert "not permitted" in by_hand.stderr, "positive control: it is refused as it is"
        assert hospital.care.tcp(places.WEB.v4)
        done = alone(hospital, dead, level, "--no-daemon")
        assert done.returncode == 0, done.stderr
        assert "a process owns table" in done.stderr
        assert f"{level}.nft" in done.stdout
        assert closed(hospital)
        assert bool(hospital.care.tcp(places.LABORATORY.v4, timeout=0.3)) == (level == "cut")
