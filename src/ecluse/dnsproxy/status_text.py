"""The DNS proxy's part of what `ecluse status` shows."""

from __future__ import annotations

from ecluse.dns_cache_advice import INSECURE

TYPE_CHECKING = False  # both are slow to import, and this is the command line
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_LABEL = "  dns gate  "
_INDENT = " " * len(_LABEL)


def show(screen: Any, state: Mapping[str, Any], count_of: Callable[..., str]) -> None:
    """Show it.

    Args:
        screen: the terminal (`cli.terminal.Screen`).
        state: the field `dns` of `GET /v1/status`.
        count_of: writes a number and a noun (`cli.format.count_of`).
    """
    works = "answers for what is kept" if state["working"] else "DOES NOT ANSWER"
    refused = count_of(state["refused"], "question")
    screen.line(f"{_LABEL}{works}; {refused} refused", "" if state["working"] else "bad")
    if state["removed"]:
        text = (
            f"{count_of(state['removed'], 'address', 'addresses')} that somebody else put into its"
            f" sets taken out; the newest: {state['removed_last']}"
        )
        screen.wrapped(_INDENT, text, "warn")
    if state["validating"]:
        text = (
            f"{', '.join(state['validating'])}: validates DNSSEC, and is given the proofs of kept"
            f" names. Where one fails there all the same (SERVFAIL), type there: {INSECURE}"
        )
        screen.wrapped(_INDENT, text)
    if state["adopted"]:
        text = (
            f"{count_of(state['adopted'], 'address', 'addresses')} kept that no record tells of:"
            " it was lost"
        )
        screen.wrapped(_INDENT, text, "warn")
