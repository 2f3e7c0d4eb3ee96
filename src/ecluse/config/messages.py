"""Shows values from files to a person: of bounded length, and without control characters."""

import difflib
from collections.abc import Iterable

from ecluse.safe_text import escape_unsafe

MAX_SHOWN = 60


class InvalidValueError(ValueError):
    """A written value is wrong; says how, and what was expected."""

    def __init__(self, wrong: str, expected: str) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.expected = expected


def shown(text: str) -> str:
    """Return the text in single quotes, escaped, at most 60 characters of it."""
    cut = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
    return f"'{escape_unsafe(cut)}'"


def listed(words: Iterable[str]) -> str:
    """Return `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'x'?` for the nearest known word, or an empty text."""
    near = difflib.get_close_matches(word[:MAX_SHOWN], list(known), n=1, cutoff=0.6)
    return f": did you mean '{near[0]}'?" if near else ""
