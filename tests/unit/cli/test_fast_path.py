"""A closing is sent before anything loads that only its answer needs: once, as typed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecluse.cli import fast_path

SOURCE = Path(__file__).parents[3] / "src"


PATH = f"import sys; before = set(sys.modules); sys.path.insert(0, {str(SOURCE)!r})\n"


ASK = "from ecluse.cli.fast_path import send_closing\nrequest = send_closing(sys.argv[1:])\n"


def python(script, *words):
    """Run a script as the package's command line runs."""
    return subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", PATH + script, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_closing_is_sent_with_nothing_loaded_but_the_interpreters_own(server):
    done = python(
        ASK + "print(*sorted(set(sys.modules) - before))\nrequest.sock.recv(9)",
        "cut", "--reason", 'caf\u00e9 "x"', "--zone", "care", "--socket", str(server.path),
    )  # fmt: skip
    assert done.stderr == ""
    own = (
        "ecluse ecluse.api ecluse.api.request_socket "
        "ecluse.cli ecluse.cli.fast_path ecluse.cli.fast_args"
    )
    assert set(done.stdout.split()) - {"_socket"} == set(own.split())
    (asked,) = [one for one in server.commands.calls if one[0] == "level"]
    assert 'caf\u00e9 "x"' in repr(asked)


@pytest.mark.parametrize(("zone", "loaded"), [("care", False), ("gateway", True)])
def test_over_ssh_a_closing_that_can_end_no_session_waits_for_no_import(server, zone, loaded):
    done = python(
        "import posix\nposix.environ[b'SSH_CONNECTION'] = b'192.0.2.1 1 192.0.2.2 22'\n"
        + ASK
        + "print('ecluse.cli.session_warning' in sys.modules)\nrequest.sock.recv(9)",
        "cut", "--zone", zone, "--socket", str(server.path),
    )  # fmt: skip
    assert done.stdout.strip() == str(loaded)


def test_the_rest_is_loaded_after_it_was_sent(server):
    done = python(
        "sys.modules['ecluse.cli.main'] = None\nfrom ecluse.cli.fast_path import run\nrun()",
        "cut",
        "--socket",
        str(server.path),
    )
    assert "ecluse.cli.main" in done.stderr  # nobody was there to read the answer
    until(lambda: server.commands.calls)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "status",
        "open",
        "cut --no-daemon",
        "isolate --no-daemon",
        "cut --help",
        "cut --nonsense",
        "level cut",
    ],
)
def test_all_else_sends_nothing(line, tmp_path):
    words = [*line.split(), "--socket", str(tmp_path / "none")]
    assert fast_path.send_closing(words) is None


def test_ctrl_c_while_the_rest_is_loaded_is_told_as_ever(server):
    impatient = """
class Impatient:
    left = 3
    def find_spec(self, name, path, target=None):
        if name == "ecluse.cli.main" and self.left:
            self.left -= 1
            raise KeyboardInterrupt
sys.meta_path.insert(0, Impatient())
from ecluse.cli.fast_path import run
run()
"""
    done = python(impatient, "cut", "--socket", str(server.path))
    assert done.returncode == 4
    assert "ecluse status" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_sent_once(server):
    command = [sys.executable, "-m", "ecluse.cli", "--socket", str(server.path)]
    for words in (["cut"], ["isolate", "--json"], ["level", "cut", "--reason", "r"]):
        before = len(server.commands.calls)
        subprocess.run(
            [*command, *words],
            check=True,
            capture_output=True,
            timeout=30,
            cwd=SOURCE,
            stdin=subprocess.DEVNULL,
        )
        assert [one[0] for one in server.commands.calls[before:]].count("level") == 1


def test_the_socket_of_the_environment_is_asked(server):
    done = subprocess.run(
        [
            "env",
            f"ECLUSE_SOCKET={server.path}",
            "/usr/bin/python3",
            "-I",
            "-S",
            "-c",
            PATH + ASK + "request.sock.recv(9)",
            "cut",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    assert server.commands.calls


def test_no_daemon_is_told_by_the_exit_code(tmp_path):
    for where in (tmp_path / "none", "x\0y", "x" * 200):
        done = python(
            f"sys.argv += ['cut', '--socket', {str(where)!r}]\n"
            "from ecluse.cli.fast_path import run\nrun()"
        )
        assert (done.returncode, "Traceback" in done.stderr) == (4, False), where
