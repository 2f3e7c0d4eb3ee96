"""Nothing that is shown can write on a terminal."""

from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.config.messages import escaped, is_printable


@given(st.text(max_size=8))
@example("\u00a0")
@example("\u2028")
def test_printable_text_is_printable(text):
    assert escaped(text) == "".join(c if is_printable(c) else ascii(c)[1:-1] for c in text)


def test_values_cannot_write_on_the_terminal(files):
    files.labs("title: Outside laboratory", 'title: Outside laboratory\n    "\\e]0;x\\a": 1')
    (fault,) = files.faults()
    assert "\x1b" not in fault
    assert "'\\x1b]0;x\\x07'" in fault
