"""What a long night costs.

Cut and open over and over, and how memory, files and answers are at its end.
"""

import os
import time

from tests.bench import site
from tests.bench.figures import Section
from tests.bench.gate import Gate
from tests.bench.rows_cost import memory

RATE = 3.0
"""Switches a second."""
SETTLED = 0.1
"""Share of the time after which memory is taken for the first figure: allocators and caches have
filled by then.
"""
KEPT = 50


def soak(section: Section, seconds: float) -> None:
    """Switch RATE times a second for so long.

    Give memory, first and last, state files, and the answers' times.
    """
    with Gate() as gate:
        daemon = gate.start_daemon(
            site.allowlist(site.addresses(1_000)), flags=("--keep-generations", str(KEPT))
        )
        began, number, answers, samples = time.monotonic(), 0, [], []
        while (passed := time.monotonic() - began) < seconds:
            answers.append(gate.level(("cut", "open")[number % 2]).ms)
            number += 1
            if passed >= SETTLED * seconds:
                samples.append(memory(daemon.pid, "VmRSS"))
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
        files = sum(len(names) for _, _, names in os.walk(daemon.state))
    who = f"{seconds / 60:.3g} minutes, {number:,} switches"
    section.add("resident memory, first", who, "MiB", samples[:1])
    section.add("resident memory, last", who, "MiB", samples[-1:])
    section.below("resident memory, grown", who, "MiB", [samples[-1] - samples[0]], 16)
    section.below(f"state files, {KEPT} generations kept", who, "", [files], 3 * KEPT)
    tenth = max(1, len(answers) // 10)
    section.add("answer, first tenth", who, "ms", answers[:tenth])
    section.add("answer, last tenth", who, "ms", answers[-tenth:])
