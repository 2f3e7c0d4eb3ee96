"""`ecluse verify`: what it takes for recorded, and what it says.

With a real kernel: tests/system/test_verify.py.
"""

import io
import json
from types import SimpleNamespace

import pytest

from ecluse.cli import verify
from ecluse.cli.exit_codes import DONE, FOUND
from ecluse.cli.terminal import Screen
from ecluse.errors import KernelError, StateError
from ecluse.proof.equal import Difference
from ecluse.proof.read_table import Rule, UnknownError
from ecluse.state.layout import Layout
from ecluse.state.store import DirectoryState
from tests.unit.state.samples import GATE, GATES, POLICY, PROGRAM, generation

WRONG = Difference("forward", "pass", True, ("IPv4", "towards 198.51.100.80"), (Rule("f", 1, ()),))


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A state directory in which one generation stands, with its boot ruleset."""
    monkeypatch.setenv("ECLUSE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("ECLUSE_CONFIG_DIR", str(tmp_path))
    store = DirectoryState(tmp_path)
    store.recover()
    store.write_policy(POLICY)
    record = generation(7)
    store.write_generation(record)
    store.point_boot(store.write_program(PROGRAM, GATES), GATE, record)
    return Layout(tmp_path)


def run(monkeypatch, found, **more):
    """Run it over a kernel that differs from the files by what is given."""
    monkeypatch.setattr(verify, "_dump", lambda: None)
    monkeypatch.setattr(verify, "_learned", lambda policy: {})
    monkeypatch.setattr(verify, "read_table", lambda dump: None)

    def differences(self, table):
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(verify.Prover, "differences", differences)
    out = io.StringIO()
    args = SimpleNamespace(json=False, socket="/nowhere/ecluse.sock")
    vars(args).update(more)
    return verify.verify(args, Screen(out, io.StringIO())), out.getvalue()


def test_it_says_what_stands_and_that_it_is_proved(state, monkeypatch):
    code, said = run(monkeypatch, [])
    assert code == DONE
    assert "generation 7" in said
    assert "proved: table inet ecluse" in " ".join(said.split())
    assert "Not looked at: other tables" in said
    assert "the daemon does not answer" in " ".join(said.split())


def test_a_difference_is_shown_with_its_rules(state, monkeypatch):
    code, said = run(monkeypatch, [WRONG])
    assert code == FOUND
    words = " ".join(said.split())
    assert "at forward a packet passes, but not by the files" in words
    assert "f rule 1" in words
    assert "proved" not in words
    code, said = run(monkeypatch, [WRONG], json=True)
    found = json.loads(said)
    assert (code, found["equal"], found["from_daemon"]) == (FOUND, False, False)
    assert found["differences"][0]["path"] == ["f rule 1"]


def test_what_is_not_understood_proves_nothing(state, monkeypatch):
    with pytest.raises(KernelError, match="nothing is proved") as caught:
        run(monkeypatch, UnknownError("expression x"))
    assert "expression x" in caught.value.message


def test_a_closing_by_hand_is_what_is_compared_with(state, monkeypatch):
    monkeypatch.setattr(verify.state_files, "level_closed_offline", lambda at: "isolate")
    code, said = run(monkeypatch, [])
    assert code == DONE
    assert "a closing without the daemon, isolate" in " ".join(said.split())


def test_without_a_record_there_is_nothing_to_compare_with(tmp_path, monkeypatch):
    monkeypatch.setenv("ECLUSE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("ECLUSE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(StateError, match="nothing is recorded"):
        run(monkeypatch, [])


def test_a_policy_that_is_gone_is_said(state, monkeypatch):
    for path in state.policies.iterdir():
        path.unlink()
    with pytest.raises(StateError, match="is not on disk"):
        run(monkeypatch, [])


def test_who_is_not_root_is_told(state, monkeypatch):
    def refused():
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(verify, "dump_table", lambda name: refused())
    with pytest.raises(KernelError) as caught:
        verify.verify(
            SimpleNamespace(json=False, socket="/nowhere/ecluse.sock"),
            Screen(io.StringIO(), io.StringIO()),
        )
    assert "sudo" in caught.value.hint
