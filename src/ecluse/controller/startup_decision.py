"""The state to bring up at start: never less closed than what was answered. Pure."""

from dataclasses import dataclass

from ecluse.policy import (
    CUT,
    OPEN,
    Levels,
    Site,
    at_least_as_closed,
    complete_levels,
    most_closed,
)
from ecluse.ports import Recovered
from ecluse.records import Generation


@dataclass(frozen=True, slots=True)
class StartupDecision:
    """The state to bring up.

    generation: the recorded one whose policy to use, None when there is none to read.
    recorded: these levels are that generation's, so that nothing new has to be written.
    why: in words, empty when nothing was odd.
    """

    levels: Levels
    generation: Generation | None
    recorded: bool
    why: tuple[str, ...]


def decide(
    site: Site, zones: tuple[str, ...], found: Recovered, kernel: Levels | None
) -> StartupDecision:
    """Choose among the record, the boot ruleset, the audit log and the kernel's own gates.

    A closing is in the kernel before it is on disk, an opening after; so where sources differ, the
    most closed whole state was either the old one or the new one of a change that nobody was told
    was done. Where none is the most closed (a change that opened one zone and closed another), one
    side of the change stands whole.
    """
    if found.first_install and kernel is None:
        return StartupDecision(dict.fromkeys(zones, OPEN.name), None, recorded=False, why=())
    sources: list[tuple[str, Levels]] = []
    if found.recorded:
        sources.append(("the newest readable record", found.recorded.levels))
    if found.boot_levels:
        sources.append(("the boot ruleset", found.boot_levels))
    if found.audit_levels:
        sources.append(("the audit log", found.audit_levels))
    if kernel:
        sources.append(("the kernel", kernel))
    if found.closed_by_hand:
        # Last: where the kernel shows it too, the kernel is the witness. After a reboot this may be
        # the only one.
        sources.append(("a closing without the daemon", dict.fromkeys(zones, found.closed_by_hand)))
    if not sources:
        why = "nothing of the state before could be read: every zone is cut"
        return StartupDecision(dict.fromkeys(zones, CUT.name), None, recorded=False, why=(why,))
    if found.damage and not (
        found.boot_levels or found.audit_levels or kernel or found.closed_by_hand
    ):
        # The newest record that can be read need not be the newest there was.
        closed = most_closed(site, sources[0][1], dict.fromkeys(zones, CUT.name))
        why = (
            "the records are damaged and nothing else says what the state was: "
            "every zone is at least cut"
        )
        return StartupDecision(
            complete_levels(site, zones, closed), found.recorded, recorded=False, why=(why,)
        )
    return _among(site, zones, found, sources)


def _among(
    site: Site, zones: tuple[str, ...], found: Recovered, sources: list[tuple[str, Levels]]
) -> StartupDecision:
    record = found.recorded
    for name, levels in sources:
        if all(at_least_as_closed(site, levels, other) for _, other in sources):
            same = record is not None and dict(record.levels) == dict(levels)
            why = (
                ()
                if same
                else (f"{name} was more closed than the newest readable record, and was followed",)
            )
            before = _generation_with(found, levels)
            whole = complete_levels(site, zones, levels)
            return StartupDecision(
                whole, record if same else before, recorded=same and whole == dict(levels), why=why
            )
    whole_state = _either_side(found, sources)
    if whole_state is not None and not found.damage:
        why_whole = f"a change was interrupted; generation {whole_state.number} stands whole"
        levels = complete_levels(site, zones, whole_state.levels)
        return StartupDecision(
            levels, whole_state, recorded=whole_state == record, why=(why_whole,)
        )
    closed = most_closed(site, *(levels for _, levels in sources))
    why_closed = "the sources disagree: every zone is as closed as the most closed of them says"
    return StartupDecision(
        complete_levels(site, zones, closed), record, recorded=False, why=(why_closed,)
    )


def _before_intent(found: Recovered) -> Generation | None:
    """Give the record of the state before a change that was begun and not recorded."""
    if found.intent is None or (found.recorded and found.intent.number <= found.recorded.number):
        return None
    return found.generations.get(found.intent.previous)


def _either_side(found: Recovered, sources: list[tuple[str, Levels]]) -> Generation | None:
    """Give the state to restore whole after an interrupted change that opened and closed.

    Not recorded yet: the state before it. Recorded, and another file not yet: the recorded one.
    None when the sources say more than the two sides of one change.
    """
    before = _before_intent(found)
    if before is not None or found.recorded is None:
        return before
    previous = found.generations.get(found.recorded.previous)
    sides = [dict(g.levels) for g in (found.recorded, previous) if g]
    return found.recorded if all(dict(levels) in sides for _, levels in sources) else None


def _generation_with(found: Recovered, levels: Levels) -> Generation | None:
    """Find the record of these levels, and so of their policy, among the last two."""
    before = _before_intent(found)
    if before is None and found.recorded is not None:
        before = found.generations.get(found.recorded.previous)
    if before is not None and dict(before.levels) == dict(levels):
        return before
    return found.recorded
