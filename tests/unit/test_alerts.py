"""Alerts: raised and cleared by code, told once, and each with a text that has what it needs."""

import ast
import importlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Formatter

import pytest

import ecluse
from ecluse.alerts import KINDS, AlertKind, Alerts, Severity, error_text
from ecluse.errors import EcluseError

ROOT = Path(ecluse.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "alerts.md"
NOT_PARAMETERS = {"key", "quiet"}


def tables():
    """Find every table of alert kinds in the source, by module and name."""
    for file in sorted(ROOT.rglob("*.py")):
        if "AlertKind(" not in file.read_text(encoding="utf-8"):
            continue
        dotted = ".".join(file.relative_to(ROOT.parent).with_suffix("").parts)
        for name, value in vars(importlib.import_module(dotted)).items():
            found = dict(value) if isinstance(value, Mapping) else {}
            if found and all(isinstance(one, AlertKind) for one in found.values()):
                yield f"{dotted}.{name}", found


def every_kind():
    return {code: kind for _, table in tables() for code, kind in table.items()}


def raises():
    """Find every `raise_alert` in the source: where, its code, its parameters."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "raise_alert"
            ):
                code = node.args[0]
                assert isinstance(code, ast.Constant), f"{file}:{node.lineno}: write the code out"
                names = {word.arg for word in node.keywords} - NOT_PARAMETERS
                yield f"{file.name}:{node.lineno}", code.value, names


def fields(template):
    return {name for _, name, _, _ in Formatter().parse(template) if name}


class Clock:
    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now

    def forward(self):
        self.now += timedelta(minutes=1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return []


@pytest.fixture
def alerts(clock, told):
    return Alerts(clock, lambda kind, text: told.append((kind, text)))


def test_each_raise_names_a_known_code_and_gives_just_the_parameters_of_its_text():
    kinds = every_kind()
    found = list(raises())
    assert found, "positive control"
    for where, code, names in found:
        assert code in kinds, f"{where}: {code} is in no table"
        needed = fields(kinds[code].text) | fields(kinds[code].cleared)
        assert names == needed, f"{where}: {code} gives {names}, its texts need {needed}"


def test_each_code_is_raised_somewhere():
    assert {code for _, code, _ in raises()} == every_kind().keys()


def test_no_code_is_in_two_tables():
    codes = [code for _, table in tables() for code in table]
    assert len(codes) == len(set(codes))
    assert set(KINDS) < set(codes), "positive control: a part brings its own"


def test_the_document_has_a_row_for_each_code():
    rows = {}
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            code, severity, text = (cell.strip() for cell in line.strip("|").split(" | "))
            rows[code.strip("`")] = (severity, text)
    assert rows == {
        code: (kind.severity.value, kind.text.replace("|", "\\|"))
        for code, kind in every_kind().items()
    }


def test_an_alert_keeps_its_time_until_it_is_cleared(alerts, clock):
    began = clock.now
    alerts.raise_alert("routes-unknown", error="no socket")
    clock.forward()
    alerts.raise_alert("routes-unknown", error="no memory")
    (alert,) = alerts.standing()
    assert (alert.code, alert.since, alert.severity) == ("routes-unknown", began, "warning")
    assert dict(alert.parameters) == {"error": "no memory"}
    assert alert.text == "the machine's routes could not be read: no memory"
    assert alerts.clear("routes-unknown")
    assert not alerts.clear("routes-unknown")
    assert alerts.standing() == ()
    alerts.raise_alert("routes-unknown", error="no socket")
    assert alerts.standing()[0].since == clock.now, "another one"


def test_only_a_change_is_an_event(alerts, told):
    for error in ("no socket", "no memory"):
        alerts.raise_alert("routes-unknown", error=error)
    assert told == [("warning", "the machine's routes could not be read: no socket")]
    told.clear()
    for _ in range(2):
        alerts.clear("routes-unknown")
    assert told == [("warning", "the machine's routes are read again")]


def test_an_end_without_a_text_of_its_own_quotes_the_alert(alerts, told):
    alerts.register({"page-lost": AlertKind(Severity.INFO, "the page of {who} is lost")})
    alerts.raise_alert("page-lost", who="x")
    alerts.clear("page-lost")
    assert told[-1] == ("warning", "over: the page of x is lost")


def test_some_are_no_events_and_any_can_be_raised_quietly(alerts, told):
    alerts.raise_alert("change-pending", levels="every zone is at open")
    alerts.clear("change-pending")
    alerts.raise_alert("table-not-restored", quiet=True, error="x")
    assert told == []
    assert alerts.is_raised("table-not-restored")


def test_several_of_one_code_stand_by_their_keys(alerts):
    for name in ("looking at the links", "the regular look"):
        alerts.raise_alert("task-failed", key=name, task=name, error="x", count=1)
    alerts.clear("task-failed", key="the regular look")
    assert [one.parameters["task"] for one in alerts.standing()] == ["looking at the links"]


def test_the_most_severe_come_first_and_of_these_the_oldest(alerts):
    alerts.raise_alert("accounting-off")
    alerts.raise_alert("routes-unknown", error="x")
    alerts.raise_alert("kernel-not-compared", error="y")
    alerts.raise_alert("out-of-step")
    codes = [one.code for one in alerts.standing()]
    assert codes == ["kernel-not-compared", "out-of-step", "routes-unknown", "accounting-off"]
    assert alerts.texts() == tuple(one.text for one in alerts.standing())


def test_a_part_brings_its_own_kinds_and_none_that_is_taken(alerts):
    with pytest.raises(KeyError):
        alerts.raise_alert("page-lost")
    alerts.register({"page-lost": AlertKind(Severity.INFO, "the page is lost")})
    alerts.raise_alert("page-lost")
    assert alerts.texts() == ("the page is lost",)
    with pytest.raises(ValueError, match="page-lost"):
        alerts.register({"page-lost": AlertKind(Severity.INFO, "again")})


def test_a_text_without_its_parameters_is_a_fault_and_raises_nothing(alerts):
    with pytest.raises(KeyError):
        alerts.raise_alert("routes-unknown")
    assert alerts.standing() == ()


def test_an_error_in_words_names_the_place_only_where_nobody_foresaw_it():
    assert error_text(EcluseError("the disk is full")) == "the disk is full"
    try:
        raise ExceptionGroup("several", [RuntimeError("can't start new thread")])
    except ExceptionGroup as error:
        assert error_text(error) == "RuntimeError: can't start new thread"
    try:
        raise OSError("x")
    except OSError as error:
        assert error_text(error).startswith("OSError: x, test_alerts.py:")
