"""Time to cut beside the peers, and rollback: A B A B, in one run, at every size."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack

from tests.bench.contenders import CONTENDERS, FLOOR, OURS, PRODUCT, Contender, back
from tests.bench.figures import Section, number
from tests.bench.gate import Cutting, Gate, measure_cut

LAST, ANSWER, BACK = "last packet outside", "answer", "rollback, API call"
API, COMMAND = CONTENDERS[0].name, CONTENDERS[1].name


def _gates(
    stack: ExitStack, contenders: Sequence[Contender], size: int, section: Section
) -> list[tuple[Contender, Gate]]:
    """Give who takes part at a size, each with a gateway that is open.

    Who can't is said in the table.
    """
    made: dict[str, Gate | str] = {}
    found = []
    for one in contenders:
        if size > one.most:
            note = f"not tried: takes minutes beyond {one.most:,} rules"
            section.add(LAST, one.name, "ms", (), size=size, note=note)
            continue
        if one.shares not in made:
            try:
                gate = stack.enter_context(Gate())
                one.prepare(gate, size)
                made[one.shares] = gate
            except (RuntimeError, OSError) as error:
                if one.kind == OURS:
                    raise
                made[one.shares] = f"missing: {str(error)[-120:]}".replace("\n", " ")
        gate = made[one.shares]
        if isinstance(gate, str):
            section.add(LAST, one.name, "ms", (), size=size, note=gate)
        else:
            found.append((one, gate))
    return found


def _rounds(
    taking_part: Sequence[tuple[Contender, Gate]], seconds: float, rounds: tuple[int, int]
) -> tuple[dict[str, list[Cutting]], list[float], dict[str, str]]:
    """Measure in turns until everyone has used `seconds` (ours three times as much), within the
    least and most rounds.

    Give the cuts, the rollbacks in ms, and why a peer dropped out.
    """
    least, most = rounds
    failed: dict[str, str] = {}
    results: dict[str, list[Cutting]] = defaultdict(list)
    spent: dict[str, float] = defaultdict(float)
    backs: list[float] = []
    playing = list(taking_part)
    while playing:
        for one, gate in playing:
            began = time.monotonic()
            try:
                _round(one, gate, results[one.name], backs)
            except RuntimeError as error:
                if one.kind == OURS:
                    raise
                failed[one.name] = f"failed: {str(error)[-120:]}".replace("\n", " ")
            spent[one.name] += time.monotonic() - began
        playing = [
            (one, gate)
            for one, gate in playing
            if one.name not in failed
            and len(results[one.name]) < most
            and (
                spent[one.name] < seconds * (3 if one.kind == OURS else 1)
                or len(results[one.name]) < least
            )
        ]
    return results, backs, failed


def _round(one: Contender, gate: Gate, cuttings: list[Cutting], backs: list[float]) -> None:
    cutting = measure_cut(gate, one.cut)
    if cutting.flowed:
        cuttings.append(cutting)
    if one.name != API:
        one.reopen(gate)
        return
    gate.wait_for_purge()
    backs.append(back(gate).ms)
    gate.wait_for_purge()


def cut(
    section: Section,
    rollback: Section,
    contenders: Sequence[Contender],
    sizes: Sequence[int],
    seconds: float,
    rounds: tuple[int, int],
) -> None:
    """Fill both sections."""
    for size in sizes:
        with ExitStack() as stack:
            taking_part = _gates(stack, contenders, size, section)
            results, backs, failed = _rounds(taking_part, seconds, rounds)
        for one, _gate in taking_part:
            _note(section, one, size, results[one.name], failed.get(one.name, ""))
        if backs:
            rollback.below(BACK, "Écluse", "ms", backs, 10, size=size)
        _compare(section, size)
    _growth(section, sizes)


def _note(
    section: Section, one: Contender, size: int, cuttings: list[Cutting], problem: str
) -> None:
    lasts = [c.to_last for c in cuttings if c.to_last is not None]
    went_on = len(cuttings) - len(lasts)
    note = f"went on after the answer in {went_on} of {len(cuttings)}" if went_on else problem
    if one.name == API:
        section.below(LAST, one.name, "ms", lasts, 5, size=size, note=note)
        figure = section.below(
            ANSWER, one.name, "ms", [c.to_answer for c in cuttings], 5, size=size
        )
        p99 = figure.quantile(0.99)
        section.add(
            f"{ANSWER}, p99", one.name, "ms", [p99], size=size, target="< 20 ms", met=p99 < 20
        )
    elif one.name == COMMAND:
        section.below(LAST, one.name, "ms", lasts, 50, size=size, note=note)
        section.add(ANSWER, one.name, "ms", [c.to_answer for c in cuttings], size=size)
    else:
        section.add(LAST, one.name, "ms", lasts, size=size, note=note)
        section.add(ANSWER, one.name, "ms", [c.to_answer for c in cuttings], size=size)
    if one.kind == OURS and (leaked := sum(c.leaked for c in cuttings)):
        section.remarks.append(
            f"{one.name}, {size:,} entries: {leaked} packets outside after the answer."
        )


def _compare(section: Section, size: int) -> None:
    """Hold ours against every peer of the same size."""
    ours, command = section.find(LAST, API, size), section.find(LAST, COMMAND, size)
    if ours is None or command is None:
        return
    for one in CONTENDERS:
        peer = section.find(LAST, one.name, size)
        if one.kind == OURS or peer is None or not peer.values:
            continue
        ratio = ours.median / peer.median
        what = f"API call : {one.name}"
        section.add("ratio of medians", what, "", [ratio], size=size, target="< 1", met=ratio < 1)
        ratio, limit = command.median / peer.median, {PRODUCT: 1.0, FLOOR: 5.0}.get(one.kind)
        # A script that loads everything is neither a product nor the floor: no target for the whole
        # command.
        goal = {"target": f"< {number(limit)}", "met": ratio < limit} if limit else {}
        section.add(
            "ratio of medians", f"whole command : {one.name}", "", [ratio], size=size, **goal
        )


def _growth(section: Section, sizes: Sequence[int]) -> None:
    if len(sizes) < 2:
        return
    for who in (API, COMMAND):
        for what in (LAST, ANSWER):
            few, many = (section.find(what, who, size) for size in (sizes[0], sizes[-1]))
            if few and many and few.values and many.values:
                ratio = many.median / few.median
                title = f"{what}: {sizes[-1]:,} to {sizes[0]:,} entries"
                section.add(title, who, "", [ratio], target="<= 1.5", met=ratio <= 1.5)
