"""The DNS proxy's part of what `ecluse status` shows."""

from ecluse.cli.format import count_of
from ecluse.dnsproxy.status_text import show

WELL = {
    "working": True,
    "refused": 1,
    "removed": 0,
    "removed_last": "",
    "adopted": 0,
    "validating": [],
}


class Screen:
    def __init__(self):
        self.lines = []

    def line(self, text="", style=""):
        self.lines.append((text, style))

    def wrapped(self, label, text, style=""):
        self.lines.append((label.strip() + text, style))


def shown(**changes):
    screen = Screen()
    show(screen, WELL | changes, count_of)
    return screen.lines


def test_one_line_where_nothing_is_odd():
    assert shown() == [("  dns gate  answers for what is kept; 1 question refused", "")]


def test_a_proxy_that_does_not_answer_stands_out():
    assert shown(working=False, refused=1204) == [
        ("  dns gate  DOES NOT ANSWER; 1,204 questions refused", "bad")
    ]


def test_what_is_odd_follows_with_what_to_type():
    lines = shown(removed=2, removed_last="203.0.113.66 in dns_all_4", adopted=1,
                  validating=["10.10.0.53"])  # fmt: skip
    taken, proofs, left = [text for text, _ in lines[1:]]
    assert taken.startswith("2 addresses that somebody else put into its sets taken out")
    assert "203.0.113.66 in dns_all_4" in taken
    assert proofs.startswith("10.10.0.53: validates DNSSEC")
    assert "rndc nta" in proofs
    assert left.startswith("1 address kept that no record tells of")
