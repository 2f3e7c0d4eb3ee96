"""Parse rows that others wrote, one by one.

A row that cannot be parsed is counted, and hides no other.
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
    """Give the parsed rows in order, and how many could not be parsed.

    What `rows` itself raises is raised.
    """
    found: list[T] = []
    bad = 0
    for row in rows:
        try:
            found.append(read(row))
        except PARSE_ERRORS:
            bad += 1
    return found, bad
