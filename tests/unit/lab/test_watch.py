"""What `make watch` runs for a file that was saved."""

from pathlib import Path

import pytest

from tests.watch import selected_by

PRESENT = [
    "tests/unit/policy/test_levels.py",
    "tests/unit/ruleset/test_compile.py",
    "tests/unit/api/harness.py",
    "tests/unit/test_docs.py",
    "tests/golden/test_golden.py",
    "tests/kernel/adapters/test_nft.py",
    "tests/system/test_daemon.py",
    "tests/unit/packaging/test_build.py",
]


@pytest.mark.parametrize(
    ("changed", "run"),
    [
        ("src/ecluse/policy/levels.py", ["tests/unit/policy/test_levels.py"]),
        ("src/ecluse/policy/gone.py", ["tests/unit/policy"]),
        (
            "src/ecluse/ruleset/compile.py",
            ["tests/golden", "tests/unit/ruleset/test_compile.py"],
        ),
        ("src/ecluse/kernel/nft.py", []),
        ("src/ecluse/nothing/here.py", []),
        ("tests/unit/policy/test_levels.py", ["tests/unit/policy/test_levels.py"]),
        ("tests/unit/policy/test_deleted.py", []),
        ("tests/unit/api/harness.py", ["tests/unit/api"]),
        ("tests/golden/cases/one.nft", ["tests/golden"]),
        ("tests/system/test_daemon.py", []),
        ("packaging/make_deb/roff.py", ["tests/unit/packaging"]),
        ("docs/api.md", ["tests/unit/test_docs.py"]),
    ],
)
def test_the_tests_of_what_was_saved(changed, run, tmp_path):
    for name in PRESENT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert selected_by([Path(changed)], tmp_path) == run


def test_root_runs_the_adapters_too(tmp_path):
    for name in PRESENT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert selected_by([Path("src/ecluse/kernel/nft.py")], tmp_path, root=True) == [
        "tests/kernel/adapters/test_nft.py"
    ]
