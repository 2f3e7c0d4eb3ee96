"""libnftables' words, as a person can read them."""

from ecluse.kernel.libnftables import refusal_text, shorten


def test_long_refusals_are_cut():
    told = shorten("\n".join(f"{n} {'x' * 150}" for n in range(50)))
    assert len(told) < 2100
    assert told.endswith("... and 30 more lines")
    assert shorten(" one\ntwo \n") == "one\ntwo"


def test_a_refusal_without_words_is_told_by_its_code():
    assert refusal_text(0, "") == ""
    assert refusal_text(-1, "") == "libnftables gave code -1 and no reason"
