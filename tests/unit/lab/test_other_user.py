"""Tests run anywhere: in a home that is shut to others, and in the background."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.lab.other_user import other_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

_REPORT = """
import late, os, socket, sys
print(os.getuid(), os.getgid(), sorted(os.getgroups()))
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as asked:
        print(asked.connect_ex(path))
"""


def test_another_user_reads_a_checkout_in_a_shut_home_and_gains_nothing_else(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "late.py").write_text("")
    (home / "late.py").chmod(0o600)
    with socket.socket(socket.AF_UNIX) as shut, socket.socket(socket.AF_UNIX) as free:
        for one, name, mode in ((shut, "shut", 0o600), (free, "free", 0o666)):
            one.bind(str(tmp_path / name))
            (tmp_path / name).chmod(mode)
            one.listen()
        done = subprocess.run(
            [
                *other_user(61011, [61012, 61013]),
                sys.executable,
                "-c",
                _REPORT,
                *map(str, (tmp_path / "shut", tmp_path / "free")),
            ],
            env={"PYTHONPATH": str(home)},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == ["61011 61012 [61012, 61013]", "13", "0"]  # EACCES


def test_ctrl_c_reaches_what_tests_start_also_when_they_run_in_the_background():
    """`sh -c 'make test &'` ignores SIGINT for all that it starts (POSIX, 2.11); conftest takes
    that back.
    """
    run = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        __file__,
        "-k",
        "sigint_is",
    ]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *run],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
    )
    assert done.returncode == 0, done.stdout


def test_sigint_is_not_ignored():
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "False\n"
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
