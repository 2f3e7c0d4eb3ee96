"""What the second lock and the number of zones do to a switch and to kept packets."""

from collections.abc import Sequence
from contextlib import ExitStack

from tests.bench import lanes, rows_packets
from tests.bench.figures import Section
from tests.bench.gate import Gate
from tests.bench.rows_packets import State
from tests.bench.turns import Switches, cut_in_turns

ZONES = (1, 5, 20)
KINDS = (lanes.KEPT4, lanes.KEPT6, lanes.REPLY4, lanes.NEW4)


def second_lock(
    section: Section, size: int, times: int, levels: Sequence[str] = ("cut", "isolate")
) -> None:
    """Switch with the second lock and without, to each of these levels."""
    for level in levels:
        states = [
            State(f"{level}, no second lock", size, "open", more={"second_lock": "off"}),
            State(f"{level}, second lock", size, "open", more={"second_lock": level}),
        ]
        _switch(section, states, times, level)


def zones(
    section: Section,
    size: int,
    times: int,
    slices: tuple[int, int],
    numbers: Sequence[int] = ZONES,
    kinds: tuple[str, ...] = KINDS,
) -> None:
    """Switch to `cut` with so many zones, and send kept packets through each.

    slices: rounds, and packets of each slice.
    """
    names = {number: f"{number} zone{'s' if number > 1 else ''}" for number in numbers}
    _switch(section, [State(names[n], size, "open", n) for n in numbers], times, "cut")
    closed = [State(names[n], size, "cut", n) for n in numbers]
    rows_packets.packets(section, closed, *slices, kinds)


def _switch(section: Section, states: Sequence[State], times: int, level: str) -> None:
    found = {state.who: Switches() for state in states}
    with ExitStack() as stack:
        gates: dict[str, Gate] = {}
        for state in states:
            gates[state.who] = stack.enter_context(Gate())
            state.prepare(gates[state.who])
        cut_in_turns(gates, times, found, level)
    first = found[states[0].who]
    for state in states:
        one = found[state.who]
        for what, values, beside in (
            ("last packet outside", one.lasts, first.lasts),
            ("answer", one.answers, first.answers),
            ("opening again", one.openings, first.openings),
        ):
            section.add(what, state.who, "ms", values, size=state.size)
            if one is not first:
                title = f"{what}: this / {states[0].who}"
                section.add(title, state.who, "", lanes.ratios(values, beside), size=state.size)
