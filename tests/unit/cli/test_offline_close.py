"""Closing without the daemon, with an nft that only says what it was given.

With the kernel: tests/system/test_alone.py.
"""

import json
import os

import pytest

from ecluse.cli import offline_close
from ecluse.ruleset import exit_text
from ecluse.ruleset.table_names import BASE_CHAINS
from ecluse.state import durable_files

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may close without the daemon")


class Nft:
    """Loads what is not in `refused`; its base chains then drop, unless `shuts` is False."""

    def __init__(self):
        self.loaded, self.refused, self.shuts = [], set(), True

    def __call__(self, *words):
        if words[0] == "list":
            assert words[-1] in BASE_CHAINS
            return 0, "policy drop;" if self.loaded and self.shuts else "policy accept;", ""
        if words[1] in self.refused:
            return 1, "", "no such file\nmore"
        self.loaded.append(words[1])
        return 0, "", ""


@pytest.fixture
def nft(monkeypatch, tmp_path):
    nft = Nft()
    monkeypatch.setattr(offline_close, "_run_nft", nft)
    for name, folder in (("STATE", "state"), ("RUN", "run"), ("CONFIG", "config")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(f"ECLUSE_{name}_DIR", str(tmp_path / folder))
    monkeypatch.setenv("ECLUSE_BUILT_IN", str(tmp_path / "closed.nft"))
    (tmp_path / "closed.nft").write_text("table inet ecluse {}\n")
    return nft


def test_without_any_prepared_file_the_built_in_one_closes_and_it_is_recorded(
    nft, ecluse, tmp_path
):
    code, out, err = ecluse("isolate", "--no-daemon", "--reason", "dead", "--json")
    answer = json.loads(out)
    assert code == 0
    assert nft.loaded == [str(tmp_path / "closed.nft")]
    assert (answer["verified"], answer["unrecorded"]) == (True, [])
    assert err.count("cannot be used: it is missing") == 2
    assert durable_files.read_file(tmp_path / "state" / "boot.nft") == b"table inet ecluse {}\n"
    assert "dead" in (tmp_path / "state" / "by-hand.log").read_text()


def test_what_does_not_close_the_gate_is_not_booted_into(nft, ecluse, tmp_path):
    nft.shuts = False
    code, out, _ = ecluse("cut", "--no-daemon", "--json")
    assert (code, json.loads(out)["verified"]) == (6, False)
    assert not (tmp_path / "state" / "boot.nft").exists()


@pytest.mark.parametrize(("level", "stays"), [("cut", False), ("isolate", True)])
def test_no_boot_meets_a_second_lock_that_the_closing_took_away(
    nft, ecluse, tmp_path, level, stays
):
    """A lock of `isolate` would drop what `cut` keeps, until a daemon is there again."""
    lock = tmp_path / "state" / "boot-lock.nft"
    lock.write_text("what isolate lets out\n")
    text = ("" if stays else exit_text.REMOVAL) + "table inet ecluse {}\n"
    sealed = durable_files.with_checksum(text.encode(), durable_files.COMMENT_TRAILER)
    (tmp_path / "state" / "ruleset").mkdir()
    (tmp_path / "state" / "ruleset" / f"{level}.nft").write_bytes(sealed)
    assert ecluse(level, "--no-daemon")[0] == 0
    assert (tmp_path / "state" / "boot.nft").read_bytes() == sealed
    assert lock.exists() == stays


def test_where_nothing_can_be_loaded_it_says_to_pull_the_cable(nft, ecluse, tmp_path):
    nft.refused.add(str(tmp_path / "closed.nft"))
    code, _, err = ecluse("cut", "--no-daemon")
    assert code == 5
    assert "closed.nft: no such file" in " ".join(err.split())
    assert "pull the cable" in err
    assert not list((tmp_path / "state").iterdir())


def test_it_closes_every_zone_and_says_how_to_open_again(nft, ecluse):
    code, _, err = ecluse("cut", "--no-daemon", "--zone", "care")
    assert (code, nft.loaded) == (2, [])
    code, out, err = ecluse("cut", "--no-daemon")
    assert code == 0
    assert "CUT: every zone, without the daemon" in out
    assert "no service is kept" in out
    assert "nft delete table inet ecluse" in err
    assert "the daemon never ran here" in " ".join(err.split())


def test_only_root_may(nft, ecluse, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, _, err = ecluse("cut", "--no-daemon")
    assert (code, nft.loaded) == (3, [])
    assert "sudo ecluse cut --no-daemon" in err
