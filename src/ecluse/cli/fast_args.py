"""Parses the plainest command lines without argparse, which loads as slowly as the daemon cuts.

What is parsed here gives the same result as `parser` does. Everything else is left to it.
"""

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DEFAULT_SOCKET = "/run/ecluse/ecluse.sock"

_FIXED = {"verb", "level", "no_daemon"}
_CLOSING = {"reason": None, "authorised_by": None, "zone": None, "no_daemon": False}
_VERBS: "dict[str, dict[str, Any]]" = {
    "status": {},
    "cut": {"level": "cut", **_CLOSING},
    "isolate": {"level": "isolate", **_CLOSING},
}


def parse_fast(words: "Sequence[str]") -> "dict[str, Any] | None":
    """Parse `[OPTION].. VERB [OPTION]..` as argparse would; None for any other form."""
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
            return None
        if name == "json":
            found[name] = True
            continue
        value = next(rest, "-")
        if value.startswith("-"):
            return None
        found[name] = [*(found[name] or ()), value] if name == "zone" else value
    return found if "verb" in found else None
