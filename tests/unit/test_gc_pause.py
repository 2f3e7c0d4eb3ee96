"""The cycle collector beside a large allowlist, in a process of its own: what it is told concerns
the whole process.
"""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
BEGIN = """
import gc, weakref
from ecluse import gc_pause
class Node:
    pass
def ring():
    node = Node()
    node.itself = node
    return weakref.ref(node)
def old_garbage():
    node = Node()
    node.itself = node
    gc.collect()  # what survives that is old
    return weakref.ref(node)
gc.disable()
gc_pause.BULK_SECONDS = 0.001  # what is made below is bulk, however fast the machine is
"""


def said(body: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + body],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    return done.stdout.strip()


def test_old_garbage_goes_with_a_sweep_and_not_before():
    assert said(
        "gc_pause.collect_young_only(); r = old_garbage(); x = r() is None\n"
        "y = gc_pause.collect_if_small(); print(x, y, r() is None)"
    ) == ("False True True")


def test_what_is_there_before_and_what_is_made_in_bulk_is_never_looked_through():
    assert (
        said(
            "big = [[i] for i in range(200_000)]\ngc_pause.collect_young_only()\n"
            "with gc_pause.without_gc():\n    more = [[[i]] for i in range(400_000)]\n"
            "few = len(gc.get_objects()) < gc_pause.MAX_OLD_OBJECTS\n"
            "print(few, gc_pause.collect_if_small(), gc.isenabled())"
        )
        == "True True True"
    )


def test_garbage_of_before_bulk_is_not_left_alone_with_it():
    assert (
        said(
            "gc_pause.collect_young_only(); r = old_garbage()\n"
            "with gc_pause.without_gc():\n    more = [[[i]] for i in range(400_000)]\n"
            "print(r() is None)"
        )
        == "True"
    )


def test_a_large_heap_that_passes_is_waited_for_and_one_that_stays_is_left_alone():
    assert (
        said(
            "gc_pause.collect_young_only()\nmuch = [[[i]] for i in range(100_000)]\ngc.collect()\n"
            "first = gc_pause.collect_if_small()\nmuch = None\nthen = gc_pause.collect_if_small()\n"
            "much = [[[i]] for i in range(100_000)]\ngc.collect()\n"
            "print(first, then, [gc_pause.collect_if_small() for _ in range(4)])"
        )
        == "False True [False, False, False, True]"
    )


def test_without_a_daemon_nothing_is_frozen():
    assert (
        said(
            "gc.enable()\nwith gc_pause.without_gc():\n    more = [[[i]] for i in range(400_000)]\n"
            "print(gc.get_freeze_count(), gc.isenabled())"
        )
        == "0 True"
    )
