"""Locales, pipes, terminals, and texts of others."""

import os
import pty
import subprocess

import pytest

from tests.unit.api.fake_controller import FakeController
from tests.unit.api.harness import ServerThread
from tests.unit.cli.harness import command, environment, run_process


def test_texts_of_others_cannot_write_to_the_terminal(ecluse):
    nasty = "\x1b[2J\x1b]0;x\x07\u202eevil\r\n\x9b31m"
    with ServerThread(FakeController(title=nasty, name=nasty)) as running:
        _, out, err = ecluse("status", "--socket", str(running.path))
    assert not set(out + err) & set("\x1b\x07\u202e\r\x9b")
    assert "\\x1b[2J" in out


def test_a_terminal_gets_colour_unless_it_says_no(server, monkeypatch):
    def seen(**environment):
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as terminal:
            from ecluse.cli.terminal import Screen

            screen = Screen(terminal, terminal)
            screen.line("CUT", "bold")
            screen.line("plain")
            screen.finish()
            found = b""
            while not found.endswith(b"plain\r\n"):  # the kernel may hand over a line at a time
                found += os.read(ours, 4096)
        os.close(ours)
        return found.decode()

    assert seen() == "\x1b[1mCUT\x1b[0m\r\nplain\r\n"
    assert seen(NO_COLOR="1") == seen(TERM="dumb") == "CUT\r\nplain\r\n"


@pytest.mark.parametrize(
    "locale",
    [
        {"LANG": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "cp1252:strict"},
        {"LC_ALL": "C.UTF-8"},
    ],
)
def test_no_locale_breaks_it(server, locale):
    done = run_process(server, "cut", "--reason", b"caf\xe9", env=environment(**locale))
    assert (done.returncode, done.stderr) == (0, b"")
    done = run_process(server, "status", env=environment(**locale))
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
