"""Rows that others wrote, read one by one: what can't be read is counted, and hides nothing beside
it.
"""

import struct
from collections.abc import Callable, Iterable
from typing import TypeVar

R = TypeVar("R")
T = TypeVar("T")

PARSE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    OSError,
    struct.error,
)
"""What reading bytes or values of any kind may raise, and no fault of a program that runs out of
memory or is ended.
"""


def parse_rows(rows: Iterable[R], read: Callable[[R], T]) -> tuple[list[T], int]:
    """Give what `read` makes of the rows that it can read, in order, and how many it can't.

    What `rows` raises is raised.
    """
    found: list[T] = []
    bad = 0
    for row in rows:
        try:
            found.append(read(row))
        except PARSE_ERRORS:
            bad += 1
    return found, bad
