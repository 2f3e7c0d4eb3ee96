"""Closings without the daemon: appended durably, read line by line, never trusted further."""

from datetime import timedelta

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
