"""Each kind of state file: what is written is read back, and what is damaged is refused."""

import subprocess

import pytest

from ecluse.errors import CorruptError
from ecluse.state import state_files
from ecluse.state.audit_log import HashChainAudit
from ecluse.state.layout import Layout
from ecluse.state.store import DirectoryState
from tests.unit.state import samples


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "state"
    store = DirectoryState(root)
    store.recover()
    store.fill_disk_reserve()
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


def test_the_header_of_a_boot_file_comes_back(root):
    at = Layout(root)
    header = state_files.BootHeader("program-x.nft", samples.generation(7))
    at.boot.write_bytes(state_files.boot_text(at, header, samples.GATE))
    assert state_files.read_boot(at) == header
    text = state_files.read_ruleset_file(at.boot)
    assert state_files.included_programs(at, text) == {"program-x.nft"}
    at.boot.write_bytes(at.boot.read_bytes().replace(b"# record: ", b"# recerd: "))
    with pytest.raises(CorruptError):
        state_files.read_boot(at)


def test_the_file_of_a_level_lists_all_levels(root):
    at = Layout(root)
    text = state_files.level_text(at, "program-x.nft", "cut", samples.GATE, ("open", "cut"))
    assert state_files.listed_levels(text.decode()) == ["cut", "open"]
    assert state_files.listed_levels("") == state_files.listed_levels("#\n# of: {") == []


def test_a_program_of_another_directory_is_given_by_its_path(root):
    text = f'include "/elsewhere/p.nft"\ninclude "{root}/ruleset/q.nft"\n'
    assert state_files.included_programs(Layout(root), text) == {"/elsewhere/p.nft", "q.nft"}


def test_a_file_under_another_digest_is_refused(root):
    at = Layout(root)
    path = at.policy_file("sha256:" + "0a" * 32)
    path.write_bytes(b"{}")
    with pytest.raises(CorruptError, match="checksum"):
        state_files.verify_digest_name(at, path)
    path.unlink()
    state_files.verify_digest_name(at, path)
