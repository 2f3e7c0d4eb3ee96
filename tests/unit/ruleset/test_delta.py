"""Element changes between two programs, or None where a fresh load is needed."""

from dataclasses import replace

from ecluse.ruleset.delta import delta
from ecluse.ruleset.program import ACCEPT, Chain, NamedSet, Program


def program(*elements, interval=False, value="counter"):
    types = ("inet_service",)
    named = NamedSet("k1_m", types, interval, value, {((e,)): "svc_a" for e in elements})
    return Program(1, ("svc_a",), (named,), ())


def test_equal_programs_differ_by_nothing():
    assert not delta(program((1, 1)), program((1, 1)))


def test_what_goes_and_what_comes():
    change = delta(program((1, 1), (2, 2)), program((2, 2), (3, 3)))
    assert [list(named.elements) for named in change.gone] == [[((1, 1),)]]
    assert [list(named.elements) for named in change.come] == [[((3, 3),)]]
    assert change.sets() == {"k1_m"}


def test_an_interval_that_overlaps_what_it_replaces_needs_a_fresh_load():
    before, after = program((1, 5), interval=True), program((3, 9), interval=True)
    assert delta(before, after) is None
    assert delta(before, program((6, 9), interval=True))


def test_what_is_more_than_elements_needs_a_fresh_load():
    one = program((1, 1))
    assert delta(one, replace(one, slot=2)) is None
    assert delta(one, replace(one, counters=())) is None
    assert delta(one, replace(one, chains=(Chain("k1_x", ((ACCEPT,),)),))) is None
    assert delta(one, replace(one, sets=())) is None
    assert delta(program((1, 1), value=""), program((2, 2), value="")) is None
