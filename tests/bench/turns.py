"""Cuts of several gateways in turns: what the machine does meanwhile falls on each of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tests.bench.gate import Cutting, Gate, measure_cut

Name = TypeVar("Name", bound=str)


@dataclass(slots=True)
class Switches:
    """What a gateway's switches took, in ms: last packet outside, answer, and opening again."""

    lasts: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    openings: list[float] = field(default_factory=list)


def cut_in_turns(
    gates: Mapping[Name, Gate], times: int, found: Mapping[Name, Switches], level: str = "cut"
) -> None:
    """Bring open gateways to a level and open them again, the order reversed each second time.

    Each has a first cut that warms it up and counts for nothing. RuntimeError where what was
    measured is no figure.
    """
    for name, gate in gates.items():
        switch(name, gate, level)
    for turn in range(times):
        order = list(gates.items())
        for name, gate in order if turn % 2 == 0 else reversed(order):
            cutting, opening = switch(name, gate, level)
            found[name].lasts.append(cutting.to_last or 0.0)
            found[name].answers.append(cutting.to_answer)
            found[name].openings.append(opening)


def switch(name: str, gate: Gate, level: str) -> tuple[Cutting, float]:
    """Cut once and open again; give what was measured, and the ms until the opening's answer.

    It is done once more where the machine held up the stream at that moment.
    """
    for _ in range(5):
        cutting = measure_cut(gate, lambda g: g.level(level))
        if cutting.to_last is None or cutting.leaked:
            raise RuntimeError(f"{name}: packets went out after the answer: {cutting}")
        gate.wait_for_purge()
        gate.wait_for_second_lock()
        opening = gate.level("open").ms
        gate.wait_for_purge()
        if cutting.flowed:
            return cutting, opening
    raise RuntimeError(f"{name}: the stream was held up at five cuts: nothing is measured")
