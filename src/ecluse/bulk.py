"""Making very many values at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_gc() -> Iterator[None]:
    """Keep the cycle collector off meanwhile: it would look through all that was made, over and over, and find nothing.

    For the whole process, so for bulk work of seconds at most. Nested or in two threads at once, it is on again when
    the first that found it on has ended.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
