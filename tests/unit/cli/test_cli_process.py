"""The command line as a process: signals, pipes, terminals, locales, start."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from ecluse.api.client import Client
from ecluse.errors import UnreachableError
from tests.lab.other_user import other_user
from tests.unit.api.fake_commands import FakeCommands
from tests.unit.api.harness import OPERATORS, READERS, ServerThread

SOURCE = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src")


@pytest.fixture
def server():
    with ServerThread() as running:
        yield running


def command(server, *words):
    return [sys.executable, "-m", "ecluse.cli", "--socket", str(server.path), *words]


def environment(**more):
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LC_", "LANG", "PYTHON", "COLUMNS"))
    }
    return {**kept, "PYTHONPATH": os.path.abspath(SOURCE), **more}


def run(server, *words, **settings):
    settings.setdefault("env", environment())
    return subprocess.run(
        command(server, *words),
        check=False,
        capture_output=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        **settings,
    )


@pytest.mark.parametrize(
    "locale",
    [
        {"LANG": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "cp1252:strict"}, {"LC_ALL": "C.UTF-8"},
    ],
)  # fmt: skip
def test_no_locale_breaks_it(server, locale):
    done = run(server, "cut", "--reason", b"caf\xe9", env=environment(**locale))
    assert (done.returncode, done.stderr) == (0, b"")
    done = run(server, "status", env=environment(**locale))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"CHU d'Exempl")


def test_a_reader_that_goes_away_changes_nothing(server):
    shell = f"{' '.join(command(server, 'cut'))} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], check=False, capture_output=True, timeout=30, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"CUT: care, guests, gateway\n"
    done = subprocess.run(
        ["bash", "-c", shell.replace("head -n 1", "true")],
        check=False,
        capture_output=True,
        timeout=30,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_closed_and_full_outputs_are_survived(server):
    for redirect in (">&-", "2>&-", ">/dev/full", "</dev/null >&- 2>&-"):
        shell = f"{' '.join(command(server, 'cut'))} {redirect}"
        done = subprocess.run(
            ["bash", "-c", shell], check=False, capture_output=True, timeout=30, env=environment()
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), redirect
    assert len(server.commands.history) == 5


def test_events_until_ctrl_c(server):
    with subprocess.Popen(
        command(server, "events"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        for _ in range(100):
            if server.commands.subscribers:
                break
            time.sleep(0.05)
        server.loop.call_soon_threadsafe(server.commands.tell, "caf\u00e9 \x1b[2J")
        line = process.stdout.readline().decode()
        assert "level" in line
        assert "\\x1b[2J" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
        assert process.stderr.read() == b""


def test_ctrl_c_during_a_command_says_the_doubt():
    with (
        ServerThread(FakeCommands(delay=1.0)) as running,
        subprocess.Popen(
            command(running, "cut"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process,
    ):
        for _ in range(100):
            if running.commands.calls:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 4
        error = process.stderr.read()
        assert b"ecluse status" in error
        assert b"Traceback" not in error
        time.sleep(1.2)
        assert running.commands.finished == 1  # it had been sent: it is carried out


def test_events_end_with_the_daemon():
    with ServerThread() as running:
        process = subprocess.Popen(
            command(running, "events"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        for _ in range(100):
            if running.commands.subscribers:
                break
            time.sleep(0.05)
    _, error = process.communicate(timeout=5)
    assert process.returncode == 0
    assert b"ended the stream" in error


def as_other(server, groups, *words):
    return subprocess.run(
        [*other_user(61011, groups), *command(server, *words)],
        check=False,
        capture_output=True,
        timeout=30,
        env=environment(),
        text=True,
    )


def test_exit_code_3_for_who_may_not(server):
    for groups, words, code in (
        ([], ["status"], 3), ([READERS], ["status"], 0), ([READERS], ["cut"], 3), ([OPERATORS], ["cut"], 0),
        ([READERS], ["plan", "cut"], 0), ([READERS], ["rollback"], 3),
    ):  # fmt: skip
        done = as_other(server, groups, *words)
        assert done.returncode == code, (groups, words, done.stderr)
        assert ("may not" in done.stderr) is (code == 3)
    assert len(server.commands.history) == 2


def test_exit_code_3_when_the_socket_itself_is_shut(server):
    server.path.chmod(0o600)
    done = as_other(server, [READERS], "status")
    assert done.returncode == 3
    assert "may not use" in done.stderr


def test_a_reader_in_a_pipe_gets_the_last_byte_and_the_exit_code(server):
    long = run(server, "services", "--json")
    assert (long.returncode, json.loads(long.stdout)["services"][0]["name"]) == (0, "laboratory")
    usage = run(server, "cut", "--nonsense")
    assert (usage.returncode, usage.stdout) == (2, b"")
    assert usage.stderr.endswith(b"--nonsense\n")
    help_ = run(server, "--help")
    assert (help_.returncode, help_.stderr) == (0, b"")
    assert help_.stdout.endswith(b"NO_COLOR\n")


@pytest.mark.parametrize("words", [["status"], ["--help"], ["cut"]])
def test_the_way_to_the_daemon_loads_nothing_heavy(server, words):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ecluse.cli", "--socket", str(server.path), *words],
        check=False, capture_output=True, text=True, timeout=30, env=environment(),
    )  # fmt: skip
    loaded = {
        line.rsplit("|", 1)[1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    heavy = {
        "typing", "dataclasses", "inspect", "pydantic", "asyncio", "aiohttp", "yaml", "structlog", "http.client", "email", "ssl", "ecluse.results",
        "ecluse.policy", "ecluse.records", "shutil", "textwrap", "subprocess", "threading", "logging", "pathlib",
    }  # fmt: skip
    allowed = {"textwrap"} if words == ["--help"] else set()
    assert "ecluse.errors" in loaded
    assert loaded & heavy <= allowed
    assert ("argparse" in loaded) is (words == ["--help"])  # the plainest command lines need none


def test_it_starts_at_once(server):
    def seconds(line):
        begin = time.perf_counter()
        subprocess.run(line, capture_output=True, check=True, env=environment())
        return time.perf_counter() - begin

    # Beside what it does not load, in turns: the machine's load moves both. Ours takes about half
    # of it.
    other = [
        sys.executable,
        "-c",
        "import argparse, dataclasses, http.client, ssl, typing, pathlib",
    ]
    pairs = [(seconds(command(server, "status")), seconds(other)) for _ in range(9)]
    assert min(ours for ours, _ in pairs) < min(theirs for _, theirs in pairs)


def test_a_full_queue_is_waited_for_and_told(tmp_path):
    """Anybody may fill the queue of systemd's socket while the daemon is down: a closing gets
    through all the same.
    """
    with socket.socket(socket.AF_UNIX) as held, contextlib.ExitStack() as crowd:
        held.bind(str(tmp_path / "s"))
        held.listen(1)
        held.settimeout(10)
        with contextlib.suppress(BlockingIOError):
            while True:
                one = crowd.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                one.connect(str(tmp_path / "s"))
        line = [sys.executable, "-m", "ecluse.cli", "--socket", str(tmp_path / "s"), "cut"]
        with subprocess.Popen(
            line, stderr=subprocess.PIPE, text=True, env=environment()
        ) as process:
            told = [process.stderr.readline() for _ in range(3)]
            assert process.poll() is None, "it still tries"
            crowd.close()
            request = b""
            while not request:
                connection, _ = held.accept()
                with connection:
                    request = connection.recv(1 << 16)
            told.append(process.stderr.read())
    assert request.startswith(b"POST /v1/level ")
    assert b"cut" in request
    assert "is full" in told[0]
    assert "ecluse cut --no-daemon" in told[2]
    assert "ended the connection without an answer" in " ".join(told[3].split())
    assert process.returncode == 4


def test_a_queue_that_stays_full_ends_with_the_time(tmp_path):
    with socket.socket(socket.AF_UNIX) as held, contextlib.ExitStack() as crowd:
        held.bind(str(tmp_path / "s"))
        held.listen(0)
        crowd.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / "s"))
        told = []
        begun = time.monotonic()
        with pytest.raises(UnreachableError, match="stayed full"):
            Client(str(tmp_path / "s"), 0.3, told.append).get("/v1/status")
        assert 0.3 <= time.monotonic() - begun < 2
        assert told == [], "it was over before there was anything to tell"


@pytest.mark.parametrize(
    ("verb", "said"), [("cut", "ecluse cut --no-daemon"), ("status", "systemctl status ecluse")]
)
def test_a_socket_that_nobody_answers_is_told_before_the_time_is_over(tmp_path, verb, said):
    """systemd's: it takes the question also when no daemon comes."""
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(tmp_path / "s"))
        held.listen()
        line = [sys.executable, "-m", "ecluse.cli", "--socket", str(tmp_path / "s"), verb]
        with subprocess.Popen(
            line, stderr=subprocess.PIPE, text=True, env=environment()
        ) as process:
            lines = 3 if verb == "cut" else 2
            told = "".join(process.stderr.readline() for _ in range(lines))
            assert process.poll() is None, "it still waits"
            process.send_signal(signal.SIGINT)
            told += process.stderr.read()
    assert "No answer yet" in told
    assert said in told
    assert process.returncode == (130 if verb == "status" else 4)
