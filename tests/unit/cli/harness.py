"""The command line as a process."""

import os
import subprocess
import sys


def changes(server):
    return [call for call in server.commands.calls if call[0] in {"level", "rollback", "reload"}]


SOURCE = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src")


def command(server, *words):
    return [sys.executable, "-m", "ecluse.cli", "--socket", str(server.path), *words]


def environment(**more):
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LC_", "LANG", "PYTHON", "COLUMNS"))
    }
    return {**kept, "PYTHONPATH": os.path.abspath(SOURCE), **more}


def run_process(server, *words, **settings):
    settings.setdefault("env", environment())
    return subprocess.run(
        command(server, *words),
        check=False,
        capture_output=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        **settings,
    )
