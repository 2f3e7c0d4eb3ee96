"""What a plan shows of two ruleset texts: every line that goes and comes, and no change hidden."""

import difflib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ecluse.controller.table.text_diff import difference

HEADS = ("\tchain k2.forward {", "\tmap k2.kept4 {", "\tset refused4 {")


line = st.sampled_from(
    ["\t\tgoto k2.open", '\t\t\t192.0.2.1 : "svc",', '\t\t\t192.0.2.2 : "svc",', "\t\taccept"]
)


@st.composite
def texts(draw):
    parts = ["table inet ecluse {"]
    for head in draw(st.lists(st.sampled_from(HEADS), unique=True)):
        parts += [head, *draw(st.lists(line, max_size=6)), "\t}"]
    return "\n".join(
        [
            *parts,
            "}",
            *draw(st.lists(st.sampled_from(["flush chain a", "add rule a"]), max_size=3)),
            "",
        ]
    )


@given(texts(), texts())
def test_what_goes_and_comes_makes_one_text_into_the_other(old, new):
    told = difference(old, new)
    assert bool(told) == (old != new) or Counter(old.splitlines()) == Counter(new.splitlines())
    gone = Counter(one[1:] for one in told[2:] if one[0] == "-")
    come = Counter(one[1:] for one in told[2:] if one[0] == "+")
    plain = [Counter(one.replace("\t", "  ") for one in text.splitlines()) for text in (old, new)]
    assert plain[0] - gone == plain[1] - come
    assert not gone - plain[0]
    assert not come - plain[1]


@given(texts())
def test_nothing_differs_from_itself(text):
    assert difference(text, text) == []


def test_it_shows_what_difflib_shows_of_elements_that_change():
    old = (
        "table inet ecluse {\n\tmap m {\n" + "".join(f"\t\t{n},\n" for n in range(50)) + "\t}\n}\n"
    )
    new = old.replace("\t\t7,\n", "\t\t70,\n").replace("\t\t49,\n", "")
    wanted = [
        one.replace("\t", "  ")
        for one in difflib.unified_diff(
            old.splitlines(), new.splitlines(), "live", "planned", n=0, lineterm=""
        )
        if not one.startswith("@@")
    ]
    assert sorted(difference(old, new)) == sorted(wanted)


def test_rules_that_only_change_their_order_are_shown():
    old = "table inet ecluse {\n\tchain c {\n\t\taccept\n\t\tdrop\n\t}\n}\n"
    new = "table inet ecluse {\n\tchain c {\n\t\tdrop\n\t\taccept\n\t}\n}\n"
    told = difference(old, new)
    assert {"-    accept", "-    drop", "+    accept", "+    drop"} <= set(told)


def test_a_rule_that_moves_to_another_chain_is_shown():
    old = "table inet ecluse {\n\tchain a {\n\t\tdrop\n\t}\n\tchain b {\n\t}\n}\n"
    new = "table inet ecluse {\n\tchain a {\n\t}\n\tchain b {\n\t\tdrop\n\t}\n}\n"
    assert difference(old, new)[2:] == ["-    drop", "+    drop"]
