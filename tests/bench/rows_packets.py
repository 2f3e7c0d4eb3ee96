"""Processor time for each packet, of every kind, beside a gateway without the table."""

from collections.abc import Sequence
from contextlib import ExitStack

from tests.bench import lanes, site
from tests.bench.figures import Section
from tests.bench.gate import Gate

ABSENT = ("table absent", 0)


def packets(section: Section, sizes: Sequence[int], rounds: int, count: int) -> None:
    """Measure `open` at the first size and `cut` at each, in turns."""
    states = [("Écluse, open", sizes[0]), *(("Écluse, cut", size) for size in sizes)]
    with ExitStack() as stack:
        courses: dict[tuple[str, int], lanes.Lanes] = {}
        for name, size in (ABSENT, *states):
            gate = stack.enter_context(Gate())
            if (name, size) == ABSENT:
                gate.hospital.nft(lanes.TRACKED)
            else:
                gate.start_daemon(site.allowlist(site.addresses(size)))
                if name == "Écluse, cut":
                    gate.level("cut")
                    gate.wait_for_purge()
            courses[name, size] = lanes.Lanes(gate, count)
        found = lanes.in_turns(courses, lanes.KINDS, rounds)
    for kind, costs in found.items():
        section.add(f"{kind}: a packet", *ABSENT[:1], "ns", costs[ABSENT])
        for name, size in states:
            ratios = lanes.ratios(costs[ABSENT], costs[name, size])
            low, _, high = lanes.quartiles(ratios)
            note = f"quartiles {low:.3f} to {high:.3f}"
            section.add(f"{kind}: a packet", name, "ns", costs[name, size], size=size)
            section.add(f"{kind}: absent / this", name, "", ratios, size=size, note=note)
