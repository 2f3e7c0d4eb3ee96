"""What others wrote, the engine's log and the report: each row is judged by itself, and a bad one
hides and forges nothing.
"""

import json
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecluse.dnsproxy.denied_queries import DeniedQueries
from ecluse.dnsproxy.message_filter import Refusal
from ecluse.dnsproxy.process_report import parse

REAL, OTHER = "10.10.4.7", "10.10.9.9"


def line(name: str, client: str = REAL, kind: str = "A") -> bytes:
    """Write a question as dnsmasq 2.90 does."""
    return f"dnsmasq[7]: 12 {client}/4000 query[{kind}] {name} from {client}\n".encode("latin-1")


def read(*pieces: bytes) -> DeniedQueries:
    told = DeniedQueries(lambda _name, _kind: Refusal("name"))
    for piece in pieces:
        told.count_line(piece)
    return told


@pytest.mark.parametrize(
    "name",
    [
        f"x query[A] innocent.example from {OTHER}",
        f"innocent.example from {OTHER}",
        f"dnsmasq[7]: 13 {OTHER}/4000 query[A] innocent.example from {OTHER}",
        "<name unprintable>",
        "a b.example",
    ],
)
def test_who_asks_is_never_what_a_name_says(name):
    """RED before: a name with spaces was taken for another question, by another machine, or by no
    machine at all.
    """
    told = read(line(name), line("next.example"))
    assert [(row["client"], row["name"]) for row in told.told()] == [
        (REAL, name.lower()),
        (REAL, "next.example"),
    ] or [(row["client"], row["name"]) for row in told.told()] == [
        (REAL, "next.example"),
        (REAL, name.lower()),
    ]
    assert told.unread == 0


@pytest.mark.parametrize(
    "bad",
    [
        f"dnsmasq[7]: 12 {REAL}/4000 query[A] a.example from {OTHER}\n".encode(),
        b"dnsmasq[7]: 12 10.10.4.777/4000 query[A] a.example from 10.10.4.777\n",
        b"dnsmasq[7]: 12 dead:beef/4000 query[A] a.example from dead:beef\n",
        f"dnsmasq[7]: 12 {REAL}/4000 query[A] a.example from {REAL} \n".encode(),
        f"x dnsmasq[7]: 12 {REAL}/4000 query[A] a.example from {REAL}\n".encode(),
        line("\xff.example"),
        b"half a line, then another process: " + line("a.example"),
        b"\xff" * 5000 + line("a.example"),
    ],
)
def test_a_line_that_dnsmasq_would_not_write_counts_for_nobody(bad):
    told = read(bad, line("kept.example"))
    assert [row["name"] for row in told.told()] == ["kept.example"]


def test_what_counts_for_nobody_is_counted():
    mixed = f"dnsmasq[7]: 12 {REAL}/4000 query[A] a.example from {OTHER}\n".encode()
    assert read(mixed, line("a.example"), mixed).unread == 2


@settings(deadline=None)
@given(st.lists(st.binary(max_size=1500)), st.lists(st.integers(1, 4000), max_size=8))
@example([b"x" * 1200 + b" " + line("forged.example")[:-1]], [1100])
def test_the_log_can_be_cut_anywhere_and_whatever_stands_in_it_forges_nothing(noise, cuts):
    """Lines are printable (dnsmasq sees to that); pieces end anywhere."""
    printable = [bytes(32 + byte % 95 for byte in one) for one in noise]
    data = b"".join(line(one.decode()[:250] or "x") + line("kept.example") for one in printable)
    pieces, start = [], 0
    for cut in [*sorted(cuts), len(data)]:
        pieces.append(data[start:cut])
        start = max(start, cut)
    told = read(*pieces)
    assert all(row["client"] == REAL for row in told.told())
    assert told.total == 2 * len(printable)


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
    report = parse(json.dumps(GOOD).encode())
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
    report = parse(json.dumps(GOOD | {"questions": rows}).encode())
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
    report = parse(json.dumps(told).encode())
    assert [one.name for one in report.questions][-2:] == ["evil.example", "more.example"]
    for one in report.questions:
        assert str(ip_address(one.client)) == one.client
        json.dumps([one.name, one.type, one.why, one.times, one.last], allow_nan=False).encode()
    json.dumps(
        [*report.trouble, report.removed_last, dict(report.strained)], ensure_ascii=False
    ).encode()


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"starts": ' + b"9" * 5000 + b"}")
@example(b"[]")
@example(b"null")
def test_what_is_no_report_is_none(data):
    assert parse(data) is None or data.lstrip().startswith(b"{")
