"""The argparse parser of the verbs' table: help, usage errors, and what `fast_args` leaves."""

from __future__ import annotations

import argparse

from ecluse import __version__
from ecluse.cli.exit_codes import CODES
from ecluse.cli.fast_args import DEFAULT_SOCKET
from ecluse.cli.verbs import GROUPS, VERBS, add_extension_verbs

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_EPILOG = f"""\
{CODES}
environment: ECLUSE_SOCKET, ECLUSE_STATE_DIR, ECLUSE_CONFIG_DIR, NO_COLOR
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns; without a width argparse imports shutil to ask for one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


def _common_options() -> argparse.ArgumentParser:
    """Make the options that may stand before or after the verb.

    They have no defaults, which would overwrite what was given before the verb.
    """
    options = argparse.ArgumentParser(
        add_help=False, formatter_class=_Formatter, argument_default=argparse.SUPPRESS
    )
    options.add_argument("--json", action="store_true", help="write JSON")
    options.add_argument("--socket", metavar="PATH", help=f"the daemon's socket ({DEFAULT_SOCKET})")
    return options


def build_parser(argv: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Make the parser of the command line.

    argv: the words that it will parse, None for all that there is. Each verb costs half a
    millisecond, so only the verbs among these words get their options. Where there is none among
    them (help, or a mistake), all verbs are listed by name.
    """
    add_extension_verbs()
    common = _common_options()
    parser = argparse.ArgumentParser(
        prog="ecluse",
        description="Cut the internet and keep the vital services; see what passes; go back.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        parents=[common],
        allow_abbrev=False,  # a script must not change its meaning with the next option
    )
    parser.add_argument("--version", action="version", version=f"ecluse {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    first_words = list(dict.fromkeys(name.partition(" ")[0] for name in VERBS))
    named = [word for word in first_words if argv is None or word in argv]
    for word in named or first_words:
        text = GROUPS[word] if word in GROUPS else VERBS[word].text
        if not named:
            subparsers.add_parser(word, help=text, add_help=False)
            continue
        settings: dict[str, Any] = {
            "help": text,
            "description": text,
            "epilog": CODES,
            "parents": [common],
            "formatter_class": _Formatter,
            "allow_abbrev": False,
        }
        one = subparsers.add_parser(word, **settings)
        if word in GROUPS:
            _add_group(one, word, common)
        elif add_options := VERBS[word].add_options:
            add_options(one)
    return parser


def _add_group(
    parser: argparse.ArgumentParser, group: str, common: argparse.ArgumentParser
) -> None:
    subparsers = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for verb in VERBS.values():
        first, _, second = verb.name.partition(" ")
        if first == group:
            one = subparsers.add_parser(
                second,
                help=verb.text,
                description=verb.text,
                parents=[common],
                formatter_class=_Formatter,
            )
            if verb.add_options:
                verb.add_options(one)
