"""The report of the process: each row is judged by itself, and a bad one hides no other."""

import json
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecluse.dnsproxy.process_report import parse_report

REAL, OTHER = "10.10.4.7", "10.10.9.9"


GOOD = {
    "trouble": ["learned addresses could not be saved"],
    "starts": 1,
    "learned": 3,
    "refused": 7,
    "removed": 1,
    "adopted": 2,
    "unread": 4,
    "removed_last": "203.0.113.66 in dns_all_4",
    "strained": {"private": 5},
    "questions": [
        {
            "client": REAL,
            "name": "evil.example",
            "type": "A",
            "why": "name",
            "times": 3,
            "last": 1.5,
        },
        {
            "client": "2001:db8::7",
            "name": "more.example",
            "type": "A",
            "why": "name",
            "times": 2,
            "last": 2,
        },
    ],
}


def test_a_whole_report_is_read_whole():
    report = parse_report(json.dumps(GOOD).encode())
    assert report.trouble == tuple(GOOD["trouble"])
    assert (report.starts, report.learned, report.refused, report.removed, report.adopted) == (
        1,
        3,
        7,
        1,
        2,
    )
    assert report.unread == 4
    assert [one.client for one in report.questions] == [REAL, "2001:db8::7"]


@pytest.mark.parametrize(
    "bad",
    [
        {"client": "no address"},
        {"client": REAL + "\n"},
        {"client": 7},
        {"name": "\ud800.example"},
        {"name": None},
        {"times": -1},
        {"times": True},
        {"times": 1e300},
        {"last": float("inf")},
        {"last": float("nan")},
        {"last": 10**400},
        {"type": ["A"]},
    ],
)
def test_one_bad_row_costs_that_row_and_is_said(bad):
    """RED before: the command failed for everybody (HTTP 500), or the whole report was lost."""
    rows = [GOOD["questions"][0] | bad, GOOD["questions"][1], "no row", None]
    report = parse_report(json.dumps(GOOD | {"questions": rows}).encode())
    assert [one.name for one in report.questions] == ["more.example"]
    assert report.unread == 4 + 3
    assert any("3 rows" in text for text in report.trouble)
    assert report.learned == 3


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from([REAL, 10**400, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*GOOD, *GOOD["questions"][0]]), inner)
    ),
    max_leaves=15,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(GOOD)), ANYTHING), st.lists(ANYTHING, max_size=4))
def test_whatever_a_report_says_its_good_rows_come_and_go_on(changes, rows):
    told = GOOD | changes | {"questions": [*rows, *GOOD["questions"]]}
    report = parse_report(json.dumps(told).encode())
    assert [one.name for one in report.questions][-2:] == ["evil.example", "more.example"]
    for one in report.questions:
        assert str(ip_address(one.client)) == one.client
        json.dumps([one.name, one.type, one.why, one.times, one.last], allow_nan=False).encode()
    json.dumps(
        [*report.trouble, report.removed_last, dict(report.filtered)], ensure_ascii=False
    ).encode()


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"starts": ' + b"9" * 5000 + b"}")
@example(b"[]")
@example(b"null")
def test_what_is_no_report_is_none(data):
    assert parse_report(data) is None or data.lstrip().startswith(b"{")
