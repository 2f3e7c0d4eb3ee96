"""The state directory: what is written comes back, and the fake behaves like the real one."""

import dataclasses
import hashlib
import os
import stat
import subprocess

import pytest

from ecluse.errors import CorruptError, StateError
from ecluse.state.audit_log import HashChainAudit
from ecluse.state.store import DirectoryState
from tests.fakes import FakeState
from tests.unit.state import samples
from tests.unit.state.samples import GATE, GATES, POLICY, PROGRAM, generation


@pytest.fixture
def root(tmp_path):
    return tmp_path / "state"


@pytest.fixture(params=["directory", "fake"])
def store(request, root):
    return DirectoryState(root) if request.param == "directory" else FakeState()


class TestBothStores:
    def test_nothing_was_ever_here(self, store):
        found = store.recover()
        assert found.first_install
        assert (found.recorded, found.boot_levels, found.audit_levels, found.intent) == (None,) * 4
        assert dict(found.generations) == {} and found.damage == ()

    def test_generations_come_back(self, store):
        for number in (1, 2, 3):
            store.write_policy(POLICY)
            store.write_generation(generation(number))
        found = store.recover()
        assert not found.first_install
        assert found.recorded == generation(3)
        assert dict(found.generations) == {n: generation(n) for n in (1, 2, 3)}

    def test_an_intent_stands_until_cleared_or_recorded(self, store):
        store.write_generation(generation(1))
        store.write_intent(generation(2))
        assert store.recover().intent == generation(2)
        store.clear_intent()
        assert store.recover().intent is None
        store.write_intent(generation(2))
        store.write_generation(generation(2))
        assert store.recover().intent is None
        store.clear_intent()
        store.clear_intent()

    def test_an_intent_or_a_policy_is_a_trace_of_use(self, store):
        store.write_policy(POLICY)
        assert not store.recover().first_install

    def test_a_policy_comes_back_equal_and_is_stored_once(self, store):
        digest = store.write_policy(POLICY)
        assert store.write_policy(dataclasses.replace(POLICY)) == digest
        assert store.write_policy(samples.OTHER_POLICY) != digest
        assert store.read_policy(digest) == POLICY
        for missing in ("sha256:" + "0" * 64, "sha256:../../etc/passwd", ""):
            with pytest.raises(StateError):
                store.read_policy(missing)

    def test_both_stores_name_things_alike(self, store):
        assert (
            store.digest_policy(POLICY)
            == store.write_policy(POLICY)
            == samples.generation(1).policy
        )
        hexes = hashlib.sha256(PROGRAM.encode()).hexdigest()
        assert store.write_program(PROGRAM, GATES) == f"program-{hexes}.nft"

    def test_boot_levels_come_back_with_whatever_names_they_have(self, store):
        levels = {"care": "a level of old", "gateway": "cut", "zone\nwith { strange": 'n"me'}
        store.point_boot(store.write_program(PROGRAM, GATES), GATE, generation(1, levels))
        found = store.recover()
        assert found.boot_levels == levels
        assert not found.first_install

    def test_names_come_back(self, store):
        assert store.read_names() == {}
        store.write_names(samples.names())
        assert store.read_names() == samples.names()

    def test_forget_keeps_what_is_used(self, store):
        used = [store.write_policy(p) for p in (POLICY, samples.OTHER_POLICY)]
        texts = [PROGRAM + f"# {n}\n" for n in range(4)]
        programs = [store.write_program(text, GATES) for text in texts]
        old = "sha256:" + programs[2].removeprefix("program-").removesuffix(".nft")
        store.point_boot(programs[1], GATE, generation(4, ruleset=old))
        store.write_generation(generation(1, policy=samples.OTHER_POLICY))
        for number in (2, 3, 4):
            store.write_generation(generation(number, ruleset=old))
        store.forget(2)
        found = store.recover()
        assert sorted(found.generations) == [3, 4]
        assert store.read_policy(used[0]) == POLICY
        with pytest.raises(StateError):
            store.read_policy(used[1])
        there = (
            set(store.programs)
            if isinstance(store, FakeState)
            else {n for n in os.listdir(store._at.ruleset) if n.startswith("program-")}
        )
        assert there == {
            programs[1],
            programs[2],
            programs[3],
        }  # boot, a kept generation, the level files
        store.forget(0)
        assert sorted(store.recover().generations) == [4]

    def test_forget_keeps_the_allowlist_of_a_state_that_is_not_filed_yet(self, store):
        store.write_policy(POLICY)
        store.write_generation(generation(1))
        digest = store.write_policy(samples.OTHER_POLICY)
        program = store.write_program(PROGRAM, GATES)
        store.point_boot(program, GATE, generation(2, policy=samples.OTHER_POLICY))
        store.forget(5)
        assert store.read_policy(digest) == samples.OTHER_POLICY


def life(root, last=3):
    samples.fill(
        DirectoryState(root), HashChainAudit(root / "audit.log", lambda: samples.NOW), last
    )


def test_a_whole_life_has_no_damage(root):
    life(root)
    found = DirectoryState(root).recover()
    assert found.damage == ()
    assert found.recorded.number == 3
    assert found.boot_levels == found.audit_levels == found.recorded.levels == samples.CUT_LEVELS
    assert DirectoryState(root).audit_path == root / "audit.log"


def test_modes_shut_others_out(root):
    life(root)
    for folder, _, files in os.walk(root):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o750
        for name in files:
            assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o640


def test_a_change_costs_few_fsyncs(root, monkeypatch):
    """Intent: the file; boot ruleset: file and folder; the audit line: one.

    After the answer the generation: file and folder.
    """
    life(root)
    store, audit = DirectoryState(root), HashChainAudit(root / "audit.log", lambda: samples.NOW)
    store.recover()
    audit.append(samples.audit_record())
    syncs = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda fd, real=real, name=name: (syncs.append(name), real(fd))
        )
    program = next(n for n in os.listdir(root / "ruleset") if n.startswith("program-"))
    store.write_intent(generation(4))
    store.point_boot(program, GATE, generation(4))
    audit.append(samples.audit_record())
    assert syncs == ["fsync", "fsync", "fsync", "fdatasync"]
    store.write_generation(generation(4))
    store.clear_intent()
    assert syncs[4:] == ["fsync", "fsync"]


def test_an_intent_that_was_not_done_is_removed_durably(root, monkeypatch):
    store = DirectoryState(root)
    store.write_generation(generation(1))
    store.write_intent(generation(2))
    syncs = []
    monkeypatch.setattr(os, "fsync", syncs.append)
    store.clear_intent()
    assert len(syncs) == 1


def test_a_generation_is_never_overwritten_by_another(root):
    store = DirectoryState(root)
    store.write_generation(generation(1))
    store.write_generation(generation(1))
    assert os.listdir(root / "generations") == ["00000001.json"]
    store.write_generation(generation(1, reason="another"))
    assert sorted(os.listdir(root / "generations")) == ["00000001.json", "00000001.json.damaged-1"]
    for number in (2, 3):
        store.write_generation(generation(number))
    store.forget(1)
    assert os.listdir(root / "generations") == ["00000003.json"]


def test_a_damaged_policy_is_never_given_out(root):
    store = DirectoryState(root)
    digest = store.write_policy(POLICY)
    path = root / "policies" / f"{digest.removeprefix('sha256:')}.json"
    path.write_bytes(path.read_bytes().replace(b"vital", b"vitam"))
    with pytest.raises(CorruptError, match="checksum"):
        store.read_policy(digest)
    assert store.write_policy(POLICY) == digest
    assert store.read_policy(digest) == POLICY


def test_forget_deletes_nothing_that_it_cannot_judge(root):
    store = DirectoryState(root)
    life(root)
    stray = store.write_policy(samples.OTHER_POLICY)
    program = store.write_program(PROGRAM + "# other\n", {})
    boot = (root / "boot.nft").read_bytes()
    (root / "boot.nft").write_bytes(b"garbage")
    store.forget(2)
    assert (root / "ruleset" / program).exists()
    (root / "boot.nft").write_bytes(boot)
    assert sorted(os.listdir(root / "generations")) == ["00000002.json", "00000003.json"]
    (root / "generations/00000002.json").write_bytes(b"garbage")
    third = store.write_policy(samples.OTHER_POLICY)
    store.forget(2)
    assert store.read_policy(third) == samples.OTHER_POLICY
    store.forget(1)
    with pytest.raises(StateError):
        store.read_policy(stray)
    assert not (root / "ruleset" / program).exists()
    assert DirectoryState(root).recover().damage == ()


@pytest.mark.parametrize("name", ["state*", 'st"ate', "sta[te]"])
def test_a_path_that_nft_would_misread_is_refused_at_once(tmp_path, name):
    with pytest.raises(StateError, match="character"):
        DirectoryState(tmp_path / name)


@pytest.mark.parametrize("level", ["program-x", "program-" + "a" * 40, "boot", "a" * 48])
def test_every_level_that_the_files_may_name_gets_its_own_file_and_is_found_again(root, level):
    store = DirectoryState(root)
    program = store.write_program(PROGRAM, {**GATES, level: GATE})
    store.point_boot(program, GATE, generation(1))
    store.write_generation(generation(1))
    assert {path.stem for path in store._at.level_files()} == {*GATES, level}
    store.forget(1)
    assert {path.stem for path in store._at.level_files()} == {*GATES, level}
    assert f"ruleset/{level}.nft" not in " ".join(store.recover().damage)
    (root / "ruleset" / f"{level}.nft").unlink()
    assert f"ruleset/{level}.nft is missing" in " ".join(store.recover().damage)


@pytest.mark.parametrize("level", ["../boot", "Cut", "", "a" * 49, "a/b"])
def test_a_level_name_that_is_no_file_name_is_refused(root, level):
    with pytest.raises(StateError, match="file name"):
        DirectoryState(root).write_program(PROGRAM, {level: GATE})


def test_a_directory_that_cannot_be_is_a_state_error(tmp_path):
    (tmp_path / "file").write_text("")
    for store in (DirectoryState(tmp_path / "file"), DirectoryState(tmp_path / "file" / "below")):
        for call in (store.recover, lambda store=store: store.write_generation(generation(1))):
            with pytest.raises(StateError):
                call()


@pytest.mark.kernel
@pytest.mark.parametrize("file", ["boot.nft", "closed.nft", "ruleset/cut.nft", "ruleset/open.nft"])
def test_nft_loads_each_file_by_itself(root, tmp_path, file):
    store = DirectoryState(root)
    gate = "add chain inet ecluse {0}\nflush chain inet ecluse {0}\n"
    program = "table inet ecluse {\n}\ndelete table inet ecluse\n" + PROGRAM
    name = store.write_program(program, {level: gate.format(level) for level in ("open", "cut")})
    long = generation(1, samples.CUT_LEVELS, reason='\\\n"é' * 5000 + "\\")
    store.point_boot(name, gate.format("boot"), long)
    store.write_closed("table inet ecluse {\n\tchain closed {\n\t}\n}")
    script = f"nft -f {root / file} && nft -f {root / file} && nft list table inet ecluse"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        check=False,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"chain {file.rpartition('/')[2].removesuffix('.nft')} " in done.stdout
    assert file == "closed.nft" or "chain k1_open" in done.stdout


@pytest.mark.parametrize("way", ["gone", "torn", "empty", "altered"])
def test_names_come_back_from_their_copy(root, way):
    store = DirectoryState(root)
    store.write_names(samples.names())
    path = root / "names.json"
    raw = path.read_bytes()
    path.unlink()
    if way != "gone":
        path.write_bytes(
            {"torn": raw[:-9], "empty": b"", "altered": raw.replace(b"lab", b"lap", 1)}[way]
        )
    assert store.read_names() == samples.names()
    told = any(
        "its copy, of some minutes before, is used" in words for words in store.recover().damage
    )
    assert told == (way != "gone"), "what is gone beside no generation may never have been"
    (root / "names.copy.json").write_bytes(raw[:-1])
    assert store.read_names() == {}


def test_the_copy_is_older_and_never_written_first(root, monkeypatch):
    store = DirectoryState(root)
    store.write_names(samples.names())
    store.write_names({})
    assert store.read_names() == {}, "what is newer counts"
    assert store._at.names_copy.read_bytes() != store._at.names.read_bytes(), (
        "one writing, as a rule"
    )
    monkeypatch.setattr(store, "_copy_due", 0.0)
    store.write_names({})
    assert store._at.names_copy.read_bytes() == store._at.names.read_bytes()
