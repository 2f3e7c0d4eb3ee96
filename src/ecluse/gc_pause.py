"""Keep Python's cycle collector cheap beside a large allowlist."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

BULK_SECONDS = 0.05
"""Seconds after which what was made is taken for bulk: so many values that looking through them
takes too long.
"""
MAX_OLD_OBJECTS = 30_000
"""Old objects that one sweep looks through: some milliseconds, for which it holds every thread."""
_MAX_PASSED_OVER = 3
"""Sweeps that are left out for more than that (a connection table that was just read) before those
are left alone for good.
"""
_SECONDS_BETWEEN = 1.0

_young_only = threading.Event()


@contextmanager
def without_gc() -> Iterator[None]:
    """Pause the cycle collector while many values are made.

    It would look through all of them, again and again, and find nothing. For the whole process, so
    for bulk work of seconds at most. Nested or in two threads at once, it is on again when the
    first block that found it on has ended. In a daemon (`collect_young_only`), the bulk that was
    made so is never looked through later; it goes with its last reference, since it has no
    cycles.
    """
    was_on = gc.isenabled()
    began = time.monotonic()
    if was_on and _young_only.is_set() and began - _sweeper.at >= _SECONDS_BETWEEN:
        collect_if_small()  # what is garbage now would be left alone with the rest
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if _young_only.is_set() and time.monotonic() - began >= BULK_SECONDS:
                gc.freeze()
            gc.enable()


def collect_young_only() -> None:
    """From now on collect young garbage only, and ignore all objects that exist.

    Old garbage is collected by `collect_if_small`. A full collection over a large allowlist would
    stop every thread for 0.3 s, at any moment.
    """
    gc.freeze()
    gc.set_threshold(700, 10, 1 << 30)
    _young_only.set()
    gc.enable()  # at rest since the process began (eclused.py)


class _Sweeper:
    """When it last collected, and how often in a row it found too much to look through."""

    def __init__(self) -> None:
        self.at = -_SECONDS_BETWEEN
        self.passed_over = 0

    def sweep(self) -> bool:
        # Counting costs a hundredth of collecting.
        if len(gc.get_objects(generation=2)) <= MAX_OLD_OBJECTS:
            gc.collect()
            self.passed_over = 0
            self.at = time.monotonic()
            return True
        self.passed_over += 1
        if self.passed_over >= _MAX_PASSED_OVER:
            gc.freeze()
            self.passed_over = 0
        return False


_sweeper = _Sweeper()


def collect_if_small() -> bool:
    """Collect old garbage; False when so many objects are old that it would take too long.

    Not what existed at `collect_young_only`, nor bulk. A heap that is large for good is ignored
    from the third time on, as bulk is.
    """
    return _sweeper.sweep()
