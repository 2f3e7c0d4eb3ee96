"""`make watch`: at each save, run the tests of what was saved. Ctrl-C ends it."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WATCHED = ("src", "tests", "packaging", "docs")


def selected_by(changed: Iterable[Path], tree: Path = ROOT, *, root: bool = False) -> list[str]:
    """Give the test files and folders to run for files that changed, sorted.

    Args:
        changed: paths below `tree`, which may be gone.
        tree: the folder of the project.
        root: whether tests that need root may run. Without it only unit and golden tests are given.
    """
    found: set[Path] = set()
    for path in changed:
        found |= _selected_by(path, tree)
    needs_root = ("kernel", "system", "demo", "bench", "vm")
    return sorted(
        path.as_posix()
        for path in found
        if (tree / path).exists() and (root or path.parts[1] not in needs_root)
    )


def _selected_by(path: Path, tree: Path) -> set[Path]:
    match path.parts:
        case ("src", "ecluse", *folders, name) if name.endswith(".py"):
            unit = Path("tests/unit", *folders)
            files = {unit / f"test_{name}"}
            if folders[:1] == ["kernel"]:
                files.add(Path("tests/kernel/adapters") / f"test_{name}")
            if folders[:1] == ["ruleset"]:
                files.add(Path("tests/golden"))
            return files if any((tree / file).exists() for file in files) else {unit}
        case ("tests", "golden", *_):
            return {Path("tests/golden")}
        case ("tests", _, *_, name) if name.startswith("test_") and name.endswith(".py"):
            return {path}
        case ("tests", "unit", *folders, name) if name.endswith(".py"):
            return {Path("tests/unit", *folders)}
        case ("packaging", *_):
            return {Path("tests/unit/packaging")}
        case ("docs", *_):
            return {Path("tests/unit/test_docs.py"), Path("tests/unit/test_house.py")}
    return set()


def main() -> None:
    """Watch until Ctrl-C."""
    from watchfiles import PythonFilter, watch

    print(f"watching {', '.join(WATCHED)}; Ctrl-C ends it", flush=True)
    folders = [ROOT / name for name in WATCHED]
    kinds = PythonFilter(extra_extensions=(".md", ".yaml", ".nft"))
    for changes in watch(*folders, watch_filter=kinds, raise_interrupt=False):
        changed = {Path(path).relative_to(ROOT) for _, path in changes}
        if tests := selected_by(changed, root=os.geteuid() == 0):
            print(f"\n{' '.join(tests)}", flush=True)
            subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=ROOT, check=False)


if __name__ == "__main__":
    main()
