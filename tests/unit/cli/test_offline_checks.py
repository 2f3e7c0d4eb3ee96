"""`check` and `audit` without a daemon."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecluse.records import Actor, AuditRecord
from ecluse.state.audit_log import HashChainAudit
from tests.effort import examples


def test_check(ecluse, tmp_path):
    code, out, err = ecluse("check", str(tmp_path / "nowhere"))
    assert code == 1
    assert "site.yaml" in out
    assert "nothing was changed. Mend them" in err
    (tmp_path / "allowlist.d").mkdir()
    (tmp_path / "site.yaml").write_text(
        "site: chu-example\ntitle: CHU\nzones:\n"
        "  - {name: care, title: Care, interfaces: [lan0], subnets: [10.10.0.0/16]}\n"
        "lifeline: {management: {networks: [10.90.0.0/24], ports: [tcp/22]}, presets: [dhcp]}\n"
        "resolvers: [192.0.2.53]\n"
    )
    service = tmp_path / "allowlist.d" / "10.yaml"
    text = (
        "services:\n  - name: laboratory\n    title: Lab\n    owner: Biology\n    contact: '1'\n"
        "    criticality: vital\n"
        "    zones: [care]\n    destinations: [{to: [results.lab.example], ports: [tcp/443]}]\n"
        "    review: 2020-01-31\n"
    )
    service.write_text(text)
    code, out, err = ecluse("check", str(tmp_path))
    assert (code, err) == (0, "")
    assert "no fault, 4 warnings: 1 service, 1 zone, 1 host name" in out
    assert "in order" not in out, "said only where there is nothing to say"
    assert out.count("warning: ") == 4
    code, out, _ = ecluse("check", str(tmp_path), "--json")
    assert (code, json.loads(out)["faults"], json.loads(out)["services"]) == (0, [], 1)
    service.write_text(text.replace("vital", "vitale"))
    _, _, err = ecluse("check", str(tmp_path))
    assert "1 fault; nothing was changed. Mend it and" in err
    service.write_text(text.replace("vital", "vitale").replace("tcp/443", "tcp/0"))
    code, out, _ = ecluse("check", str(tmp_path))
    assert code == 1
    assert "10.yaml:6:18: " in out
    assert "10.yaml:8:" in out
    code, out, _ = ecluse("check", str(tmp_path), "--json")
    assert (code, len(json.loads(out)["faults"])) == (1, 2)


def test_audit(ecluse, tmp_path):
    from datetime import UTC, datetime

    from ecluse.records import Actor, AuditRecord
    from ecluse.state.audit_log import HashChainAudit

    path = tmp_path / "audit.log"
    for verb in ("verify", "show"):
        code, _, err = ecluse("audit", verb, str(path))
        assert code == 5
        assert "no audit log" in err
        assert f"ecluse audit {verb} FILE" in err
    log = HashChainAudit(path, lambda: datetime(2026, 11, 23, tzinfo=UTC))
    for number in range(5):
        levels = {"care": "cut", "guests": "open"}
        log.append(
            AuditRecord(
                "level", Actor(0, "root", 1, "ecluse"), f"to cut {number}", "why", levels=levels
            )
        )
    log.close()
    code, out, _ = ecluse("audit", "verify", str(path))
    assert code == 0
    assert "5 records" in out
    code, out, _ = ecluse("audit", "show", str(path), "--limit", "2")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["SEQ", "4", "5"]
    assert "to cut 4; care cut, guests open" in out, "what a command came to"
    assert len(json.loads(ecluse("audit", "show", str(path), "--json")[1])) == 5
    path.write_text(path.read_text().replace("to cut 2", "to cut 9"))
    code, out, err = ecluse("audit", "verify", str(path))
    assert code == 1
    assert "line 3" in out
    assert "security officer" in " ".join(err.split())
    code, out, _ = ecluse("audit", "verify", str(path), "--json")
    assert (code, json.loads(out)["problems"][0]["line"]) == (1, 3)


def test_an_audit_log_that_this_user_may_not_read_says_who_may(ecluse, tmp_path, monkeypatch):
    path = tmp_path / "audit.log"
    path.write_text("")
    monkeypatch.setattr("os.access", lambda *_: False)
    for verb in ("verify", "show"):
        code, _, err = ecluse("audit", verb, str(path))
        assert code == 5
        assert "may not be read by this user" in " ".join(err.split())
        assert "run it as root (sudo)" in err


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
