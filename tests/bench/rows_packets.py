"""Processor time for each packet, of every kind, beside a gateway without the table."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.bench import lanes, site
from tests.bench.figures import Section
from tests.bench.gate import Gate


@dataclass(frozen=True, slots=True)
class State:
    """A gateway: who it is in the report, entries of its allowlist, level, zones, keys of its site.

    level: None without our daemon. zones: 0 for the lab's.
    """

    who: str
    size: int = 0
    level: str | None = None
    zones: int = 0
    more: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)

    def prepare(self, gate: Gate) -> None:
        """Bring a gateway to this state."""
        if self.level is None:
            gate.hospital.nft(lanes.TRACKED)
            return
        made = site.zones(self.zones) if self.zones else site.only_care()
        names = [zone["name"] for zone in made["zones"]] if self.zones else ["care"]
        entries = site.allowlist(site.addresses(self.size), zones=names)
        gate.start_daemon(entries, site=made | self.more)
        if self.level != "open":
            gate.level(self.level)
            gate.wait_for_purge()
            gate.wait_for_second_lock()

    def refuses(self, kind: str) -> bool | None:
        """Say whether packets of a kind are to be refused here; None: it makes no sense here."""
        if self.level == "isolate" and kind not in AT_ISOLATE:
            return None
        return self.level not in (None, "open") and lanes.refused_at_cut(kind)


AT_ISOLATE = (lanes.INSIDE4, lanes.INSIDE6, lanes.OTHER4, lanes.OTHER6)
"""Nothing that leads outside is kept there."""
ABSENT = State("table absent")
_NO_LOCK, _LOCK = {"second_lock": "off"}, {"second_lock": "cut"}


def every_state(sizes: Sequence[int], lock_size: int) -> list[State]:
    """Give `open`, `cut` at each size, and both closed levels with the second lock and without."""
    return [
        State("Écluse, open", lock_size, "open"),
        *(State("Écluse, cut", size, "cut") for size in sizes),
        State("Écluse, cut, second lock", lock_size, "cut", more=_LOCK),
        State("Écluse, isolate, no second lock", lock_size, "isolate", more=_NO_LOCK),
        State("Écluse, isolate, second lock", lock_size, "isolate"),
    ]


def packets(
    section: Section,
    states: Sequence[State],
    rounds: int,
    count: int,
    kinds: tuple[str, ...] = lanes.KINDS,
) -> None:
    """Measure these states in turns, beside a gateway without the table."""
    with ExitStack() as stack:
        courses: dict[State, lanes.Lanes] = {}
        for state in (ABSENT, *states):
            gate = stack.enter_context(Gate())
            state.prepare(gate)
            courses[state] = lanes.Lanes(gate, count, kinds)
            stack.callback(courses[state].close)
        found = lanes.in_turns(courses, kinds, rounds, State.refuses)
    for kind, costs in found.items():
        section.add(f"{kind}: a packet", ABSENT.who, "ns", costs[ABSENT])
        for state in states:
            if not costs[state]:
                continue
            ratios = lanes.ratios(costs[ABSENT], costs[state])
            low, _, high = lanes.quartiles(ratios)
            note = f"quartiles {low:.3f} to {high:.3f}"
            section.add(f"{kind}: a packet", state.who, "ns", costs[state], size=state.size)
            section.add(f"{kind}: absent / this", state.who, "", ratios, size=state.size, note=note)
