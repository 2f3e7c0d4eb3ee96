"""The process `eclused`, up to where the daemon runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nftables")

SOURCE = Path(__file__).parents[2] / "src"


def python(*words):
    return subprocess.run(
        [sys.executable, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


def test_it_runs_the_daemon_without_certificates_and_with_its_collector_at_rest():
    done = python(
        "-c",
        "import gc, ssl, sys\nfrom ecluse import eclused\n"
        "def main():\n"
        "    print(ssl.create_default_context().cert_store_stats()['x509'], gc.isenabled())\n"
        "    return 7\n"
        "import ecluse.daemon; ecluse.daemon.main = main\n"
        "sys.exit(eclused.main())",
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "0 False\n", "")


def test_its_exit_code_is_the_daemons():
    done = python("-m", "ecluse.eclused", "--no-such-flag")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--no-such-flag" in done.stderr


def test_the_collector_works_once_the_daemon_is_armed():
    done = python(
        "-c",
        (
            "import gc\ngc.disable()\nfrom ecluse import"
            " gc_pause\ngc_pause.collect_young_only()\nprint(gc.isenabled())"
        ),
    )
    assert done.stdout == "True\n"


def test_nothing_is_loaded_that_only_colours_tracebacks():
    done = python(
        "-c",
        "import sys\nfrom ecluse import eclused\nsys.argv = ['eclused',"
        " '--no-such-flag']\neclused.main()\n"
        "loaded = {name.partition('.')[0] for name, module in sys.modules.items() if module}\n"
        "print('structlog' in loaded, *loaded & {'rich', 'pygments'})",
    )
    assert done.stdout == "True\n"
