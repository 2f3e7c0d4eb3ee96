"""What `ecluse status` says of the second lock."""

import io

import pytest

from ecluse.cli.second_lock_text import show_second_lock
from ecluse.cli.terminal import Screen

STANDS = {
    "setting": "isolate",
    "wanted": True,
    "stands": True,
    "why": "",
    "since": "2026-11-29T06:00:00Z",
    "devices": [
        {"device": "wan0", "kept": 12, "link": 3, "lost": 2},
        {"device": "idle0", "kept": 0, "link": 9, "lost": 0},
    ],
    "dropped": [
        {
            "source": "192.0.2.9",
            "destination": "198.51.100.80",
            "protocol": 6,
            "port": 443,
            "ethertype": 0,
            "packets": 1,
        },
        {
            "source": "02:00:00:00:00:09",
            "destination": "",
            "protocol": 0,
            "port": 0,
            "ethertype": 0x88CC,
            "packets": 1,
        },
    ],
    "dropped_full": False,
}


def shown(lock) -> str:
    out = io.StringIO()
    show_second_lock(Screen(out), lock)
    return out.getvalue()


def test_it_says_what_left_by_which_interface_and_what_was_dropped():
    text = shown(STANDS)
    assert "wan0: 12 packets to what is kept, 2 to others" in text
    assert "idle0" not in text
    assert "dropped 192.0.2.9 to 198.51.100.80, protocol 6 port 443 (1)" in text
    assert "dropped ethertype 0x88cc from 02:00:00:00:00:09 (1)" in text
    assert "nothing passed it" not in text


def test_it_says_that_nothing_left():
    text = shown(STANDS | {"devices": STANDS["devices"][1:], "dropped": []})
    assert "nothing passed it since then, but what links need" in text


def test_one_that_is_being_set_is_no_alarm():
    text = shown(STANDS | {"stands": False, "why": "it is being set", "being_set": True})
    assert text == "  2nd lock  being set: it stands in a moment\n"


@pytest.mark.parametrize(("wanted", "word"), [(True, "MISSING: refused"), (False, "no: refused")])
def test_one_that_does_not_stand_says_why(wanted, word):
    text = shown(STANDS | {"stands": False, "wanted": wanted, "why": "refused"})
    assert word in text
    assert "wan0" not in text
