"""One line warns of a cut that may end the session, before anything is sent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"


SITE = """
site: chu
zones:
  - name: care
    interfaces: [lan0]
    subnets: [10.10.0.0/16, "2001:db8:10::/48"]  # not 192.0.2.0/24
lifeline:
  management: {networks: [198.51.100.0/28], ports: [tcp/22]}
resolvers: [203.0.113.53]
"""


LINE = "This session comes from"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "site.yaml").write_text(SITE)
    return tmp_path


def ecluse(server, config, *words, client="", sudo="", **more):
    """Run `ecluse` in an SSH session; sudo: the session is its parent's, as sudo leaves it."""
    environment = {
        "PYTHONPATH": str(SOURCE),
        "ECLUSE_SOCKET": str(server.path),
        "ECLUSE_CONFIG_DIR": str(config),
    }
    if client:
        environment["SSH_CONNECTION"] = f"{client} 50022 192.0.2.2 22"
    command = [sys.executable, "-m", "ecluse.cli", *words]
    if sudo:
        between = (
            "import os, subprocess, sys; "
            "del os.environ['SSH_CONNECTION']; os.environ['SUDO_UID'] = '1000'; "
        )
        command = [
            sys.executable,
            "-c",
            f"{between}sys.exit(subprocess.call(sys.argv[1:]))",
            *command,
        ]
        environment["SSH_CONNECTION"] = f"{sudo} 50022 192.0.2.2 22"
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=30, **more
    )


@pytest.mark.parametrize("verb", ["cut", "isolate", "level cut", "rollback 1", "reload --yes"])
def test_a_session_from_elsewhere_is_told_beforehand(server, config, verb):
    done = ecluse(server, config, *verb.split(), client="192.0.2.77")
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr == f"ecluse: {LINE} 192.0.2.77, in no network of site.yaml: it may end now. "
        "The command goes on without it.\n"
    )
    assert ecluse(server, config, *verb.split(), client="2001:db8:11::5").stderr.count(LINE) == 1


def test_it_is_written_before_the_command_is_sent(config, tmp_path):
    """The terminal may be gone by the time of an answer: there is no daemon here at all."""
    missing = type("Missing", (), {"path": tmp_path / "none.sock"})
    done = ecluse(missing, config, "cut", client="192.0.2.77")
    assert done.stderr.startswith(f"ecluse: {LINE} 192.0.2.77")
    assert "no daemon answers" in done.stderr


@pytest.mark.parametrize(
    ("words", "client"),
    [
        ("cut", ""),
        ("cut", "10.10.4.7"),
        ("cut", "2001:db8:10::5"),
        ("cut", "198.51.100.5"),
        ("cut --zone care", "192.0.2.77"),
        ("open --yes --reason x", "192.0.2.77"),
        ("status", "192.0.2.77"),
        ("cut", "no address"),
    ],
)
def test_everybody_else_hears_nothing(server, config, words, client):
    assert LINE not in ecluse(server, config, *words.split(), client=client).stderr


def test_sudo_takes_the_sessions_address_out_of_the_environment_and_it_is_found(server, config):
    if os.geteuid() != 0:
        pytest.skip("another process's environment is root's to read")
    assert f"{LINE} 192.0.2.77" in ecluse(server, config, "cut", sudo="192.0.2.77").stderr
    assert LINE not in ecluse(server, config, "cut", sudo="10.10.4.7").stderr


def test_where_the_sites_networks_are_not_known_it_says_that(server, tmp_path):
    done = ecluse(server, tmp_path, "cut", client="10.10.4.7")
    assert "in a network that is not known here: it may end now" in done.stderr
