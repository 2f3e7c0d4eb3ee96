"""One command line from its words to its exit code: signals, waiting, start."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.unit.api.fake_controller import FakeController
from tests.unit.api.harness import ServerThread
from tests.unit.cli.harness import changes, command, environment, run_process


@pytest.mark.parametrize(
    "verb", ["services", "history", "show 1", "refused", "plan cut", "cut", "rollback 1"]
)
def test_json_everywhere(server, ecluse, verb):
    code, out, _ = ecluse(*verb.split(), "--json")
    assert code == 0
    assert json.loads(out)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n\r\nno",
    ],
)
def test_an_answer_that_is_none_is_exit_code_4(ecluse, tmp_path, answer):
    async def strange(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def scene():
        server = await asyncio.start_unix_server(strange, str(tmp_path / "s"))
        async with server:
            return await asyncio.to_thread(ecluse, "cut", "--socket", str(tmp_path / "s"))

    code, _, err = asyncio.run(scene())
    assert code == 4
    assert "Traceback" not in err


def test_a_daemon_that_hangs_is_given_up_on_and_the_doubt_is_said(ecluse, tmp_path, monkeypatch):
    monkeypatch.setattr("ecluse.api.request_socket.CHANGE_SECONDS", 0.5)

    async def hanging(reader, writer):
        await asyncio.sleep(1)
        writer.close()

    async def scene():
        server = await asyncio.start_unix_server(hanging, str(tmp_path / "s"))
        async with server:
            found = await asyncio.to_thread(ecluse, "cut", "--socket", str(tmp_path / "s"))
            await asyncio.sleep(0.7)
            return found

    code, _, err = asyncio.run(scene())
    assert code == 4
    assert "not known whether the command was carried out" in " ".join(err.split())


@pytest.mark.parametrize("words", [("open",), ("reload",), ("rollback", "1")])
def test_ctrl_c_at_a_question_says_that_nothing_was_sent(server, ecluse, words):
    if words[0] == "rollback":
        ecluse("cut")
    before = changes(server)
    code, _, err = ecluse(*words, typed=KeyboardInterrupt)
    assert code == 130
    assert "nothing of the command was sent, nothing was changed" in " ".join(err.split())
    assert "may be carried out" not in err
    assert changes(server) == before


def test_ctrl_c_during_a_command_says_the_doubt():
    with (
        ServerThread(FakeController(delay=1.0)) as running,
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


def test_a_reader_in_a_pipe_gets_the_last_byte_and_the_exit_code(server):
    long = run_process(server, "services", "--json")
    assert (long.returncode, json.loads(long.stdout)["services"][0]["name"]) == (0, "laboratory")
    usage = run_process(server, "cut", "--nonsense")
    assert (usage.returncode, usage.stdout) == (2, b"")
    assert usage.stderr.endswith(b"--nonsense\n")
    help_ = run_process(server, "--help")
    assert (help_.returncode, help_.stderr) == (0, b"")
    assert help_.stdout.endswith(b"NO_COLOR\n")


@pytest.mark.parametrize("words", [["status"], ["--help"], ["cut"]])
def test_the_way_to_the_daemon_loads_nothing_heavy(server, words):
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "ecluse.cli",
            "--socket",
            str(server.path),
            *words,
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(),
    )
    loaded = {
        line.rsplit("|", 1)[1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    heavy = {
        "typing",
        "dataclasses",
        "inspect",
        "pydantic",
        "asyncio",
        "aiohttp",
        "yaml",
        "structlog",
        "http.client",
        "email",
        "ssl",
        "ecluse.results",
        "ecluse.policy",
        "ecluse.records",
        "shutil",
        "textwrap",
        "subprocess",
        "threading",
        "logging",
        "pathlib",
    }
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
