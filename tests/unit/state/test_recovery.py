"""recover(): whatever became of the files, it never raises, it says what it found, and it stays
closed enough.
"""

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.errors import StateError
from ecluse.policy import at_least_as_closed
from ecluse.state import durable_files
from ecluse.state.audit_log import HashChainAudit
from ecluse.state.store import DirectoryState
from tests.effort import examples
from tests.unit.state import samples
from tests.unit.state.samples import CUT_LEVELS, GATE, generation


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original") / "state"
    samples.fill(DirectoryState(root), HashChainAudit(root / "audit.log", lambda: samples.NOW))
    DirectoryState(root).write_intent(generation(4))
    assert DirectoryState(root).recover().damage == ()
    return root


@pytest.fixture
def root(original, tmp_path):
    shutil.copytree(original, tmp_path / "state")
    # boot.nft names its program by an absolute path
    for path in [tmp_path / "state/boot.nft", *(tmp_path / "state/ruleset").glob("[a-z]*.nft")]:
        if not path.name.startswith("program-"):
            path.unlink()
    store = DirectoryState(tmp_path / "state")
    program = store.write_program(samples.PROGRAM, samples.GATES)
    store.point_boot(program, GATE, generation(3, CUT_LEVELS))
    assert store.recover().damage == ()
    return tmp_path / "state"


def files_of(root):
    return sorted(
        os.path.relpath(os.path.join(at, name), root)
        for at, _, names in os.walk(root)
        for name in names
    )


def witnesses(found):
    """What the controller may believe: the newest generation, the boot ruleset, the audit log."""
    recorded = found.recorded.levels if found.recorded else None
    return [
        levels for levels in (recorded, found.boot_levels, found.audit_levels) if levels is not None
    ]


def judge(root, name, damage_expected=True):
    found = DirectoryState(root).recover()
    assert not found.first_install
    if damage_expected:
        assert found.damage, name
        assert any(os.path.basename(name) in words for words in found.damage), (name, found.damage)
    assert not any(str(root) in words for words in found.damage)
    # One file is damaged: some witness still says that care is cut.
    assert any(
        at_least_as_closed(samples.SITE, levels, CUT_LEVELS) for levels in witnesses(found)
    ), found
    again = DirectoryState(root).recover()
    assert not again.first_install
    return found


KINDS = [
    "folder",
    "fifo",
    "link",
    "dangling",
    "empty",
    "newline",
    "zeros",
    "huge",
    "random",
    "half",
    "one byte less",
]


def spoil(path, kind):
    raw = path.read_bytes()
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/etc/hostname")
        case "dangling":
            path.symlink_to("nowhere")
        case "empty":
            path.write_bytes(b"")
        case "newline":
            path.write_bytes(raw + b"\n")
        case "zeros":
            path.write_bytes(bytes(len(raw)))
        case "huge":
            with path.open("wb") as file:
                file.truncate(65 * 1024 * 1024)
        case "random":
            path.write_bytes(bytes(byte ^ 0x5A for byte in raw))
        case "half":
            path.write_bytes(raw[: len(raw) // 2])
        case "one byte less":
            path.write_bytes(raw[:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_in_every_wrong_way(root, tmp_path, kind):
    for name in files_of(root):
        copy = tmp_path / "copy"
        shutil.move(root, copy)
        shutil.copytree(copy, root)
        spoil(root / name, kind)
        judge(root, name)
        shutil.rmtree(root)
        shutil.move(copy, root)


# Its loss cannot be told from its never having been, or from its having been forgotten.
SILENT_WHEN_GONE = {"journal.json", "names.json", "names.copy.json", "generations/00000001.json"}


def test_every_missing_file_is_told(root, tmp_path):
    for name in files_of(root):
        copy = tmp_path / "copy"
        shutil.move(root, copy)
        shutil.copytree(copy, root)
        (root / "journal.json").unlink(
            missing_ok=True
        )  # a change under way explains what is missing
        (root / name).unlink(missing_ok=True)
        judge(root, name, damage_expected=name not in SILENT_WHEN_GONE)
        shutil.rmtree(root)
        shutil.move(copy, root)


@pytest.mark.parametrize("name", ["generations", "policies", "ruleset"])
def test_every_missing_folder_is_told(root, name):
    (root / "journal.json").unlink()
    shutil.rmtree(root / name)
    found = DirectoryState(root).recover()
    assert any(name in words for words in found.damage)
    assert not found.first_install


def test_a_file_in_place_of_a_folder_is_moved_away(root):
    shutil.rmtree(root / "policies")
    (root / "policies").write_text("a file")
    assert any("not a folder" in words for words in DirectoryState(root).recover().damage)
    DirectoryState(root).write_policy(samples.POLICY)


@settings(max_examples=examples(250))
@given(data=st.data())
def test_random_damage_is_always_told(original, tmp_path_factory, data):
    """Bytes flipped, cut out or put in, anywhere in any one file.

    The original stays where its includes point.
    """
    root = original
    name = data.draw(st.sampled_from(files_of(root)))
    whole = (root / name).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 400)))
    damaged = whole[:start] + data.draw(st.binary(max_size=60)) + whole[end:]
    if damaged == whole:
        return
    before = {each: (root / each).read_bytes() for each in files_of(root)}
    try:
        (root / name).write_bytes(damaged)
        judge(root, name)
    finally:
        for each in files_of(root):
            if each not in before:
                (root / each).unlink()
        for each, raw in before.items():
            (root / each).write_bytes(raw)


@settings(max_examples=examples(60))
@given(data=st.data())
def test_all_files_at_once_never_raise(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("many") / "state"
    samples.fill(DirectoryState(root), HashChainAudit(root / "audit.log", lambda: samples.NOW), 2)
    for name in files_of(root):
        fate = data.draw(
            st.sampled_from(["keep", "gone", *KINDS[:4], *KINDS[6:7], "random", "half"])
        )
        if fate == "gone":
            (root / name).unlink()
        elif fate != "keep":
            spoil(root / name, fate)
    DirectoryState(root).recover()
    store = DirectoryState(root)
    found = store.recover()
    # and the directory can be written to again
    samples.fill(store, HashChainAudit(root / "audit.log", lambda: samples.NOW), 3)
    again = DirectoryState(root).recover()
    assert again.recorded == generation(3, CUT_LEVELS)
    assert again.boot_levels == again.audit_levels == CUT_LEVELS
    assert found is not None


def test_a_swapped_generation_is_not_believed(root):
    shutil.copy(root / "generations/00000002.json", root / "generations/00000003.json")
    found = judge(root, "00000003.json")
    assert "holds generation 2" in found.damage[0]
    assert found.recorded == generation(3, CUT_LEVELS), "as boot.nft says"


def test_an_older_boot_file_put_back_does_not_open(root):
    store = DirectoryState(root)
    program = store.write_program(samples.PROGRAM, samples.GATES)
    store.point_boot(program, GATE, generation(1))
    found = store.recover()
    assert found.recorded.levels == found.audit_levels == CUT_LEVELS


def test_the_newest_generation_gone_is_told_and_comes_back_from_the_boot_file(root):
    lost = root / "generations/00000003.json"
    before = lost.read_bytes()
    lost.unlink()
    found = DirectoryState(root).recover()
    assert any(
        "00000003.json was not there; it was written from boot.nft" in w for w in found.damage
    )
    assert found.recorded == generation(3, CUT_LEVELS)
    assert lost.read_bytes() == before
    assert DirectoryState(root).recover().damage == ()


def test_the_newest_generation_gone_is_seen_by_the_audit_log(root):
    (root / "generations/00000003.json").unlink()
    (root / "boot.nft").unlink()
    assert any(
        "00000003.json cannot be read: audit.log" in w
        for w in DirectoryState(root).recover().damage
    )


def test_a_damaged_newest_generation_is_read_from_the_boot_file_and_stays_as_evidence(root):
    (root / "generations/00000003.json").write_bytes(b"garbage")
    found = judge(root, "00000003.json")
    assert found.recorded == generation(3, CUT_LEVELS)
    assert (root / "generations/00000003.json").read_bytes() == b"garbage"


def test_a_newest_generation_that_cannot_be_written_is_believed_all_the_same(root, monkeypatch):
    def full(path, _data):
        raise StateError(f"could not write {path}: the disk is full")

    (root / "generations/00000003.json").unlink()
    monkeypatch.setattr(durable_files, "write_file", full)
    found = DirectoryState(root).recover()
    assert found.recorded == generation(3, CUT_LEVELS)
    assert any("the disk is full; boot.nft holds it" in words for words in found.damage)


def test_an_opening_is_recorded_once_its_boot_file_is_there(root):
    """Killed before its generation has a file: the intent explains that, and nothing is told."""
    store = DirectoryState(root)
    store.recover()
    store.write_intent(generation(4))
    program = store.write_program(samples.PROGRAM, samples.GATES)
    store.point_boot(program, GATE, generation(4))
    found = DirectoryState(root).recover()
    assert found.damage == ()
    assert found.recorded == found.generations[4] == generation(4)
    assert found.intent is None
    assert (root / "generations/00000004.json").exists()


def test_a_closing_whose_generation_has_no_file_yet_is_recorded(root):
    store = DirectoryState(root)
    program = store.write_program(samples.PROGRAM, samples.GATES)
    store.point_boot(program, GATE, generation(4, samples.CUT_LEVELS, reason="the last word"))
    (root / "journal.json").unlink()
    found = DirectoryState(root).recover()
    assert found.recorded.reason == "the last word"
    assert any("00000004.json" in words for words in found.damage)


def test_a_torn_audit_tail_is_mended_and_said_once(root):
    with (root / "audit.log").open("ab") as log:
        log.write(b'{"seq":4,"at"')
    assert any("torn" in words for words in DirectoryState(root).recover().damage)
    assert DirectoryState(root).recover().damage == ()


def test_stale_temporaries_of_a_crash_go(root):
    for folder in ("", "generations", "policies", "ruleset"):
        (root / folder / ".tmp-x-00").write_bytes(b"half")
    assert DirectoryState(root).recover().damage == ()
    assert not [name for name in files_of(root) if ".tmp-" in name]


def test_a_moved_state_directory_says_that_its_boot_file_points_elsewhere(root, tmp_path):
    shutil.move(root, tmp_path / "moved")
    damage = DirectoryState(tmp_path / "moved").recover().damage
    assert any("boot.nft" in words for words in damage)
    assert any("cut.nft" in words for words in damage)


def test_thousands_of_damaged_files_make_a_bounded_answer(root):
    for number in range(5, 700):
        (root / "generations" / f"{number:08d}.json").write_bytes(b"x")
    damage = DirectoryState(root).recover().damage
    assert len(damage) == 101
    assert damage[-1].startswith("and ")
