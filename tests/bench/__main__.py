"""`python -m tests.bench`: measure every row, print it, write the report.

It writes docs/benchmarks.md, docs/benchmarks.csv and the pictures, unless `--out` names another
folder. `--redraw` measures nothing: it draws the pictures from the data file that is there.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecluse.errors import EcluseError
from tests.bench import (
    contenders,
    figures,
    rows_cost,
    rows_cut,
    rows_dns,
    rows_flow,
    rows_forward,
    rows_looks,
    rows_packets,
    rows_soak,
    rows_switch,
)
from tests.bench.figures import Section, load_average
from tests.bench.site import SIZES
from tests.lab import netns
from tests.lab.hosts import ROOT

HOW = {
    "Time to cut": (
        "A stream of 10,000 packets a second is not kept. Measured: the time from sending the "
        "trigger to its last packet outside, and to the answer that the caller gets. Our "
        "answer comes verified and on disk (fsync). Peers cut IPv4 alone."
    ),
    "Rollback": (
        "`POST /v1/rollback` after each cut by the API, until its answer: verified and on disk."
    ),
    "Leak and loss": (
        "Hand-made frames of 64 flows in both families, counted by a witness outside with the "
        "kernel's time stamps."
    ),
    "Load": "From the start of the process until the API says `armed`. The site files are there.",
    "Client": "Whole processes, in turns, 1,000 entries.",
    "Memory and idle": "The daemon after a cut.",
    "A long night": "1,000 entries; cut and open in turns, three times a second.",
    "Purge": (
        "After the answer, connections that the level does not keep are deleted. The chains "
        "refuse their packets before that."
    ),
    "Refusal storm": (
        "5,000 sources of the guests' network send UDP to random addresses. All of it is refused. "
        "Processor time as in *Processor time for each packet*, the witness outside included."
    ),
    "DNS under a crowd": (
        "500 machines ask the DNS gate for random names that are not kept, 40 a second each "
        "(the limit of one machine is 50). Two others ask for kept names: one name that the "
        "gate has in its cache, and new names under a wildcard, whose addresses go into the "
        "kernel before the answer. No answer within a second counts as 1,000 ms."
    ),
    "Forwarding": (
        "Kept traffic through gateways that take turns, slice by slice. Packets: 64 bytes, 64 "
        "flows of UDP. New connections: UDP, a new flow for each packet. Throughput: one TCP "
        "stream. The ratio is to the slice with the table absent in the same round; the "
        "median of the rounds."
    ),
    "Processor time for each packet": (
        "The sender's own processor time, in turns, the order reversed each second round. The "
        "ratio is to a gateway without the table that tracks connections in both families. Every "
        "slice is counted where it arrives: one that was not delivered, or not refused, where it "
        "should have been, ends the row."
    ),
    "Second lock": (
        "The API's switch of gateways in turns, 1,000 entries, as in *Time to cut*. The lock "
        "stands before the next opening, which has to take it away first."
    ),
    "Zones": (
        "The same with 1, 5 and 20 zones, each of which keeps every service; then kept packets, "
        "as in *Processor time for each packet*."
    ),
    "What a look costs": (
        "The same packets through hand-written rulesets, in turns: the cost in nf_tables of "
        "each thing that is looked up."
    ),
}
"""What each section measures: title -> text."""


def _section(title: str) -> Section:
    return Section(title, HOW[title])


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be measured.

    sizes: in place of a row's own, if any. who: parts of contenders' names, all if empty. soak:
    minutes of the row `soak`.
    """

    quick: bool
    folder: Path
    sizes: tuple[int, ...]
    who: tuple[str, ...]
    soak: float

    def some(self, quick: Sequence[int], whole: Sequence[int] = SIZES) -> Sequence[int]:
        """Give the sizes that a row is measured at."""
        return self.sizes or (quick if self.quick else whole)


def _cut(wish: Wish) -> list[Section]:
    section = _section("Time to cut")
    commands = "; ".join(f"{one.name}: `{one.command}`" for one in contenders.CONTENDERS)
    section.remarks.append(f"Commands: {commands}.")
    rollback = _section("Rollback")
    taking_part = [
        one for one in contenders.CONTENDERS if not wish.who or any(w in one.name for w in wish.who)
    ]
    seconds, least = (0.5, 2) if wish.quick else (8.0, 3)
    rows_cut.cut(section, rollback, taking_part, wish.some(SIZES[:2]), seconds, (least, 200))
    return [section, rollback]


def _leak(wish: Wish) -> list[Section]:
    made = _section("Leak and loss")
    rows_flow.leak(made, 50 if wish.quick else 1000)
    rows_flow.loss(made, 50 if wish.quick else 2000, 3 if wish.quick else 1000)
    rows_flow.leak(made, 20 if wish.quick else 1000, both=True)
    rows_flow.loss(made, 20 if wish.quick else 1000, 3 if wish.quick else 20, both=True)
    return [made]


def _load(wish: Wish) -> list[Section]:
    made = _section("Load")
    rows_cost.load(made, 1 if wish.quick else 5, exact=wish.some((10_000,))[-1])
    rows_cost.dns(made, wish.some(SIZES[:1]), 2 if wish.quick else 10)
    return [made]


def _client(wish: Wish) -> list[Section]:
    made = _section("Client")
    rows_cost.client(made, 15 if wish.quick else 60)
    return [made]


def _idle(wish: Wish) -> list[Section]:
    made = _section("Memory and idle")
    rows_cost.idle(made, wish.some((1_000,), (1_000, 100_000)), 5.0 if wish.quick else 60.0)
    return [made]


def _soak(wish: Wish) -> list[Section]:
    made = _section("A long night")
    rows_soak.soak(made, wish.soak * 60.0)
    return [made]


def _purge(wish: Wish) -> list[Section]:
    made = _section("Purge")
    rows_cost.purge(made, 20_000 if wish.quick else 200_000)
    return [made]


def _storm(wish: Wish) -> list[Section]:
    made = _section("Refusal storm")
    rows_flow.storm(made, 1.0 if wish.quick else 5.0)
    return [made]


def _dns(wish: Wish) -> list[Section]:
    made = _section("DNS under a crowd")
    rows_dns.crowd(
        made, 1 if wish.quick else 2, 1.0 if wish.quick else 10.0, 2.0 if wish.quick else 20.0
    )
    return [made]


def _forward(wish: Wish) -> list[Section]:
    made = _section("Forwarding")
    rows_forward.forward(
        made,
        wish.some(SIZES[:2]),
        2 if wish.quick else 15,
        10_000 if wish.quick else 50_000,
        0.1 if wish.quick else 0.5,
    )
    return [made]


def _packets(wish: Wish) -> list[Section]:
    made = _section("Processor time for each packet")
    rounds, count = (2, 2_000) if wish.quick else (15, 20_000)
    states = rows_packets.every_state(wish.some(SIZES[:2]), 1_000)
    rows_packets.packets(made, states, rounds, count)
    return [made]


def _lock(wish: Wish) -> list[Section]:
    made = _section("Second lock")
    rows_switch.second_lock(made, 1_000, 5 if wish.quick else 60)
    return [made]


def _zones(wish: Wish) -> list[Section]:
    made = _section("Zones")
    slices = (2, 2_000) if wish.quick else (15, 20_000)
    rows_switch.zones(made, 1_000, 5 if wish.quick else 60, slices)
    return [made]


def _looks(wish: Wish) -> list[Section]:
    made = _section("What a look costs")
    rows_looks.looks(made, 3 if wish.quick else 15, 10_000 if wish.quick else 40_000)
    return [made]


ROWS: dict[str, Callable[[Wish], list[Section]]] = {
    "cut": _cut,
    "leak": _leak,
    "load": _load,
    "client": _client,
    "idle": _idle,
    "purge": _purge,
    "storm": _storm,
    "dns": _dns,
    "forward": _forward,
    "packets": _packets,
    "lock": _lock,
    "zones": _zones,
    "looks": _looks,
    "soak": _soak,
}
DEFAULT = tuple(name for name in ROWS if name != "soak")
"""All but the long night."""
LIMIT = 45.0
"""Minutes after which no further row begins. All of them take about half an hour."""


def main() -> int:
    """Run; 0 when all was measured, no peer missing, whether or not every target was reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes: small sizes, few rounds")
    parser.add_argument(
        "--rows", default=",".join(DEFAULT), help="which rows, by name: %(default)s; soak"
    )
    parser.add_argument(
        "--soak", type=float, default=30.0, help="minutes of the row soak (%(default)s)"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        help="minutes after which no further row begins (%(default)s); a row takes 1 to 8",
    )
    parser.add_argument(
        "--sizes",
        default="",
        help="entries of the allowlist, in place of the rows' own (10,1000,10000,100000)",
    )
    parser.add_argument(
        "--who", default="", help="who takes part in 'cut': parts of names, all if empty"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "docs",
        help="folder for the report, the data file and the pictures",
    )
    parser.add_argument(
        "--redraw", action="store_true", help="only draw the pictures, from benchmarks.csv"
    )
    args = parser.parse_args()
    if args.redraw:
        return int(not figures.draw_pictures(args.out, figures.read_data(args.out / figures.DATA)))
    if os.geteuid() != 0:
        print(
            "the benchmark needs root for its network namespaces: run it with sudo", file=sys.stderr
        )
        return 1
    unknown = set(args.rows.split(",")) - set(ROWS)
    if unknown:
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}; there are: {', '.join(ROWS)}")
    try:
        sizes = tuple(int(size) for size in args.sizes.split(",") if size)
    except ValueError:
        parser.error(f"--sizes: {args.sizes!r} is not a list of numbers")
    who = tuple(one for one in args.who.split(",") if one)
    wish = Wish(args.quick, args.out, sizes, who, args.soak)
    netns.sweep()
    args.out.mkdir(parents=True, exist_ok=True)
    versions = contenders.install()
    sections: list[Section] = []
    failed, start = False, time.monotonic()
    for name in args.rows.split(","):
        load, began = load_average(), time.monotonic()
        try:
            if began - start > args.limit * 60:
                raise RuntimeError(f"the {args.limit:g} minutes of --limit were over")
            made = ROWS[name](wish)
        except (RuntimeError, OSError, EcluseError) as error:
            # What was measured before it stands, and the rows after it are measured.
            made, failed = [Section(f"Row {name}", f"Could not be measured: {error}")], True
        took = time.monotonic() - began
        for section in made:
            section.load = load
            print(f"\n{section.title} ({took:.0f} s)\n{section.how}")
            print(figures.table(section.figures), *section.remarks, sep="\n", flush=True)
        sections += made
        made[0].took = took
        # After each row, so that an interrupted run leaves what it has.
        mode = "bench-quick" if args.quick else "bench"
        figures.write(args.out, sections, versions, mode)
    lacking = figures.absent(sections)
    if lacking:
        print("not measured:", *lacking, sep="\n", file=sys.stderr)
    return int(failed or bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
