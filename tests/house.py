"""House lint: names, words, documents and layout that no other linter knows.

`python -m tests.house [FOLDER]` prints one line for each fault and ends with 1 if there is any.
Each check takes a tree (a folder laid out as this repository) and gives its faults as text, so that
tests/unit/test_house.py can show that it fails on a bad tree.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, LINES = 100, 450

NAMES_THAT_SAY_NOTHING = {"read", "settle", "plain", "note", "tell"}
"""Functions are called for what they do it to: `read_generation`, `append_line`."""

WITHOUT_A_TEST_FILE = {
    "dnsproxy/learned.py": "it is the kernel's sets: tests/kernel/adapters/test_learned.py",
    "daemon.py": "puts the adapters together: tests/system/test_daemon.py runs it",
    "ports.py": "protocols alone: the adapters and tests/fakes fulfil them",
    "exit_ports.py": "a protocol and its values: tests/kernel/adapters/test_exit_table.py",
    "kernel/read_exit_table.py": "read by tests/kernel/adapters/test_exit_table.py",
    "results.py": "values without a method",
    "ruleset/conntrack_entry.py": "values without a method",
}
"""Module -> why it needs no test file of its name."""


def modules(tree: Path) -> list[Path]:
    """Give every module of the program, sorted, as paths below `src/ecluse`."""
    package = tree / "src/ecluse"
    return sorted(path.relative_to(package) for path in package.rglob("*.py"))


def packages(tree: Path) -> list[Path]:
    """Give every package below `src/ecluse`."""
    return [
        path.parent for path in modules(tree) if path.name == "__init__.py" and path.parent.name
    ]


# -- the map


def map_faults(tree: Path) -> list[str]:
    """Compare ARCHITECTURE.md with the modules: each module it names exists, each package is named.

    A name with a folder may begin at the root, at `src/ecluse` or at a package; one without may be
    the name of any module.
    """
    page = tree / "ARCHITECTURE.md"
    if not page.exists():
        return ["ARCHITECTURE.md: missing"]
    text = page.read_text(encoding="utf-8")
    known = {path.as_posix() for path in modules(tree)}
    faults = []
    for name in sorted(set(re.findall(r"[\w./-]*\w\.py\b", text))):
        is_module = any(f"/{module}".endswith(f"/{name}") for module in known)
        if not is_module and not (tree / name).is_file():
            faults.append(f"ARCHITECTURE.md: no module {name}")
    for package in packages(tree):
        if not re.search(rf"(?<![\w/]){re.escape(package.as_posix())}/", text):
            faults.append(f"ARCHITECTURE.md: does not name the package {package}/")
    return faults


# -- words


@dataclass(frozen=True, slots=True)
class Word:
    """A row of the glossary's table of words that are not used. where: `names`, `text`, `all`."""

    word: str
    better: str
    where: str


def forbidden_words(tree: Path) -> list[Word]:
    """Read the table under the heading "Words that are not used" of docs/glossary.md."""
    text = (tree / "docs/glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| *([^|]+?) *\| *([^|]+?) *\| *(names|text|all) *\|$", text, re.MULTILINE)
    return [Word(*row) for row in rows]


def word_faults(tree: Path) -> list[str]:
    """Find forbidden words in names, docstrings, comments, messages, examples and documents."""
    words = forbidden_words(tree)
    if not words:
        return ["docs/glossary.md: no table of words that are not used"]
    in_names = {one.word: one for one in words if one.where in {"names", "all"}}
    in_text = [one for one in words if one.where in {"text", "all"}]
    pattern = re.compile(
        r"\b(" + "|".join(re.escape(one.word) for one in in_text) + r")\b", re.IGNORECASE
    )
    better = {one.word: one.better for one in words}
    faults = []
    for path in modules(tree):
        file = tree / "src/ecluse" / path
        for line, name in _names(file):
            for part in sorted(name_parts(name) & in_names.keys()):
                faults.append(f"src/ecluse/{path}:{line}: {name}: {part} -> {better[part]}")
        for line, text in _texts(file):
            faults += _found(f"src/ecluse/{path}", line, text, pattern, better)
    for folder in ("config", "systemd"):
        for file in sorted(path for path in (tree / folder).rglob("*") if path.is_file()):
            for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                comment = "#" + text.partition("#")[2]
                faults += _found(file.relative_to(tree).as_posix(), line, comment, pattern, better)
    for page in [*tree.glob("*.md"), *(tree / "docs").glob("*.md")]:
        if page.name in {"CHANGELOG.md", "glossary.md"}:
            continue  # what was, and the table itself
        text = page.read_text(encoding="utf-8")
        faults += _found(page.relative_to(tree).as_posix(), 1, text, pattern, better)
    return faults


def name_parts(name: str) -> set[str]:
    """Give the words of a name: `_DnsGate_http2` is dns, gate and http2."""
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return set(split.split("_")) - {""}


_CODE = re.compile(r"^```.*?^```$|^(?: {4}|\t).*$|`[^`\n]*`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)


def _found(
    where: str, line: int, text: str, pattern: re.Pattern[str], better: dict[str, str]
) -> Iterator[str]:
    text = _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text)
    for match in pattern.finditer(text):
        at = line + text.count("\n", 0, match.start())
        yield f"{where}:{at}: {match[0]} -> {better[match[0].lower()]}"


def _names(file: Path) -> Iterator[tuple[int, str]]:
    yield 1, file.stem
    for node in ast.walk(_parsed(file)):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr


def _texts(file: Path) -> Iterator[tuple[int, str]]:
    """Give comments, docstrings, and texts of more than one word."""
    source = file.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            # dedented: only documents mark code by four blanks
            yield node.lineno, re.sub(r"^[ \t]+", "", node.value, flags=re.MULTILINE)


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


# -- mentions

OTHERS_FILES = {"web_protocol.py": "aiohttp's"}
"""Files of others that our texts name."""


def mention_faults(tree: Path) -> list[str]:
    """Find files and tests that docstrings, comments, messages and documents name in vain."""
    files = [path for part in ("src", "tests", "packaging") for path in (tree / part).rglob("*.py")]
    known = {path.name for path in files} | OTHERS_FILES.keys()
    known |= {path.stem for path in files if path.name.startswith("test_")}
    for path in (tree / "tests").rglob("*.py"):
        known |= set(re.findall(r"\bdef (test_\w+)", path.read_text(encoding="utf-8")))
    texts = [
        (f"src/ecluse/{path}", line, text)
        for path in modules(tree)
        for line, text in _texts(tree / "src/ecluse" / path)
    ]
    texts += [
        (page.relative_to(tree).as_posix(), 1, page.read_text(encoding="utf-8"))
        for page in [*tree.glob("*.md"), *(tree / "docs").glob("*.md")]
        if page.name != "CHANGELOG.md"
    ]
    return [
        f"{where}:{line + text.count(chr(10), 0, match.start())}: {match[0]} does not exist"
        for where, line, text in texts
        for match in re.finditer(r"\b(?:\w+\.py|test_\w*[a-z0-9])\b", text)
        if match[0] not in known
    ]


# -- functions


def function_faults(tree: Path) -> list[str]:
    """Find functions whose name is a verb or adjective that says nothing of the thing."""
    return [
        f"src/ecluse/{path}:{node.lineno}: {node.name}() does not say what"
        for path in modules(tree)
        for node in ast.walk(_parsed(tree / "src/ecluse" / path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.strip("_") in NAMES_THAT_SAY_NOTHING
    ]


def docstring_faults(tree: Path) -> list[str]:
    """Find public modules, classes, functions and methods that no docstring describes."""
    faults = []
    for path in modules(tree):
        body = _parsed(tree / "src/ecluse" / path)
        if not ast.get_docstring(body) and body.body:
            faults.append(f"src/ecluse/{path}:1: no docstring")
        faults += [f"src/ecluse/{path}:{line}: {name}" for line, name in _undocumented(body, "")]
    return faults


def _undocumented(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[int, str]]:
    for inner in node.body:
        if not isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if inner.name.startswith("_") or any(_decorated_by(inner) & {"overload", "override"}):
            continue
        if not ast.get_docstring(inner):
            yield inner.lineno, f"{prefix}{inner.name}: no docstring"
        if isinstance(inner, ast.ClassDef):
            yield from _undocumented(inner, f"{prefix}{inner.name}.")


def _decorated_by(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}


# -- layout


def test_file_faults(tree: Path) -> list[str]:
    """Find modules without a test file of their name.

    `src/ecluse/P/M.py` has `tests/unit/P/test_M.py`; an adapter of the kernel may have
    `tests/kernel/adapters/test_M.py`.
    """
    faults = []
    for path in modules(tree):
        if path.name in {"__init__.py", "__main__.py"} or path.as_posix() in WITHOUT_A_TEST_FILE:
            continue
        name = f"test_{path.name}"
        places = [tree / "tests/unit" / path.parent / name]
        if path.parts[0] == "kernel":
            places.append(tree / "tests/kernel/adapters" / name)
        if not any(place.exists() for place in places):
            faults.append(f"src/ecluse/{path}: no {places[-1].relative_to(tree)}")
    faults += [
        f"{path}: has a test file of its name now"
        for path in WITHOUT_A_TEST_FILE
        if (tree / "tests/unit" / Path(path).with_name(f"test_{Path(path).name}")).exists()
    ]
    return faults


_PRAGMA = re.compile(r"  # (noqa|type: ignore)\b.*")


def length_faults(tree: Path) -> list[str]:
    """Find lines of over 100 columns in any Python file, and modules of over 450 lines."""
    faults = []
    for folder in ("src", "tests", "packaging"):
        for file in sorted((tree / folder).rglob("*.py")):
            lines = file.read_text(encoding="utf-8").splitlines()
            where = file.relative_to(tree)
            faults += [
                f"{where}:{number}: {len(line)} columns"
                for number, line in enumerate(lines, 1)
                if len(_PRAGMA.sub("", line)) > COLUMNS
            ]
            if folder == "src" and len(lines) > LINES:
                faults.append(f"{where}: {len(lines)} lines")
    return faults


CHECKS: dict[str, Callable[[Path], list[str]]] = {
    "map": map_faults,
    "words": word_faults,
    "mentions": mention_faults,
    "functions": function_faults,
    "docstrings": docstring_faults,
    "tests": test_file_faults,
    "length": length_faults,
}


def main() -> int:
    """Print every fault of a tree, by default of this repository."""
    tree = Path(sys.argv[1]) if sys.argv[1:] else ROOT
    faults = [fault for check in CHECKS.values() for fault in check(tree)]
    print("\n".join(faults) or "house: no faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
