"""Reads the command lines that are typed in a hurry without argparse, which takes as long to load as the daemon to cut.

Only the plainest forms are read here, in the same way as `parser` reads them; everything else is left to it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace
    from typing import Any

DEFAULT_SOCKET = "/run/ecluse/ecluse.sock"

_FIXED = {"verb", "level", "no_daemon"}
_CLOSING = {"reason": None, "authorised_by": None, "zone": None, "no_daemon": False}
_VERBS: dict[str, dict[str, Any]] = {
    "status": {},
    "cut": {"level": "cut", **_CLOSING},
    "isolate": {"level": "isolate", **_CLOSING},
}


def read(words: Sequence[str], args: SimpleNamespace) -> bool:
    """Read `[OPTION].. VERB [OPTION]..` into `args`. False, with nothing set, for whatever is not of that form."""
    found: dict[str, Any] = {}
    allowed = {"json", "socket"}
    rest = iter(words)
    for word in rest:
        if word in _VERBS and "verb" not in found:
            found = _VERBS[word] | found | {"verb": word}
            allowed |= found.keys() - _FIXED
            continue
        name = word[2:].replace("-", "_")
        if not word.startswith("--") or "_" in word or name not in allowed:
            return False
        if name == "json":
            found[name] = True
            continue
        value = next(rest, "-")
        if value.startswith("-"):
            return False
        found[name] = [*(found[name] or ()), value] if name == "zone" else value
    if "verb" not in found:
        return False
    vars(args).update(found)
    return True
