"""Opens libnftables, and gives its words as a person can read them."""

import importlib
from typing import Any

from ecluse.errors import KernelError

MOST_LINES, LONGEST = 20, 2000
NOT_PERMITTED = "Operation not permitted"
"""How libnftables writes EPERM (strerror of the C locale)."""


def new_context() -> Any:
    """Open libnftables.

    Raises:
        KernelError: says what to install when it or its Python binding is not there.
    """
    hint = "apt install python3-nftables (the copies on PyPI are too old)"
    try:
        context = importlib.import_module("nftables").Nftables()
    except (ImportError, OSError) as error:
        raise KernelError(
            f"libnftables can't be used: {error}; nothing was changed", hint=hint
        ) from error
    if not (hasattr(context, "set_dry_run") and hasattr(context, "cmd_from_file")):
        raise KernelError(
            "python-nftables is too old: it has no dry run; nothing was changed", hint=hint
        )
    return context


def refusal_text(code: int, error: str) -> str:
    """Give libnftables' words, shortened; empty when its return code says that all went well."""
    return shorten(error) or f"libnftables gave code {code} and no reason" if code else ""


def shorten(error: str) -> str:
    """Cut libnftables' words to what a person reads: 20 lines, 2000 characters."""
    lines = error.strip().splitlines()
    more = len(lines) - MOST_LINES
    told = "\n".join(lines[:MOST_LINES])[:LONGEST]
    return told + (f"\n... and {more} more lines" if more > 0 else "")
