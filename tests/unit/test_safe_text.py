import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.safe_text import escape_unsafe, is_safe, replace_unsafe, single_line

UNSAFE = "\x00\x07\n\r\t\x1b\x7f\x9b\u00ad\u200b\u2028\u2029\u202e\ue000\ufeff\ud800\U000e0001"


@pytest.mark.parametrize("character", UNSAFE, ids=ascii)
def test_what_may_move_a_cursor_or_turn_a_line_is_unsafe(character):
    assert not is_safe(character)
    assert escape_unsafe(character) == ascii(character)[1:-1]
    assert replace_unsafe(character, 9) == "?"
    assert single_line(f"a{character}b") == "a b"


@pytest.mark.parametrize("text", ["", "caf\u00e9 \u6c34", "a\u00a0b", "\\x1b", "'\""])
def test_what_is_safe_stays(text):
    assert escape_unsafe(text) == replace_unsafe(text, 99) == text


@given(st.text(max_size=8))
@example("\u00a0")
@example("\u2028")
def test_the_fast_way_gives_what_the_slow_one_does(text):
    assert escape_unsafe(text) == "".join(c if is_safe(c) else ascii(c)[1:-1] for c in text)
    assert replace_unsafe(text, 5) == "".join(c if is_safe(c) else "?" for c in text[:5])
    assert single_line(text) == " ".join("".join(c if is_safe(c) else " " for c in text).split())


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_unsafe_is_left(text):
    for made in (escape_unsafe(text), replace_unsafe(text, 50), single_line(text)):
        kinds = {unicodedata.category(c) for c in made}
        assert not {kind for kind in kinds if kind[0] == "C"} | (kinds & {"Zl", "Zp"})


def test_it_is_cut():
    assert replace_unsafe("a\u202eb\x00\n\u00e9", 10) == "a?b??\u00e9"
    assert replace_unsafe("x" * 50, 10) == "x" * 10
    assert len(replace_unsafe("x" * 5000)) == 1000
