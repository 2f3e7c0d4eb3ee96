"""Commands that nobody waits for any more, or that were sent before somebody closed the gate.

They close, and open nothing.

Every way in which that comes about, with systemd's socket and the real daemon, by packets.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab import places
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT

pytestmark = pytest.mark.system

ZONES = ("care", "administration", "guests", "gateway")
ISOLATE, CUT, OPEN = (dict.fromkeys(ZONES, level) for level in ("isolate", "cut", "open"))

_STARTER = """
import os, runpy
os.dup2({fd}, 3)
os.environ['LISTEN_FDS'] = '1'; os.environ['LISTEN_PID'] = str(os.getpid())
runpy.run_module('ecluse.eclused', run_name='__main__', alter_sys=True)
"""


@pytest.fixture
def held(hospital: Hospital) -> Iterator[Daemon]:
    """A daemon behind a socket that somebody else holds, as systemd does.

    It takes commands while no daemon runs.
    """
    daemon = hospital.daemon()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(daemon.socket))
        listener.listen(64)
        listener.set_inheritable(True)
        daemon.argv = ("-c", _STARTER.format(fd=listener.fileno()))
        daemon.pass_fds = (listener.fileno(),)
        daemon.start()
        yield daemon
        daemon.kill9()


Typed = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def typed() -> Iterator[Typed]:
    """Types commands of `ecluse`, and sees each on its way to a socket where nobody answers."""
    began: list[subprocess.Popen[str]] = []

    def type_(daemon: Daemon, *words: str) -> subprocess.Popen[str]:
        # A shell in the background (nohup) has its children ignore Ctrl-C.
        command = ["env", "--default-signal=INT,HUP", sys.executable, "-m", "ecluse.cli", *words]
        environment = {"PYTHONPATH": str(ROOT / "src"), "ECLUSE_SOCKET": str(daemon.socket)}
        one = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | environment,
        )
        began.append(one)
        assert one.stdout is not None
        assert "No answer yet" in one.stdout.readline(), "positive control: it was sent, and waits"
        return one

    yield type_
    for one in began:
        one.kill()
        one.communicate()


def without_daemon(hospital: Hospital, daemon: Daemon, verb: str) -> None:
    environment = (f"PYTHONPATH={ROOT / 'src'}", f"ECLUSE_STATE_DIR={daemon.state}")
    words = ["env", *environment, sys.executable, "-m", "ecluse.cli", verb, "--no-daemon"]
    done = hospital.run("gw", words)
    assert done.returncode == 0, done.stderr


def keeps_nothing(hospital: Hospital) -> bool:
    """Say whether kept traffic is refused, asking often enough to see a gate that opens late."""
    return not any(hospital.care.tcp(places.LABORATORY.v4, timeout=0.2) for _ in range(3))


def audited(daemon: Daemon) -> list[dict]:
    return [json.loads(line) for line in (daemon.state / "audit.log").read_text().splitlines()]


def told(daemon: Daemon) -> list[str]:
    """Give the results of the levels that were commanded, by the audit log."""
    return [line["result"] for line in audited(daemon) if line["event"] == "level"]


def wait_for_the_next(daemon: Daemon, before: list[str]) -> None:
    """Wait until one more command was done, or was left out."""
    end = time.monotonic() + 10
    while len(told(daemon)) == len(before):
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.1)


# -- a daemon that is down: what waits in systemd's socket


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_cut_that_was_given_up_opens_no_isolated_gate(
    hospital: Hospital, held: Daemon, typed: Typed, how: signal.Signals
):
    """The runbook: no answer, Ctrl-C, `isolate --no-daemon`; then the daemon starts."""
    assert hospital.care.tcp(places.LABORATORY.v4), "positive control: a cut keeps it"
    held.kill9()
    cut = typed(held, "cut", "--reason", "first thought")
    cut.send_signal(how)
    cut.wait(10)
    without_daemon(hospital, held, "isolate")
    assert keeps_nothing(hospital)
    held.start()
    wait_for_the_next(held, [])
    assert keeps_nothing(hospital)
    assert held.status()["levels"] == ISOLATE
    assert told(held) == ["left out"]


@pytest.mark.parametrize(
    "words", [("cut",), ("level", "reduced"), ("open", "--yes", "--reason", "x")]
)
def test_who_waits_through_a_closing_by_hand_is_told_and_opens_nothing(
    hospital: Hospital, held: Daemon, typed: Typed, words: tuple[str, ...]
):
    """One person types a command and waits; then another isolates without the daemon."""
    held.kill9()
    waiting = typed(held, *words)
    without_daemon(hospital, held, "isolate")
    held.start()
    said, _ = waiting.communicate(timeout=20)
    assert waiting.returncode != 0
    assert "nothing was opened" in said
    assert keeps_nothing(hospital)
    assert held.status()["levels"] == ISOLATE


def test_a_cut_that_was_given_up_is_carried_out_where_the_gate_stands_open(
    hospital: Hospital, held: Daemon, typed: Typed
):
    """Late rather than never."""
    held.kill9()
    cut = typed(held, "cut")
    cut.send_signal(signal.SIGINT)
    cut.wait(10)
    assert hospital.guest.tcp(places.WEB.v4), "positive control"
    held.start()
    end = time.monotonic() + 10
    while held.status()["levels"] != CUT:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)


@pytest.mark.parametrize("given_up", [True, False])
def test_an_opening_goes_through_a_restart_only_with_whoever_waits_for_it(
    hospital: Hospital, held: Daemon, typed: Typed, given_up: bool
):
    """Where nobody closed anything in between, what was sent still means what it meant."""
    held.level("isolate")
    before = told(held)
    held.kill9()
    cut = typed(held, "cut")  # opens: it keeps what `isolate` does not
    if given_up:
        cut.send_signal(signal.SIGINT)
        cut.wait(10)
    held.start()
    wait_for_the_next(held, before)
    cut.wait(20)
    assert held.status()["levels"] == (ISOLATE if given_up else CUT)
    assert keeps_nothing(hospital) is given_up


def test_a_cut_whose_command_line_lost_patience_opens_no_isolated_gate(
    hospital: Hospital, held: Daemon
):
    """The client's own time-out, as a script with `curl --max-time` has it."""
    held.kill9()
    with contextlib.suppress(OSError):
        held.api("POST", "/v1/level", {"level": "cut"}, timeout=0.2)
    without_daemon(hospital, held, "isolate")
    held.start()
    wait_for_the_next(held, [])
    assert keeps_nothing(hospital)
    assert held.status()["levels"] == ISOLATE


# -- a daemon that hangs: what waits in its own hands


@pytest.fixture
def hung(hospital: Hospital, daemon: Daemon) -> Iterator[Daemon]:
    """The real daemon, to be stopped and woken; it is woken in any case."""
    yield daemon
    with contextlib.suppress(ProcessLookupError):
        os.kill(daemon.pid, signal.SIGCONT)


@pytest.mark.parametrize("given_up", [True, False])
@pytest.mark.parametrize("before", ["open", "cut"])
def test_a_hung_daemon_that_wakes_opens_nothing_that_was_closed_by_hand(
    hospital: Hospital, hung: Daemon, typed: Typed, before: str, given_up: bool
):
    hung.level(before)
    time.sleep(0.3)
    done = told(hung)
    os.kill(hung.pid, signal.SIGSTOP)
    cut = typed(hung, "cut")
    if given_up:
        cut.send_signal(signal.SIGINT)
        cut.wait(10)
    without_daemon(hospital, hung, "isolate")
    assert keeps_nothing(hospital)
    os.kill(hung.pid, signal.SIGCONT)
    wait_for_the_next(hung, done)
    cut.wait(20)
    assert keeps_nothing(hospital)
    assert hung.status()["levels"] == ISOLATE


def test_a_zone_that_was_isolated_and_all_the_others_that_were_cut_by_hand_stay_so(
    hospital: Hospital, hung: Daemon
):
    """What was loaded by hand closes more in some zones and less in one.

    Each keeps the most closed of the two.
    """
    hung.level("isolate", zones=["care"])
    time.sleep(0.3)
    assert hospital.guest.tcp(places.WEB.v4), "positive control"
    os.kill(hung.pid, signal.SIGSTOP)
    without_daemon(hospital, hung, "cut")
    os.kill(hung.pid, signal.SIGCONT)
    end = time.monotonic() + 10
    while hung.status()["last_tamper"] is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert hung.status()["levels"] == CUT | {"care": "isolate"}
    assert keeps_nothing(hospital)
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    assert hospital.admin.tcp(places.TREASURY.v4), "a cut keeps it"
