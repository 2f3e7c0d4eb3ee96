"""How much the tests try: a sample by default, everything with `ECLUSE_TESTS=thorough`.

Samples are drawn by `ECLUSE_TEST_SEED`, which pytest prints at its start: set it to get the same
sample again.
"""

import os
import random
from collections.abc import Iterable

THOROUGH = os.environ.get("ECLUSE_TESTS", "") == "thorough"

# Into the environment, so that the workers of pytest-xdist draw the same samples.
SEED = int(os.environ.setdefault("ECLUSE_TEST_SEED", str(random.SystemRandom().getrandbits(32))))


def examples(number: int) -> int:
    """Give how many examples hypothesis tries of a test worth `number` of them."""
    return number if THOROUGH else max(10, number // 4)


def sampled(every: Iterable[int], always: Iterable[int], number: int, salt: str) -> list[int]:
    """Give `number` random ones of `every`, and those of `always` that are among it; sorted.

    salt: what the sample is for, so that two tests draw differently by one seed.
    """
    population = sorted(set(every))
    if THOROUGH or len(population) <= number:
        return population
    drawn = random.Random(f"{SEED} {salt}").sample(population, number)
    return sorted({*drawn, *set(always).intersection(population)})
