"""A state directory that version 0.1 wrote is taken up: an upgrade loses nothing.

`from_0_1/` was written by commit 8898f10 with `samples.fill`, at /var/lib/ecluse.
"""

import shutil
from pathlib import Path

import pytest

from ecluse.state import state_files
from ecluse.state.audit_log import verify
from ecluse.state.store import DirectoryState
from tests.unit.state.samples import CUT_LEVELS, POLICY, generation, names

WRITTEN = Path(__file__).with_name("from_0_1")


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(WRITTEN, tmp_path / "state"))


def test_every_record_is_read(root):
    found = DirectoryState(root).recover()
    assert found.recorded == generation(3, CUT_LEVELS)
    assert found.generations == {
        n: generation(n, CUT_LEVELS if n > 1 else dict.fromkeys(CUT_LEVELS, "open"))
        for n in (1, 2, 3)
    }
    # It stands elsewhere here than where it was written: that is all that is said.
    assert all("program" in words for words in found.damage), found.damage


def test_policies_names_and_audit_are_read(root):
    store = DirectoryState(root)
    found = store.recover()
    assert store.read_policy(found.recorded.policy) == POLICY
    assert store.read_names() == names()
    assert verify(root / "audit.log") == []


def test_the_boot_ruleset_is_read(root):
    text = state_files.read_ruleset_file(root / "boot.nft")
    assert text and "program-f55492c1" in text


def test_one_flipped_byte_is_seen(root):
    """Positive control: these files are judged, not only present."""
    path = root / "generations/00000003.json"
    path.write_bytes(path.read_bytes().replace(b"cut", b"cup", 1))
    assert any("00000003.json" in words for words in DirectoryState(root).recover().damage)
