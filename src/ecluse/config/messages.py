"""How values from files are shown to a person: bounded, and unable to write on a terminal or into a
log.
"""

import difflib
import unicodedata
from collections.abc import Iterable

MAX_SHOWN = 60


class InvalidValueError(ValueError):
    """What is wrong with a written value, and what was expected."""

    def __init__(self, wrong: str, expected: str) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.expected = expected


_LINE_ENDS = {"Zl", "Zp"}


def is_plain(character: str) -> bool:
    """Say whether a character may be printed: no control, no direction mark, no line end (Unicode
    C*, Zl, Zp).
    """
    category = unicodedata.category(character)
    return not category.startswith("C") and category not in _LINE_ENDS


def escaped(text: str) -> str:
    r"""Give the text with every character that is not plain written as `\xNN`, `\uNNNN` or
    `\UNNNNNNNN`.
    """
    if text.isprintable():  # stricter than is_plain, and fast
        return text
    return "".join(c if is_plain(c) else ascii(c)[1:-1] for c in text)


def shown(text: str) -> str:
    """Give the text in single quotes, escaped, at most 60 characters of it."""
    cut = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
    return f"'{escaped(cut)}'"


def listed(words: Iterable[str]) -> str:
    """Give `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give `: did you mean 'x'?` for the nearest known word, and nothing when none is near."""
    near = difflib.get_close_matches(word[:MAX_SHOWN], list(known), n=1, cutoff=0.6)
    return f": did you mean '{near[0]}'?" if near else ""
