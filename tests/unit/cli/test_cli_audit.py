"""`ecluse audit show` beside lines that somebody altered: each is judged by itself."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecluse.cli import main as cli
from ecluse.records import Actor, AuditRecord
from ecluse.state.audit_log import HashChainAudit
from tests.effort import examples


@pytest.fixture
def ecluse(capsys):
    def run(*words):
        code = cli.main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


LINE = b'{"seq":3,"event":"level","prev":"x","hash":"y",%s}\n'


@pytest.mark.parametrize(
    "line",
    [
        LINE % b'"at":7',
        LINE % b'"at":["x"]',
        LINE % b'"at":"9999-12-31T23:59:59.999999-23:59"',
        LINE % b'"at":"0001-01-01T00:00:00+23:59"',
        LINE % b'"actor":{"uid":[]},"what":{"a":[1]},"result":null',
        LINE % b'"what":"\\ud800"',
        LINE % (b'"what":' + b"[" * 900 + b"]" * 900),
        LINE % (b'"what":1e999,"reason":NaN'),
        b"\xff\xfe\n",
        b"[" * 8000 + b"\n",
        b"{}\n",
        b"\n",
    ],
)
def test_one_altered_line_hides_no_other(ecluse, tmp_path, line):
    """RED before: `audit show` ended with a traceback, and whoever altered a line had hidden them
    all.
    """
    path, lines = written_log(tmp_path, 5)
    path.write_bytes(b"".join([*lines[:2], line, *lines[3:]]))
    code, out, err = ecluse("audit", "show", str(path))
    assert code == 0
    shown = [row.split()[0] for row in out.splitlines() if row]
    assert [seq for seq in shown if seq != "3"] == ["SEQ", "1", "2", "4", "5"]
    assert "ecluse audit verify" in " ".join(err.split())
    code, out, err = ecluse("audit", "show", str(path), "--json")
    assert code == 0
    assert [row["seq"] for row in json.loads(out) if row["seq"] != 3] == [1, 2, 4, 5]
    assert ecluse("audit", "verify", str(path))[0] == 1


def written_log(tmp_path, number):
    path = tmp_path / "audit.log"
    log = HashChainAudit(path, lambda: datetime(2026, 11, 23, tzinfo=UTC))
    for n in range(number):
        log.append(AuditRecord("level", Actor(0, "root", 1, "ecluse"), f"to cut {n}", "why"))
    log.close()
    return path, path.read_bytes().splitlines(keepends=True)


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=examples(60),
)
@given(
    st.dictionaries(
        st.sampled_from(
            ["seq", "at", "event", "actor", "what", "reason", "result", "prev", "hash", "levels"]
        ),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(st.characters(exclude_categories=())),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_whatever_a_line_was_made_into_the_others_are_shown(ecluse, tmp_path, changes):
    path, lines = written_log(tmp_path, 4)
    path.with_suffix(".head").unlink()
    line = json.dumps(json.loads(lines[1]) | changes).encode() + b"\n"
    path.write_bytes(b"".join([lines[0], line, *lines[2:]]))
    for more in ([], ["--json"]):
        code, out, _ = ecluse("audit", "show", str(path), *more)
        assert code == 0
        assert all(f"to cut {n}" in out for n in (0, 2, 3))
    path.unlink()
    path.with_suffix(".head").unlink(missing_ok=True)
