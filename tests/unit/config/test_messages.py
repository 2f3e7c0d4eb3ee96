"""Nothing that is shown can write on a terminal."""


def test_values_cannot_write_on_the_terminal(files):
    files.labs("title: Outside laboratory", 'title: Outside laboratory\n    "\\e]0;x\\a": 1')
    (fault,) = files.faults()
    assert "\x1b" not in fault
    assert "'\\x1b]0;x\\x07'" in fault
