"""Where each state file is, and what its name means."""

import pytest

from ecluse.errors import StateError
from ecluse.state.layout import Layout

HEX = "0a" * 32


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def test_a_generation_is_read_back_from_its_files_name(layout):
    path = layout.generation_file(7)
    assert path.name == "00000007.json"
    assert layout.number_of(path.name) == layout.number_of(f"{path.name}.damaged-1") == 7
    assert layout.number_of("7.json") is layout.number_of("00000007.nft") is None


def test_generations_that_have_a_file_are_listed_rising(layout):
    layout.generations.mkdir()
    for name in ("00000012.json", "00000003.json", "00000004.json.damaged-1", "x.json"):
        (layout.generations / name).write_text("")
    assert layout.generation_numbers() == [3, 12]


def test_a_digest_from_a_request_never_leaves_the_folder(layout):
    assert layout.policy_file(f"sha256:{HEX}") == layout.policies / f"{HEX}.json"
    for wrong in ("", HEX, "sha256:../../etc/passwd", f"sha256:{HEX}/.."):
        with pytest.raises(StateError):
            layout.policy_file(wrong)


def test_a_digest_is_read_back_from_a_name(layout):
    digest = f"sha256:{HEX}"
    assert layout.digest_in(layout.policy_name(digest)) == digest
    assert layout.digest_in(layout.program_name(digest)) == digest
    assert layout.digest_in("cut.nft") is None


def test_files_of_levels_are_those_without_a_digest(layout):
    layout.ruleset.mkdir()
    for name in ("cut.nft", "open.nft", f"program-{HEX}.nft", "notes.txt"):
        (layout.ruleset / name).write_text("")
    assert [path.name for path in layout.level_files()] == ["cut.nft", "open.nft"]


def test_paths_are_told_from_the_state_directory_on(layout):
    assert layout.relative_name(layout.generation_file(1)) == "generations/00000001.json"
