"""Bare words: what is text, and what is unclear."""

from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.config import (
    yaml_scalars,
)
from tests.unit.config.strategies import WRITTEN

NUMBERS = st.from_regex(r"[-+.0-9_:eEtTzZx /]{0,24}", fullmatch=True)


WORDS = st.text(max_size=12) | NUMBERS | WRITTEN | st.floats().map(str) | st.datetimes().map(str)


@given(WORDS)
@example("1.2.3")
@example("2001:db8::1")
@example("1:20:30.5")
@example("2026-11-01 10:00:00.5")
@example("<<")
def test_a_bare_word_is_taken_for_what_the_resolver_takes_it_for(text):
    assert yaml_scalars.read_bare(text) == yaml_scalars._resolved(text)
