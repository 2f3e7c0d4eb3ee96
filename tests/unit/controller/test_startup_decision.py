"""What is brought up at start: the old state or the new one, never a mix, never less closed than
what was answered.
"""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ecluse.controller.startup_decision import decide
from ecluse.policy import at_least_as_closed, carry_over
from ecluse.ports import Recovered
from ecluse.records import Action, Actor, Generation
from tests.unit.controller.machine import CUT, OPEN
from tests.unit.ruleset.policies import SITE, ZONES, levels


def found(*, old=None, new=None, boot=None, audit=None, intent=None, damage=(), first=False):
    generations = {g.number: g for g in (old, new) if g}
    newest = generations[max(generations)] if generations else None
    return Recovered(first, generations, newest, boot, audit, intent, tuple(damage))


def choose(recovered, kernel=None):
    return decide(SITE, ZONES, recovered, kernel)


def test_first_install_is_open():
    assert choose(found(first=True)).levels == OPEN


def test_first_install_beside_a_closed_kernel_is_closed():
    assert choose(found(first=True), CUT).levels == CUT


WHO = Actor(0, "root", 1, "test")


def generation(number, at_levels, policy="sha256:p"):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Generation(
        number, now, Action.LEVEL, at_levels, policy, "sha256:r", WHO, "", "", number - 1
    )


def test_all_agree_nothing_new_is_recorded():
    decision = choose(found(old=generation(1, CUT), boot=CUT, audit=CUT), CUT)
    assert (decision.levels, decision.recorded, decision.why) == (CUT, True, ())


def test_a_closing_that_was_only_in_the_kernel_is_followed():
    decision = choose(found(old=generation(1, OPEN), boot=OPEN, audit=OPEN), CUT)
    assert decision.levels == CUT
    assert not decision.recorded


def test_an_opening_that_was_only_in_the_kernel_is_not_followed():
    new = generation(2, OPEN)
    decision = choose(found(old=generation(1, CUT), boot=CUT, audit=CUT, intent=new), OPEN)
    assert (decision.levels, decision.recorded) == (CUT, True)


def test_an_opening_recorded_and_not_pointed_to_by_boot_falls_back():
    new = generation(2, OPEN)
    decision = choose(found(old=generation(1, CUT), new=new, boot=CUT, audit=CUT, intent=new), OPEN)
    assert decision.levels == CUT
    assert decision.generation.number == 1


MIXED_A = {**OPEN, "care": "cut"}


MIXED_B = {**OPEN, "guests": "cut"}


def test_a_change_that_closed_one_zone_and_opened_another_is_undone_whole():
    old, new = generation(1, MIXED_A), generation(2, MIXED_B)
    decision = choose(found(old=old, boot=MIXED_A, audit=MIXED_A, intent=new), MIXED_B)
    assert (decision.levels, decision.recorded) == (MIXED_A, True)
    for boot, audit in [(MIXED_A, MIXED_A), (MIXED_B, MIXED_A), (MIXED_B, MIXED_B)]:
        decision = choose(found(old=old, new=new, boot=boot, audit=audit), MIXED_B)
        assert (decision.levels, decision.recorded) == (MIXED_B, True)


def test_damage_and_nothing_else_to_read_is_cut():
    decision = choose(found(old=generation(1, OPEN), damage=["generation 2 is corrupt"]))
    assert decision.levels == CUT
    assert decision.why
    assert choose(found(damage=["all gone"])).levels == CUT


def test_damage_with_an_intact_boot_ruleset_follows_it():
    recovered = found(old=generation(1, OPEN), boot=MIXED_A, damage=["generation 2 is corrupt"])
    assert choose(recovered).levels == MIXED_A
    assert choose(replace(recovered, boot_levels=OPEN)).levels == OPEN


maybe = st.none() | levels


@given(maybe, maybe, maybe, maybe, st.booleans())
def test_never_less_closed_than_any_source_unless_an_old_whole_state_is_restored(
    record, boot, audit, kernel, damaged
):
    recovered = found(
        old=generation(1, record) if record else None,
        boot=boot,
        audit=audit,
        damage=["x"] if damaged else [],
    )
    decision = choose(recovered, kernel)
    for source in (record, boot, audit, kernel):
        assert source is None or at_least_as_closed(SITE, decision.levels, source)
    assert set(decision.levels) == set(ZONES)


@given(levels)
def test_a_new_zone_is_as_closed_as_the_most_closed(before):
    after = carry_over(SITE, (*ZONES, "new"), before)
    assert at_least_as_closed(
        SITE,
        {"new": after["new"]},
        {"new": max(before.values(), key=["open", "reduced", "cut", "isolate"].index)},
    )
    assert {z: after[z] for z in ZONES} == before


def test_a_level_that_a_reload_takes_away_becomes_cut():
    fewer = replace(SITE, levels=tuple(level for level in SITE.levels if level.name != "reduced"))
    assert carry_over(fewer, ZONES, OPEN | {"care": "reduced"}) == OPEN | {"care": "cut"}
