"""Closings without the daemon: appended durably, read line by line, never trusted further."""

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from ecluse.errors import StateError
from ecluse.records import Actor
from ecluse.state import offline_closings
from tests.unit.state import samples

CLOSINGS = [
    offline_closings.OfflineClosing(
        samples.NOW + timedelta(days=1, minutes=number),
        level,
        "/x/cut.nft",
        Actor(0, "root", 1, "ecluse"),
        "why",
        "",
    )
    for number, level in enumerate(("cut", "isolate"))
]


def test_a_note_after_a_torn_one_counts(tmp_path):
    path = tmp_path / "by-hand.log"
    offline_closings.append_closing(path, CLOSINGS[0])
    path.write_bytes(path.read_bytes()[:-20])
    offline_closings.append_closing(path, CLOSINGS[1])
    found, unread = offline_closings.read_closings(path)
    assert [one.level for one in found] == ["isolate"]
    assert unread


def test_closings_come_back_and_foreign_lines_are_counted(tmp_path):
    path = tmp_path / "by-hand.log"
    assert offline_closings.read_closings(path) == ((), "")
    for closing in CLOSINGS:
        offline_closings.append_closing(path, closing)
    with path.open("ab") as file:
        file.write(b"hello\n{}\n")
    assert offline_closings.read_closings(path) == (tuple(CLOSINGS), "2 lines cannot be read")
    record = CLOSINGS[0].audit_record()
    assert (record.event, record.reason) == ("by-hand", "why")
    assert record.what.startswith("cut without the daemon at ")


def test_nobody_opens_without_the_daemon(tmp_path):
    path = tmp_path / "by-hand.log"
    offline_closings.append_closing(path, replace(CLOSINGS[0], level="open"))
    assert offline_closings.read_closings(path) == ((), "1 lines cannot be read")


@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_a_planted_file_is_not_written_to(tmp_path, kind):
    victim, path = tmp_path / "victim", tmp_path / "by-hand.log"
    victim.write_bytes(b"mine")
    path.symlink_to(victim) if kind == "link" else os.link(victim, path)
    with pytest.raises(StateError):
        offline_closings.append_closing(path, CLOSINGS[0])
    assert victim.read_bytes() == b"mine"


def test_the_newest_closing_counts_unless_a_generation_came_after_it():
    assert offline_closings.level_since(CLOSINGS, None) == "isolate"
    assert offline_closings.level_since(reversed(CLOSINGS), None) == "isolate"
    later = replace(samples.generation(1), at=CLOSINGS[0].at)
    assert offline_closings.level_since(CLOSINGS[:1], later) == ""
    assert offline_closings.level_since(CLOSINGS, later) == "isolate"
    assert offline_closings.level_since((), None) == ""
