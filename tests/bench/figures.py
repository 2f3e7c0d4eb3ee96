"""Figures of a run, and the report, the data file and the pictures that are made from them.

A run writes three things into its folder: `benchmarks.md` for people, `benchmarks.csv` with every
row, and the pictures.
"""

import csv
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

REPORT, DATA = "benchmarks.md", "benchmarks.csv"
CUT_PICTURE, FORWARDING_PICTURE = "benchmark-cut.svg", "benchmark-forwarding.svg"


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of one thing: `values` in `unit`, in the order of the rounds.

    who: the contender or the state. size: entries of the allowlist, 0 where it does not matter.
    target: in words, empty when there is none; met: None when there is none. note: what a reader
    has to know.
    """

    what: str
    who: str
    size: int
    unit: str
    values: tuple[float, ...]
    target: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else math.nan

    def quantile(self, share: float) -> float:
        ordered = sorted(self.values)
        return (
            ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
            if ordered
            else math.nan
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the data file: a figure without its single values.

    Numbers are texts, rounded to three figures that count; empty where there is none.
    entries: size of the allowlist. reached: "yes" or "no", empty where there is no target.
    """

    section: str
    what: str
    who: str
    entries: str
    unit: str
    median: str
    min: str
    max: str
    p99: str
    n: str
    target: str
    reached: str
    note: str

    @property
    def size(self) -> int:
        return int(self.entries or 0)

    @property
    def points(self) -> tuple[float, float, float]:
        """Give median, minimum and maximum as numbers."""
        return float(self.median), float(self.min), float(self.max)

    @property
    def value(self) -> str:
        """Write the median for a person."""
        return f"{number(float(self.median))} {self.unit}".rstrip()


@dataclass
class Section:
    """A row of the issue: its figures, and what is said of them.

    took: seconds of its measurement; 0 where they stand in the section before it.
    """

    title: str
    how: str
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    load: str = ""
    took: float = 0.0

    def add(self, what: str, who: str, unit: str, values: Sequence[float], **more) -> Figure:
        """Add a figure. Further keywords as in Figure; `size` is 0 if left out."""
        made = Figure(what, who, more.pop("size", 0), unit, tuple(values), **more)
        self.figures.append(made)
        return made

    def below(
        self, what: str, who: str, unit: str, values: Sequence[float], most: float, **more
    ) -> Figure:
        """Add a figure whose median has to stay under `most`."""
        made = Figure(what, who, 0, unit, tuple(values))
        return self.add(
            what,
            who,
            unit,
            values,
            target=f"< {number(most)} {unit}",
            met=made.median < most,
            **more,
        )

    def find(self, what: str, who: str, size: int = 0) -> Figure | None:
        return next((f for f in self.figures if (f.what, f.who, f.size) == (what, who, size)), None)


def absent(sections: Sequence[Section]) -> list[str]:
    """Name who should have been measured and was not: a run that lacks a peer is not whole."""
    return [
        f"{section.title}: {f.who}: {f.note}"
        for section in sections
        for f in section.figures
        if f.note.startswith(("missing", "failed"))
    ]


def number(value: float) -> str:
    """Write a number with three figures that count."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def table(figures: Sequence[Figure]) -> str:
    """Write figures as a table of Markdown."""
    lines = [
        "| what | who | entries | median | min | max | p99 | n | target | reached |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for f in figures:
        size = f"{f.size:,}" if f.size else ""
        if f.values:
            p99 = number(f.quantile(0.99)) if len(f.values) >= 100 else ""
            cells = [
                f"{number(f.median)} {f.unit}",
                number(min(f.values)),
                number(max(f.values)),
                p99,
            ]
        else:
            cells = [f.note or "not measured", "", "", ""]
        met = {True: "yes", False: "**no**", None: ""}[f.met]
        note = f" ({f.note})" if f.note and f.values else ""
        count = str(len(f.values) or "")
        line = (f.what, f"{f.who}{note}", size, *cells, count, f.target, met)
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def load_average() -> str:
    return " ".join(Path("/proc/loadavg").read_text(encoding="ascii").split()[:3])


def machine() -> str:
    """Say what it was measured on; nothing that names the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    nft = subprocess.run(
        ["nft", "--version"], capture_output=True, text=True, check=False
    ).stdout.split()[1]
    kernel = platform.release().split("-")[0]
    return (
        f"{os.cpu_count()} cores ({model}), {memory} GiB, kernel {kernel}, "
        f"nftables {nft.lstrip('v')}, Python {platform.python_version()}"
    )


def _rounded(value: float) -> str:
    return number(value).replace(",", "")


def rows(sections: Sequence[Section]) -> Iterator[Row]:
    """Give the lines of the data file."""
    for section in sections:
        for f in section.figures:
            numbers = ("", "", "", "", "")
            if f.values:
                p99 = _rounded(f.quantile(0.99)) if len(f.values) >= 100 else ""
                low, high = _rounded(min(f.values)), _rounded(max(f.values))
                numbers = (_rounded(f.median), low, high, p99, str(len(f.values)))
            reached = {True: "yes", False: "no", None: ""}[f.met]
            size = str(f.size) if f.size else ""
            note = f.note if f.values else f.note or "not measured"
            yield Row(section.title, f.what, f.who, size, f.unit, *numbers, f.target, reached, note)


def write_data(path: Path, all_rows: Sequence[Row]) -> None:
    """Write every row, numbered from 1, as comma-separated values (RFC 4180)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", *(column.name for column in fields(Row))])
        writer.writerows([number, *astuple(row)] for number, row in enumerate(all_rows, 1))


def read_data(path: Path) -> list[Row]:
    """Read what `write_data` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(**{column.name: line[column.name] for column in fields(Row)})
            for line in csv.DictReader(file)
        ]


@dataclass(frozen=True, slots=True)
class Headline:
    """One of the ten lines that a report begins with.

    what, who: how the row's texts begin. best: picks the best of the peers, None without peers.
    """

    says: str
    section: str
    what: str
    who: str
    size: int = 0
    best: Callable[..., Row] | None = None

    def find(self, all_rows: Sequence[Row]) -> tuple[int, Row, Row | None] | None:
        """Give the number of our row, the row, and the best peer's; None if it was not measured."""
        here = [
            (number, row)
            for number, row in enumerate(all_rows, 1)
            if (row.section, row.size) == (self.section, self.size)
            and row.what.startswith(self.what)
            and row.median
        ]
        ours = next((one for one in here if one[1].who.startswith(self.who)), None)
        if ours is None:
            return None
        peers = [
            row for _, row in here if row.what == ours[1].what and not row.who.startswith("Écluse")
        ]
        best = self.best(peers, key=lambda row: row.points[0]) if self.best and peers else None
        return *ours, best


_LAST, _CUT, _COMMAND = "last packet outside", "Écluse, API call", "Écluse, whole command"
HEADLINES = (
    Headline(
        "last packet out after a cut by the API, 1,000 entries",
        "Time to cut", _LAST, _CUT, 1_000, min,
    ),
    Headline(
        "the same, 100,000 entries",
        "Time to cut", _LAST, _CUT, 100_000, min,
    ),
    Headline(
        "its answer, verified and on disk (peers do neither)",
        "Time to cut", "answer", _CUT, 1_000, min,
    ),
    Headline(
        "last packet out after the whole command `ecluse cut`",
        "Time to cut", _LAST, _COMMAND, 1_000, min,
    ),
    Headline(
        "packets out after the answer of a cut",
        "Leak and loss", "packets outside after the answer", "not kept",
    ),
    Headline(
        "kept packets lost by switches and reloads",
        "Leak and loss", "packets sent and not seen outside", "kept",
    ),
    Headline(
        "start of the daemon with 100,000 addresses",
        "Load", "cold start to armed", "100,000 exact addresses",
    ),
    Headline(
        "memory of the daemon, 1,000 entries",
        "Memory and idle", "resident memory", "eclused", 1_000,
    ),
    Headline(
        "answer for a new kept name beside 20,000 questions a second",
        "DNS under a crowd", "answer for a kept name", "new under a wildcard, with the crowd",
    ),
    Headline(
        "kept packets of 64 bytes at a cut; 1 is without any table",
        "Forwarding", "packets of 64 bytes: ratio to absent", "Écluse, cut", 1_000, max,
    ),
)  # fmt: skip


def summary(all_rows: Sequence[Row]) -> str:
    """Write the ten lines: ours, the best peer, the limit, and the row of the data file."""
    lines = [
        "| what | ours | best peer | limit | reached | row |",
        "|---|--:|---|--:|---|--:|",
    ]
    for one in HEADLINES:
        found = one.find(all_rows)
        if found is None:
            lines.append(f"| {one.says} | not measured in this run | | | | |")
            continue
        number, ours, peer = found
        beside = f"{peer.value} ({peer.who})" if peer else ""
        reached = {"no": "**no**"}.get(ours.reached, ours.reached)
        lines.append(
            f"| {one.says} | {ours.value} | {beside} | {ours.target} | {reached} | {number} |"
        )
    return "\n".join(lines)


def write(folder: Path, sections: Sequence[Section], versions: dict[str, str], mode: str) -> None:
    """Write the report, the data file and the pictures."""
    all_rows = list(rows(sections))
    write_data(folder / DATA, all_rows)
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    write_report(folder, sections, all_rows, f"{machine()}. Peers: {peers}.", mode)


def write_report(
    folder: Path, sections: Sequence[Section], all_rows: Sequence[Row], where: str, mode: str
) -> None:
    """Write the report and the pictures.

    where: machine and peers, in words.
    """
    parts = [
        "# Benchmarks",
        f"Written by `make {mode}` (`tests/bench/`). Do not edit.",
        summary(all_rows),
        (
            f"`row` is the number of the row in [{DATA}]({DATA}), which has every figure.\n"
            "Absolute times are those of one machine. What carries over is the ratio between rows\n"
            "of one section: they were measured in one run, in turns. Each contender had its own\n"
            "gateway in network namespaces, the same stream and the same witness outside.\n"
            f"The run took {sum(one.took for one in sections) / 60:.0f} minutes."
        ),
        f"Machine: {where}",
        *(f"![{name}]({name})" for name in draw_pictures(folder, all_rows)),
        "## The sections",
    ]
    first = 1
    for section in sections:
        mine = [row for row in all_rows if row.section == section.title]
        where_rows = f" Rows {first} to {first + len(mine) - 1}." if mine else ""
        load = f" Load average before: {section.load}." if section.load else ""
        took = f" Took {section.took:.0f} s." if section.took else ""
        parts.append(f"**{section.title}.** {section.how}{where_rows}{took}{load}")
        parts += [f"- {remark}" for remark in section.remarks]
        first += len(mine)
    parts.append(NOTES.read_text(encoding="utf-8").rstrip())
    text = "\n\n".join(parts) + "\n"
    (folder / REPORT).write_text(text, encoding="utf-8")


NOTES = Path(__file__).with_name("notes.md")
"""What was not reached and why, by hand: it stands at the end of every report."""

Curves = dict[str, dict[int, tuple[float, float, float]]]


def draw_pictures(folder: Path, all_rows: Sequence[Row]) -> list[str]:
    """Draw the pictures of the rows that there are; give their names, none without matplotlib."""
    cut: Curves = {}
    forwarding: Curves = {}
    for row in all_rows:
        if not row.median:
            continue
        if (row.section, row.what) == ("Time to cut", _LAST):
            cut.setdefault(row.who, {})[row.size] = row.points
        if row.section == "Forwarding" and row.who == "Écluse, cut":
            what, ratio, _ = row.what.partition(": ratio to absent")
            if ratio:
                forwarding.setdefault(f"Écluse, {what}", {})[row.size] = row.points
    drawn = []
    title = "From the trigger to the last packet outside"
    if cut and draw(folder / CUT_PICTURE, title, "ms", cut):
        drawn.append(CUT_PICTURE)
    title = "Kept traffic at `cut`, table absent = 1"
    if forwarding and draw(folder / FORWARDING_PICTURE, title, "ratio", forwarding, log=False):
        drawn.append(FORWARDING_PICTURE)
    return drawn


def draw(path: Path, title: str, ylabel: str, curves: Curves, *, log: bool = True) -> bool:
    """Draw curves over the number of entries: median, and minimum to maximum as bars.

    False when matplotlib is missing.
    """
    try:
        import matplotlib as mpl

        mpl.use("svg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    # The same figures give the same bytes, and no time of day stands in the file.
    plt.rcParams["svg.hashsalt"] = "ecluse"
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    for name, points in curves.items():
        xs = sorted(points)
        ys = [points[x][0] for x in xs]
        spread = [
            [points[x][0] - points[x][1] for x in xs],
            [points[x][2] - points[x][0] for x in xs],
        ]
        ours = name.startswith("Écluse")
        axes.errorbar(
            xs, ys, yerr=spread, label=name, marker="o", capsize=3, linewidth=2.5 if ours else 1.2
        )
    axes.set_xscale("log")
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel="entries of the allowlist", ylabel=ylabel, title=title)
    axes.grid(visible=True, which="both", alpha=0.25)
    # Below the axes: inside them it would cover lines.
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True
