"""Power cuts: each small file cut off, at sampled bytes and at every border.

With ECLUSE_TESTS=thorough, at every byte.

Never less closed than the others say, and told.
"""

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.policy import at_least_as_closed
from ecluse.state import offline_closings
from ecluse.state.audit_log import HashChainAudit, verify
from ecluse.state.store import DirectoryState
from tests.effort import examples, sampled
from tests.unit.state import samples
from tests.unit.state.samples import CUT_LEVELS
from tests.unit.state.test_offline_closings import CLOSINGS

FILES = (
    "boot.nft",
    "generations/00000003.json",
    "journal.json",
    "names.json",
    "names.copy.json",
    "audit.head",
    "audit.log",
)
SAMPLE = 25
"""Lengths that each file is cut off to beside its borders."""


def cut_lengths(whole, salt, first=0):
    """Draw lengths to cut a file to; always 0, 1, all but one byte, and around each end of a line
    and each record of a line (a comma at the top of JSON, the checksum).
    """
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    checksum = whole.rfind(b"sha256")
    borders = [first, *ends, max(checksum, 0), len(whole) - 1]
    always = {border + step for border in borders for step in (-1, 0, 1)}
    return sampled(range(first, len(whole)), always, SAMPLE, salt)


def test_the_sample_has_every_border():
    lengths = cut_lengths(b"a" * 500 + b"\n" + b"b" * 500 + b'\n{"sha256":"' + b"c" * 60, "x")
    assert {0, 1, 499, 500, 501, 1000, 1001, 1002, 1003, 1004, 1005} <= set(lengths)
    assert lengths[-1] == 1001 + 12 + 60 - 1


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("torn") / "state"
    samples.fill(DirectoryState(root), HashChainAudit(root / "audit.log", lambda: samples.NOW))
    DirectoryState(root).write_intent(samples.generation(4))
    assert DirectoryState(root).recover().damage == ()
    return root


def restored(root, names):
    """Give a function that puts the directory back as it was."""
    before = {name: (root / name).read_bytes() for name in names}

    def back():
        for at, _, found in os.walk(root):
            for name in found:
                path = os.path.join(at, name)
                if os.path.relpath(path, root) not in before:
                    os.unlink(path)
        for name, raw in before.items():
            if not (root / name).exists() or (root / name).read_bytes() != raw:
                (root / name).write_bytes(raw)

    return back


def all_files(root):
    return [
        os.path.relpath(os.path.join(at, name), root)
        for at, _, names in os.walk(root)
        for name in names
    ]


def levels_told(found):
    recorded = found.recorded.levels if found.recorded else None
    return [
        levels for levels in (recorded, found.boot_levels, found.audit_levels) if levels is not None
    ]


@pytest.mark.parametrize("name", FILES)
def test_cut_off_anywhere(original, name):
    back = restored(original, all_files(original))
    whole = (original / name).read_bytes()
    # An append tears the last line of the log alone.
    first = len(whole) - len(whole.splitlines(keepends=True)[-1]) if name == "audit.log" else 0
    ends = {place for place, byte in enumerate(whole) if byte == ord("\n")} if first else set()
    for length in cut_lengths(whole, name, first):
        try:
            (original / name).write_bytes(whole[:length])
            found = DirectoryState(original).recover()
            assert not found.first_install
            assert any(
                at_least_as_closed(samples.SITE, one, CUT_LEVELS) for one in levels_told(found)
            ), length
            told = any(os.path.basename(name) in words for words in found.damage)
            assert told, (length, found.damage)
            if name == "audit.log":
                audit = HashChainAudit(original / "audit.log", lambda: samples.NOW)
                audit.append(samples.audit_record())
                audit.close()
                missing = [str(problem) for problem in verify(original / "audit.log")]
                assert (missing == []) == (length == len(whole) - 1), (length, missing)
                kept = list(original.glob("audit.torn-*"))
                assert bool(kept) == (length not in ends and length - 1 not in ends), length
        finally:
            back()


@pytest.mark.parametrize("boot", [True, False], ids=["boot.nft by hand", "boot.nft as before"])
def test_notes_by_hand_cut_off_anywhere(original, boot):
    """The note comes after `boot.nft`: torn, it was never answered; whatever is left of it, the
    closing before it counts.
    """
    back = restored(original, all_files(original))
    path = original / "by-hand.log"
    try:
        lengths = []
        for closing in CLOSINGS:
            offline_closings.append_closing(path, closing)
            lengths.append(path.stat().st_size)
        whole = path.read_bytes()
        if boot:
            shutil.copy(original / "ruleset" / "cut.nft", original / "boot.nft")
        for length in cut_lengths(whole, f"by hand {boot}"):
            path.write_bytes(whole[:length])
            found = DirectoryState(original).recover()
            noted = sum(length >= end - 1 for end in lengths)  # only its newline may lack
            assert len(found.by_hand) == noted, length
            wanted = ("cut" if boot else "", "cut", "isolate")[noted]
            assert found.closed_by_hand == wanted, length
            torn = length not in {0, lengths[0] - 1, lengths[0], lengths[1] - 1}
            assert any(words.startswith("by-hand.log") for words in found.damage) == torn, (
                length,
                found.damage,
            )
    finally:
        path.unlink()
        back()


@settings(max_examples=examples(150))
@given(data=st.data())
def test_several_files_cut_off_at_once(original, data):
    """As after a power cut on a disk that forgot more than one write: while one witness is whole,
    it stays closed.
    """
    names = ("boot.nft", "generations/00000003.json", "audit.log", "journal.json", "names.json")
    spared = data.draw(st.sampled_from(names[:3]))
    back = restored(original, all_files(original))
    try:
        for name in names:
            if name != spared and data.draw(st.booleans(), label=name):
                whole = (original / name).read_bytes()
                (original / name).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        found = DirectoryState(original).recover()
        assert not found.first_install
        assert any(at_least_as_closed(samples.SITE, one, CUT_LEVELS) for one in levels_told(found))
    finally:
        back()
