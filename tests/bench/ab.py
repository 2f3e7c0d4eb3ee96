"""Two trees side by side: `python -m tests.bench.ab OLD_TREE NEW_TREE [--rounds N] [--size N]`.

As root, from a tree that has this file. Each tree's own daemon runs in gateways of its own, `open`
and `cut`; so each compiles and loads by its own code. Printed: the sender's processor time for each
packet (lanes.py), old : new, so above 1 the new tree is the cheaper; median and quartiles of the
rounds; then the API's cut under a stream of 10,000 packets/s: last packet outside, and answer, new
: old, so below 1 the new tree is the faster. A packet that was not delivered, or that got out at a
cut, ends the run: it is no figure. About 20 s, 2 s for each round, 0.3 s for each cut. `--cuts 0`
leaves the cuts out, `--rounds 0` the packets; `--kinds kept,replies` takes some kinds; TREE/src has
to be there, a virtual environment is not needed. Give the same tree twice to see the noise.
"""

import argparse
import math
from contextlib import ExitStack
from pathlib import Path

from tests.bench import lanes, site
from tests.bench.figures import number
from tests.bench.gate import Gate
from tests.bench.turns import Switches, cut_in_turns
from tests.lab import netns

LEVELS = ("open", "cut")
LAP = 20
"""Cuts of a tree until gateways are made anew."""


def start(gate: Gate, tree: Path, size: int, level: str = "open") -> None:
    """Start this tree's daemon, with an allowlist of this size, and bring it to a level."""
    environment = {"PYTHONPATH": f"{tree.resolve()}/src"}
    gate.start_daemon(site.allowlist(site.addresses(size)), environment=environment)
    if level != "open":
        gate.level(level)
        gate.wait_for_purge()


def packets(
    trees: dict[str, Path], size: int, rounds: int, count: int, kinds: tuple[str, ...]
) -> list[str]:
    """Give a line for each kind and level: ns of each tree, ratio with its quartiles."""
    lines = []
    with ExitStack() as stack:
        courses: dict[tuple[str, str], lanes.Lanes] = {}
        for level in LEVELS:
            for name, tree in trees.items():
                gate = stack.enter_context(Gate())
                start(gate, tree, size, level)
                lane = courses[name, level] = lanes.Lanes(gate, count, kinds)
                stack.callback(lane.close)
        found = lanes.in_turns(
            courses, kinds, rounds, lambda of, kind: of[1] == "cut" and lanes.refused_at_cut(kind)
        )
    old, new = trees
    for kind, costs in found.items():
        for level in LEVELS:
            one, other = costs[old, level], costs[new, level]
            low, middle, high = lanes.quartiles(lanes.ratios(one, other))
            before, after = (lanes.quartiles(values)[1] for values in (one, other))
            lines.append(
                f"{level:5} {kind:24} {before:7.0f} ns {after:7.0f} ns  "
                f"{middle:.3f} ({low:.3f} to {high:.3f})"
            )
    return lines


def cuts(trees: dict[str, Path], size: int, times: int) -> list[str]:
    """Cut by the API in turns; give lines for each tree and for the ratios.

    Gateways are made anew after each LAP cuts, the other tree's first: what a gateway owes to its
    place on the machine is no tree's.
    """
    found = {name: Switches() for name in trees}
    for lap in range(math.ceil(times / LAP)):
        names = list(trees) if lap % 2 == 0 else list(reversed(trees))
        with ExitStack() as stack:
            gates = {name: stack.enter_context(Gate()) for name in names}
            for name, gate in gates.items():
                start(gate, trees[name], size)
            cut_in_turns(gates, min(LAP, times - lap * LAP), found)
    lines = []
    for what, values in (
        ("last packet outside", {name: one.lasts for name, one in found.items()}),
        ("answer", {name: one.answers for name, one in found.items()}),
        ("opening again", {name: one.openings for name, one in found.items()}),
    ):
        for name, of_one in values.items():
            p99 = sorted(of_one)[math.ceil(0.99 * len(of_one)) - 1]
            middle = lanes.quartiles(of_one)[1]
            lines.append(
                f"{what}, {name}: median {number(middle)} ms, p99 {number(p99)} ms, "
                f"{len(of_one)} switches"
            )
        old, new = values.values()
        low, middle, high = lanes.quartiles(lanes.ratios(new, old))
        lines.append(
            f"{what}, new : old: {lanes.quartiles(new)[1] / lanes.quartiles(old)[1]:.3f} of the "
            f"medians; of the pairs {middle:.3f} ({low:.3f} to {high:.3f})"
        )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, default=1_000)
    parser.add_argument("--count", type=int, default=20_000, help="packets for each slice")
    parser.add_argument("--cuts", type=int, default=60)
    parser.add_argument("--kinds", default="", help="parts of the kinds' names, all if empty")
    args = parser.parse_args()
    trees = {"old": args.old, "new": args.new}
    for tree in trees.values():
        if not (tree / "src/ecluse").is_dir():
            parser.error(f"{tree}: no src/ecluse in it")
    netns.sweep()
    wanted = args.kinds.split(",")
    kinds = tuple(kind for kind in lanes.KINDS if any(part in kind for part in wanted))
    if args.rounds:
        print(*packets(trees, args.size, args.rounds, args.count, kinds), sep="\n", flush=True)
    if args.cuts:
        print(*cuts(trees, args.size, args.cuts), sep="\n")


if __name__ == "__main__":
    main()
