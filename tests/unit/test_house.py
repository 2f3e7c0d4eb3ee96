"""The house lint (tests/house.py) holds here, and each of its checks fails on a bad tree."""

from pathlib import Path

import pytest

from tests import house

GLOSSARY = """
# Glossary
## Words that are not used
| Not this | But this | Where |
|---|---|---|
| keeper | supervisor | all |
| finding | bypass | names |
| got through | leaked | text |
"""
GOOD = {
    "src/ecluse/__init__.py": '"""A gate."""\n',
    "src/ecluse/policy/__init__.py": '"""What a site wants."""\n',
    "src/ecluse/policy/levels.py": '"""Levels."""\n\n\ndef rank() -> int:\n    """Give it."""\n',
    "src/ecluse/kernel/__init__.py": "",
    "src/ecluse/kernel/nft.py": '"""nftables."""\n',
    "tests/unit/policy/test_levels.py": "",
    "tests/kernel/adapters/test_nft.py": "",
    "packaging/build.py": "",
    "ARCHITECTURE.md": "`policy/levels.py`: levels. `kernel/`, `nft.py`, `packaging/build.py`\n",
    "CHANGELOG.md": "The keeper is gone\n",
    "docs/glossary.md": GLOSSARY,
    "docs/api.md": "A finding, `keeper`\n\n    keeper\n\n```sh\nkeeper\n```\n",
}


def plant(tree: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text, encoding="utf-8")
    return tree


@pytest.mark.parametrize("check", house.CHECKS.values(), ids=house.CHECKS)
def test_this_tree_is_in_order(check):
    assert check(house.ROOT) == []


@pytest.mark.parametrize("check", house.CHECKS.values(), ids=house.CHECKS)
def test_a_good_tree_has_no_faults(check, tmp_path, monkeypatch):
    monkeypatch.setattr(house, "WITHOUT_A_TEST_FILE", {})
    assert check(plant(tmp_path, GOOD)) == []


LEVELS = "src/ecluse/policy/levels.py"


@pytest.mark.parametrize(
    ("check", "file", "text", "fault"),
    [
        ("map", "ARCHITECTURE.md", "`policy/` `kernel/` `policy/gone.py`", "no module policy/gone"),
        ("map", "ARCHITECTURE.md", "`policy/levels.py`", "does not name the package kernel/"),
        ("map", "src/ecluse/policy/deep/__init__.py", "", "the package policy/deep/"),
        ("words", LEVELS, "class TheKeeper: ...", "levels.py:1: TheKeeper: keeper -> supervisor"),
        ("words", LEVELS, "\n\ndef a_keeper(): ...", "levels.py:3: a_keeper"),
        ("words", LEVELS, "def f(keeper): ...", "keeper"),
        ("words", LEVELS, "keeper = 1", "keeper"),
        ("words", LEVELS, "self.keeper = 1", "keeper"),
        ("words", LEVELS, "finding = 1", "finding -> bypass"),
        ("words", "src/ecluse/policy/keeper.py", "", "policy/keeper.py:1: keeper"),
        ("words", LEVELS, '"""One\n\n    two: a Keeper."""', "levels.py:3: Keeper -> supervisor"),
        ("words", LEVELS, "x = 1  # got through", "levels.py:1: got through -> leaked"),
        ("words", LEVELS, 'print(f"{x} packets got through")', "got through -> leaked"),
        ("words", "docs/api.md", "One\nkeeper", "docs/api.md:2: keeper -> supervisor"),
        ("words", "README.md", "A keeper", "README.md:1: keeper"),
        ("words", "systemd/a.service", "[Unit]\n# The keeper\n", "a.service:2: keeper"),
        ("words", "config/allowlist.d/a.yaml", "a: b  # keeper", "a.yaml:1: keeper"),
        ("words", "docs/glossary.md", "", "no table"),
        ("mentions", LEVELS, "\n# see old.py", "levels.py:2: old.py does not exist"),
        ("mentions", LEVELS, '"""See `tests/unit/test_old.py`."""', "test_old.py does not exist"),
        ("mentions", "docs/api.md", "One\n`test_gone`", "docs/api.md:2: test_gone does not exist"),
        ("functions", LEVELS, "def read(): ...", "levels.py:1: read() does not say what"),
        ("functions", LEVELS, "class A:\n async def _tell(self): ...", "levels.py:2: _tell()"),
        ("docstrings", LEVELS, "x = 1", "levels.py:1: no docstring"),
        ("docstrings", LEVELS, '"""It."""\ndef rank(): ...', "levels.py:2: rank: no docstring"),
        ("docstrings", LEVELS, '"""It."""\nclass A:\n "A"\n def b(self): ...', "A.b: no docstring"),
        ("tests", "src/ecluse/policy/new.py", "", "no tests/unit/policy/test_new.py"),
        ("tests", "src/ecluse/kernel/new.py", "", "no tests/kernel/adapters/test_new.py"),
        ("length", LEVELS, f"x = '{'x' * 95}'", "levels.py:1: 101 columns"),
        ("length", "tests/unit/policy/test_levels.py", "#" * 101, "test_levels.py:1: 101 columns"),
        ("length", LEVELS, "x = 1\n" * 451, "levels.py: 451 lines"),
    ],
)
def test_a_bad_tree_is_seen(check, file, text, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(house, "WITHOUT_A_TEST_FILE", {})
    faults = house.CHECKS[check](plant(tmp_path, GOOD | {file: text}))
    assert any(fault in each for each in faults), faults


def test_an_exception_that_is_none_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "WITHOUT_A_TEST_FILE", {"policy/levels.py": "nothing to test"})
    assert house.test_file_faults(plant(tmp_path, GOOD)) != []


def test_the_parts_of_a_name():
    assert house.name_parts("_DnsGate_http2") == {"dns", "gate", "http2"}
