"""Exit codes, and what is said with them."""

import json
import subprocess

import pytest

from ecluse.errors import EcluseError, NotVerifiedError, StateError
from tests.lab.other_user import other_user
from tests.unit.api.fake_controller import FakeController
from tests.unit.api.harness import OPERATORS, READERS, ServerThread
from tests.unit.cli.harness import command, environment


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EcluseError("it failed", hint="look there"), 5),
        (NotVerifiedError("the level before stands"), 5),
        (StateError("disk full"), 5),
        (ZeroDivisionError(), 5),
    ],
)
def test_exit_code_5_when_it_failed(ecluse, error, code):
    with ServerThread(FakeController(raising=error)) as running:
        found, out, err = ecluse("cut", "--socket", str(running.path))
    assert (found, out) == (code, "")
    assert err.startswith("ecluse: ")
    assert "Traceback" not in err
    assert getattr(error, "message", "not known") in " ".join(err.split())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["level"],
        ["level", "nowhere"],
        ["show"],
        ["show", "x"],
        ["show", "-1"],
        ["show", "99"],
        ["plan"],
        ["plan", "cut", "--reload"],
        ["plan", "--reload", "--zone", "care"],
        ["rollback", "99"],
        ["cut", "--nonsense"],
        ["refused", "--limit", "0"],
        ["refused", "--limit", "99999999999"],
        ["audit"],
    ],
)
def test_exit_code_2_for_usage(server, ecluse, words):
    code, out, err = ecluse(*words)
    assert (code, out) == (2, "")
    assert err
    assert len(server.commands.history) == 1


def test_exit_code_4_says_what_to_type_without_the_daemon(ecluse, tmp_path, monkeypatch):
    monkeypatch.setenv("ECLUSE_STATE_DIR", str(tmp_path))
    for name in ("generations/00000001.json", "ruleset/cut.nft"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    code, out, err = ecluse("cut", "--socket", str(tmp_path / "none"))
    assert (code, out) == (4, "")
    assert f"    nft -f {tmp_path}/ruleset/cut.nft\n" in err
    assert "    ecluse cut --no-daemon\n" in err
    assert "    ecluse isolate --no-daemon\n" in err
    assert "holds without the daemon" in err
    code, out, _ = ecluse("status", "--json", "--socket", str(tmp_path / "none"))
    assert (code, json.loads(out)["error"]) == (4, "unreachable")


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
        ([], ["status"], 3),
        ([READERS], ["status"], 0),
        ([READERS], ["cut"], 3),
        ([OPERATORS], ["cut"], 0),
        ([READERS], ["plan", "cut"], 0),
        ([READERS], ["rollback"], 3),
    ):
        done = as_other(server, groups, *words)
        assert done.returncode == code, (groups, words, done.stderr)
        assert ("may not" in done.stderr) is (code == 3)
    assert len(server.commands.history) == 2


def test_exit_code_3_when_the_socket_itself_is_shut(server):
    server.path.chmod(0o600)
    done = as_other(server, [READERS], "status")
    assert done.returncode == 3
    assert "may not use" in done.stderr
