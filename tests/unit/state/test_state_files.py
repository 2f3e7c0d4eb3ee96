"""Each kind of state file: what is written is read back, and what is damaged is refused."""

import subprocess

import pytest

from ecluse.state.audit_log import HashChainAudit
from ecluse.state.store import DirectoryState
from tests.unit.state import samples


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "state"
    store = DirectoryState(root)
    store.recover()
    store.keep_room()
    return root


def test_a_boot_file_by_hand_tells_its_level(root):
    samples.fill(DirectoryState(root), HashChainAudit(root / "audit.log", lambda: samples.NOW))
    store = DirectoryState(root)
    (root / "boot.nft").write_bytes((root / "ruleset" / "isolate.nft").read_bytes())
    assert store.recover().closed_by_hand == "isolate"
    (root / "boot.nft").write_bytes((root / "ruleset" / "open.nft").read_bytes())
    assert store.recover().closed_by_hand == "", "nobody opens by hand"
    (root / "boot.nft").write_bytes((root / "closed.nft").read_bytes())
    assert store.recover().closed_by_hand == "isolate"


def test_a_damaged_boot_file_by_hand_tells_nothing(root):
    samples.fill(DirectoryState(root), HashChainAudit(root / "audit.log", lambda: samples.NOW))
    whole = (root / "ruleset" / "cut.nft").read_bytes()
    (root / "boot.nft").write_bytes(whole.replace(b"cut", b"isolate", 1))
    found = DirectoryState(root).recover()
    assert found.closed_by_hand == ""
    assert any(words.startswith("boot.nft") for words in found.damage)


def life(root, last=3):
    samples.fill(
        DirectoryState(root), HashChainAudit(root / "audit.log", lambda: samples.NOW), last
    )


def test_ruleset_checksums_can_be_checked_without_us(root):
    life(root)
    for file in ("boot.nft", "closed.nft", "ruleset/cut.nft"):
        script = 'head -n -1 "$1" | sha256sum | cut -d" " -f1; tail -n 1 "$1"'
        done = subprocess.run(
            ["sh", "-c", script, "sh", root / file], capture_output=True, text=True, check=True
        )
        found, said = done.stdout.splitlines()
        assert said == f"# sha256: {found}"
