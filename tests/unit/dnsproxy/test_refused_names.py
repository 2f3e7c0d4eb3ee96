"""Refused names from dnsmasq's log: counted, bounded, and forged by no line."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecluse.dnsproxy.message_filter import Refusal
from ecluse.dnsproxy.rate_limit import MOST_NAMES, NewNameLimit
from ecluse.dnsproxy.refused_names import MOST, MOST_CLIENTS, MOST_ROWS, RefusedNames


def refused() -> RefusedNames:
    return RefusedNames(lambda name, _kind: None if name == "kept.example" else Refusal("name"))


def test_the_tally_counts_who_asked_across_pieces_of_the_log():
    told = refused()
    line = (
        b"dnsmasq[7]: 12 10.10.4.7/4000 query[TXT] Evil.example from 10.10.4.7\n"
        b"dnsmasq[7]: 12 10.10.4.7/4000 config error is REFUSED\n"
    )
    told.count_lines(line[:40])
    told.count_lines(line[40:] + line.replace(b"Evil", b"kept") + line)
    assert [(r["client"], r["name"], r["type"], r["times"]) for r in told.rows()] == [
        ("10.10.4.7", "evil.example", "TXT", 2)
    ]
    assert told.total == 2


def test_the_tally_is_bounded_and_what_is_asked_often_stays():
    told = refused()
    often = b"dnsmasq[7]: 3 10.10.4.8/4000 query[A] often.example from 10.10.4.8\n"
    told.count_lines(often * 50)
    line = b"dnsmasq[7]: 3 10.10.4.9/4000 query[TXT] n%d.tunnel.example from 10.10.4.9\n"
    told.count_lines(b"".join(line % n for n in range(3 * MOST)))
    assert len(told._asked) <= MOST
    assert told.rows()[0]["name"] == "often.example"
    assert told.clients["10.10.4.9"] == 3 * MOST


def machine(number: int) -> tuple[int, int, int]:
    return number % 100_000 >> 16, number % 100_000 >> 8 & 255, number & 255


def test_a_million_names_of_a_hundred_thousand_machines_are_held_within_the_bounds():
    """What memory a flood can take: counted, not timed.

    All that the gate's process keys by what a machine chose.
    """
    told, names = refused(), NewNameLimit()
    names.set_rate(10_000)
    most = {"pairs": 0, "machines": 0, "names": 0, "rest": 0}
    for start in range(0, 1_000_000, 20_000):
        numbers = range(start, start + 20_000)
        told.count_lines(
            b"\n"
            + b"".join(
                b"dnsmasq[7]: 1 10.%d.%d.%d/7 query[A] n%d.nobody.example from 10.%d.%d.%d\n"
                % (*machine(n), n, *machine(n))
                for n in numbers
            )
            + b"x" * 5_000
        )
        for n in numbers:
            names.allows(f"n{n}.operator.example", "operator.example", start / 10_000)
        now = (len(told._asked), len(told.clients), len(names._seen), len(told._rest))
        most = {key: max(before, one) for (key, before), one in zip(most.items(), now, strict=True)}
    assert told.total == 1_000_000, "none is passed over"
    assert most["pairs"] <= MOST
    assert most["machines"] == MOST_CLIENTS
    assert MOST_NAMES <= most["names"] <= MOST_NAMES + 1
    assert most["rest"] <= 1_000
    assert len(names._buckets) == 1
    assert len(told.rows()) == MOST_ROWS


REAL, OTHER = "10.10.4.7", "10.10.9.9"


def line(name: str, client: str = REAL, kind: str = "A") -> bytes:
    """Write a question as dnsmasq 2.90 does."""
    return f"dnsmasq[7]: 12 {client}/4000 query[{kind}] {name} from {client}\n".encode("latin-1")


def read(*pieces: bytes) -> RefusedNames:
    told = RefusedNames(lambda _name, _kind: Refusal("name"))
    for piece in pieces:
        told.count_lines(piece)
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
    assert [(row["client"], row["name"]) for row in told.rows()] == [
        (REAL, name.lower()),
        (REAL, "next.example"),
    ] or [(row["client"], row["name"]) for row in told.rows()] == [
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
    assert [row["name"] for row in told.rows()] == ["kept.example"]


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
    assert all(row["client"] == REAL for row in told.rows())
    assert told.total == 2 * len(printable)
