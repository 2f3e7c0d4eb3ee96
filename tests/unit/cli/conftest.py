"""The command line in-process, against a real server on a real socket."""

import io

import pytest

from ecluse.cli import main as cli
from tests.unit.api.harness import ServerThread


@pytest.fixture
def server(monkeypatch):
    with ServerThread() as running:
        monkeypatch.setenv("ECLUSE_SOCKET", str(running.path))
        monkeypatch.setenv("TZ", "UTC")
        yield running


def _interrupted():
    raise KeyboardInterrupt


@pytest.fixture
def ecluse(capsys, monkeypatch):
    def run(*words, typed=None):
        """Exit code, standard output, standard error; `typed`: what a person at a terminal types
        (KeyboardInterrupt: Ctrl-C).
        """
        stdin = io.StringIO("" if typed is KeyboardInterrupt else typed or "")
        stdin.isatty = lambda: typed is not None
        if typed is KeyboardInterrupt:
            stdin.readline = _interrupted
        monkeypatch.setattr("sys.stdin", stdin)
        try:
            code = cli.main(list(words))
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run
