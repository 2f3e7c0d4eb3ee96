"""Random sites and packets against this machine's kernel, for as long as somebody wants.

`python -m tests.kernel.oracle_night [--packets N] [--seed N] [--case N]`, as root, in network
namespaces of its own. Each case is a site with its packets (simulator_cases): the kernel, the
simulator and the words of the allowlist (simulator_meaning) have to agree on every verdict, counter
and record. A case on which they differ is made as small as it can be and printed with its number;
`--case` plays that one again. The same seed gives the same cases.
"""

import argparse
import platform
import random
import sys
import time
from collections import Counter

from tests.kernel.simulator_cases import case_of
from tests.kernel.simulator_mutants import MUTANTS
from tests.kernel.simulator_play import Play, Spoil
from tests.kernel.simulator_rig import Rig
from tests.kernel.simulator_shrink import smallest, wrong_of

MOST_FAILURES = 10
"""After so many the run ends: they are of one kind, as a rule."""

TELL_SECONDS = 60.0
"""How often it says how far it is."""


def main(words: list[str]) -> int:
    """Run; 0 when all agree, 1 when something differs."""
    asked = _arguments(words)
    print(f"kernel {platform.release()}, seed {asked.seed}", flush=True)
    spoil = MUTANTS[asked.mutant] if asked.mutant else None
    rig = Rig()
    try:
        if asked.case is not None:
            why = wrong_of(rig, case_of(asked.case), spoil)
            if why:
                _tell_difference(rig, asked.case, spoil, why)
            return 1 if why else 0
        return _night(rig, asked.packets, asked.seed, spoil)
    finally:
        rig.close()


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Random sites and packets against this kernel.")
    parser.add_argument("--packets", type=int, default=10_000_000, help="end after so many")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--case", type=int, help="play the case of this number alone")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="play with a wrong compiler")
    return parser.parse_args(words)


def _night(rig: Rig, packets: int, seed: int, spoil: Spoil | None) -> int:
    numbers, tally, failures = random.Random(seed), Counter[str](), 0
    told = time.monotonic()
    while tally["packets"] < packets and failures < MOST_FAILURES:
        number = numbers.getrandbits(64)
        tally["sites"] += 1
        try:
            Play(rig, case_of(number), tally, spoil).run()
        except AssertionError as error:
            failures += 1
            _tell_difference(rig, number, spoil, str(error))
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            _tell(tally, failures)
    _tell(tally, failures)
    return 1 if failures else 0


def _tell(tally: Counter[str], failures: int) -> None:
    print(
        f"{tally['packets']:,} packets, {tally['sites']:,} sites: {failures} differ",
        flush=True,
    )


def _tell_difference(rig: Rig, number: int, spoil: Spoil | None, why: str) -> None:
    """Print the smallest form of a case on which they differ."""
    case = case_of(number)
    if wrong_of(rig, case, spoil):
        case = smallest(case, lambda one: bool(wrong_of(rig, one, spoil)))
        why = wrong_of(rig, case, spoil) or why
    else:
        why += "\n(differed once, and not when it was played again)"
    print(f"case {number}:\n{why}\n{case}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
