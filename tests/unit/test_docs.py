"""The documentation against the code: what it names exists, and what exists is named."""

import argparse
import ast
import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import ecluse
from ecluse.api import metrics
from ecluse.api.problems import _TITLES as PROBLEM_KINDS
from ecluse.api.routes import ROUTES
from ecluse.cli import exit_codes
from ecluse.cli.parser import build_parser
from ecluse.config.file_schemas import (
    DESTINATION,
    DNS_GATE,
    INTERNAL,
    LEVEL,
    LIFELINE,
    LIMITS,
    MANAGEMENT,
    SERVICE,
    SITE,
    ZONE,
)
from ecluse.config.load import SITE_FILE, ConfigDirectory
from ecluse.config.settings import TOML_NAME, Settings, load_settings
from tests.unit.api.fake_controller import FakeController
from tests.vm.shapes.catalogue import SHAPES

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, *sorted(ROOT.glob("*.md"))]

TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PACKAGES = "|".join(path.parent.name for path in sorted(ROOT.glob("src/ecluse/*/__init__.py")))
CODE_FILE = re.compile(rf"`((?:src|systemd|tests|config)/[\w./-]+\.\w+|(?:{PACKAGES})/[\w/]+\.py)`")
BLOCK = re.compile(r"^```\w+ (?P<name>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


VERSION = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", re.MULTILINE)


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert ecluse.__version__ == version
    told = VERSION.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert told
    # Between releases the version is that of the next one.
    assert [int(part) for part in told[0].split(".")] <= [int(part) for part in version.split(".")]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@cache
def functions(file: Path) -> frozenset[str]:
    """Name the test functions of a file, those of a class as `Class::function`."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {
            prefix + one.name
            for one in inner
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            and one.name.startswith("test_")
        }
    return frozenset(found)


def anchors(file: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", FENCED.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_every_test_that_is_named_exists(file: Path):
    for path, name in TEST.findall(file.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path
        assert name in functions(ROOT / path), f"{path}::{name}"


def test_security_names_every_test_of_the_promises():
    named = set(TEST.findall(page("security.md")))
    path = "tests/system/test_promises.py"
    assert len(functions(ROOT / path)) >= 7
    missing = functions(ROOT / path) - {name for where, name in named if where == path}
    assert not missing


def test_each_promise_has_its_tests():
    chapter = page("security.md").partition("\n## The seven promises\n")[2].partition("\n## ")[0]
    promises = re.split(r"^### (?=\d\. )", chapter, flags=re.MULTILINE)[1:]
    assert [promise[0] for promise in promises] == list("1234567")
    for promise in promises:
        assert TEST.search(promise), promise[:60]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_every_link_leads_somewhere(file: Path):
    text = FENCED.sub("", file.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_every_file_of_the_source_that_is_named_exists(file: Path):
    text = re.sub(r"::[\w:]+`", "`", file.read_text(encoding="utf-8"))
    for path in CODE_FILE.findall(text):
        assert any((place / path).exists() for place in (ROOT, ROOT / "src/ecluse")), path


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Give the parsers of a parser's verbs, none when it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def verbs() -> list[str]:
    found: list[str] = []
    for name, parser in subparsers(build_parser()).items():
        inner = subparsers(parser)
        found += [f"{name} {what}" for what in inner] or [name]
    return found


def test_every_verb_is_told():
    text = "\n".join(
        file.read_text(encoding="utf-8") for file in PAGES if file.name != "known-issues.md"
    )
    assert len(verbs()) > 10
    missing = [verb for verb in verbs() if not re.search(rf"\becluse {verb}\b", text)]
    assert not missing


def test_no_verb_is_told_that_does_not_exist():
    known = {verb.split()[0] for verb in verbs()}
    for file in PAGES:
        told = re.findall(
            r"(?:`|^ {4}(?:sudo )?|; )ecluse ([a-z]+)",
            file.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        assert set(told) <= known, file.name


def test_every_exit_code_is_told():
    told = set(re.findall(r"^\| (\d+) \|", page("operations.md"), re.MULTILINE))
    codes = {str(value) for value in vars(exit_codes).values() if isinstance(value, int)}
    assert told == codes


def test_every_critical_alert_is_told():
    chapter = page("operations.md").partition("\n### Alerts\n")[2].partition("\n## ")[0]
    critical = set(re.findall(r"^\| `([a-z-]+)` \| critical \|", page("alerts.md"), re.MULTILINE))
    assert len(critical) > 5
    assert set(re.findall(r"`([a-z-]+)`", chapter.partition("\n| code |")[2])) >= critical


def test_every_route_is_told():
    text = page("api.md")
    assert set(re.findall(r"^\| `((?:GET|POST) [^`]+)` \|", text, re.MULTILINE)) == {
        f"{route.method} {route.path}" for route in ROUTES
    }


def test_every_kind_of_problem_is_told():
    chapter = page("api.md").partition("\n## Errors\n")[2].partition("\n## ")[0]
    missing = [kind for kind in PROBLEM_KINDS if f"`{kind}`" not in chapter]
    assert not missing


async def test_every_metric_is_told():
    status = await FakeController().status()
    exposed = metrics.metrics_text(status, metrics.SocketCounts({"root": 1}, 0, 0)).decode()
    names = {
        line.partition(" ")[0].partition("{")[0] for line in exposed.splitlines() if line[0] != "#"
    }
    assert len(names) > 10
    # The second is there only where an extension fails.
    others = {"ecluse_in_step", "ecluse_extension_metrics_failed"}
    assert set(re.findall(r"`(ecluse_\w+)`", page("api.md"))) - others == names - others


def test_every_setting_is_told():
    rows = dict(
        re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", page("configuration.md"), re.MULTILINE)
    )
    for name, info in Settings.model_fields.items():
        assert name in rows, name
        if info.default is not None and name != "socket":
            assert str(info.default) in rows[name].strip('`"'), (name, rows[name])


PREFIXES = (
    ("", SITE),
    ("lifeline.", LIFELINE),
    ("lifeline.management.", MANAGEMENT),
    ("", ZONE),
    ("", SERVICE),
    ("", DESTINATION),
    ("dns_gate.", DNS_GATE),
    ("dns_gate.internal.", INTERNAL),
    ("dns_gate.limits.", LIMITS),
)


HOLDERS = {"lifeline", "management", "dns_gate", "internal", "limits"}


def keys(form) -> list[str]:
    """Give a form's keys, without those that only hold other keys told by themselves."""
    return [key for key in form.keys if key not in HOLDERS]


def test_every_key_of_the_sites_files_has_its_row():
    text = page("configuration.md").partition("\n## ecluse.toml\n")[0]
    told = Counter(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
    assert told == Counter(prefix + key for prefix, form in PREFIXES for key in keys(form))
    assert all(f"`{key}`" in text for key in keys(LEVEL))


def blocks() -> dict[str, str]:
    """Give the files that configuration.md shows whole: name -> text."""
    return {match["name"]: match["text"] for match in BLOCK.finditer(page("configuration.md"))}


def test_every_shape_of_gateway_has_its_row():
    _, _, text = page("testing.md").partition("\n## Every shape of gateway\n")
    cells = re.findall(r"^\| (`[^|]*) \|", text.partition("\n## ")[0], re.MULTILINE)
    told = Counter(name for cell in cells for name in re.findall(r"`([\w-]+)`", cell))
    assert told == Counter(shape.name for shape in SHAPES)


def test_the_examples_load(tmp_path: Path):
    shown = blocks()
    assert {SITE_FILE, TOML_NAME} < set(shown)
    (tmp_path / "allowlist.d").mkdir()
    for name, text in shown.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    source = ConfigDirectory(tmp_path)
    policy = source.load()
    (only,) = source.warnings()
    assert "examples of the documentation" in only.wrong
    assert {service.name for service in policy.services} >= {"laboratory", "telephony"}
    settings = load_settings(["--config-dir", str(tmp_path)], {})
    assert settings.log_format == "console"
