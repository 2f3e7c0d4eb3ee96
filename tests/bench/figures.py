"""Figures and what is written of them: medians with minimum and maximum, ratios within one run,
tables and pictures.
"""

import math
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


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


@dataclass
class Section:
    """A row of the issue: its figures, and what is said of them."""

    title: str
    how: str
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    load: str = ""

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
        lines.append(
            f"| {f.what} | {f.who}{note} | {size} | {' | '.join(cells)} | {len(f.values) or ''} | {f.target} | {met} |"
        )
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
    return (
        f"{os.cpu_count()} cores ({model}), {memory} GiB, kernel {platform.release().split('-')[0]}, "
        f"nftables {nft.lstrip('v')}, Python {platform.python_version()}"
    )


def write(path: Path, sections: Sequence[Section], versions: dict[str, str], mode: str) -> None:
    """Write the report."""
    parts = [
        "# Benchmarks",
        f"Written by `make {mode}`; `tests/bench/` is how. Do not edit.",
        (
            "Absolute times are those of one machine. What carries over is the ratio between lines of one table: they were\n"
            "measured in one run, taking turns. Every contender had a gateway of its own in network namespaces, the same\n"
            "stream and the same witness on the internet side; every command was started the same way."
        ),
        f"- Machine: {machine()}.",
        f"- Peers: {', '.join(f'{name} {version}' for name, version in versions.items())}.",
    ]
    for section in sections:
        parts += [
            f"## {section.title}",
            section.how + (f" Load average before: {section.load}." if section.load else ""),
        ]
        if section.figures:
            parts.append(table(section.figures))
        parts += [f"- {remark}" for remark in section.remarks]
        parts += [f"![{name}]({name})" for name in section.pictures]
    parts.append(NOTES.read_text(encoding="utf-8").rstrip())
    text = "\n\n".join(parts) + "\n"
    path.write_text(
        text.replace("\n\n- ", "\n- ").replace(".\n- Machine", ".\n\n- Machine"), encoding="utf-8"
    )


NOTES = Path(__file__).with_name("notes.md")
"""What was not reached and why, by hand: it stands at the end of every report."""

Curves = dict[str, dict[int, tuple[float, float, float]]]


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
    figure, axes = plt.subplots(figsize=(8, 5))
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
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True
