"""Every word of the command line, by argparse: help, faults of usage, and what `quick` does not
read.
"""

from __future__ import annotations

import argparse

from ecluse import __version__
from ecluse.cli.exit_codes import CODES
from ecluse.cli.fast_args import DEFAULT_SOCKET

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_EPILOG = f"""\
{CODES}
environment: ECLUSE_SOCKET, ECLUSE_STATE_DIR, ECLUSE_CONFIG_DIR, NO_COLOR
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns; given a width, argparse need not import what it takes to ask for one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


def _part(**settings: Any) -> argparse.ArgumentParser:
    """Make a parser that others take their options from."""
    return argparse.ArgumentParser(add_help=False, formatter_class=_Formatter, **settings)


def _everywhere() -> argparse.ArgumentParser:
    """Options that may stand before or after the verb (so no default may overwrite what was given
    before).
    """
    options = _part(argument_default=argparse.SUPPRESS)
    options.add_argument("--json", action="store_true", help="write JSON")
    options.add_argument("--socket", metavar="PATH", help=f"the daemon's socket ({DEFAULT_SOCKET})")
    return options


def build_parser(argv: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Make the parser of the command line.

    argv: make what these words may need, since each verb costs half a millisecond: the verbs among
    them, or all verbs by name only when there is none (help, or a fault). None: everything.
    """
    everywhere = _everywhere()
    parser = argparse.ArgumentParser(
        prog="ecluse",
        description="Cut the internet and keep the vital services; see what passes; go back.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        parents=[everywhere],
        allow_abbrev=False,  # what a script writes must not change its meaning with the next option
    )
    parser.add_argument("--version", action="version", version=f"ecluse {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    named = {verb for verb, _, _ in _HELP if argv is None or verb in argv}
    for name, text, options in _HELP:
        if name in named:
            verb = verbs.add_parser(
                name,
                help=text,
                description=text,
                epilog=CODES,
                parents=[everywhere],
                formatter_class=_Formatter,
                allow_abbrev=False,
            )
            options(verb)
        elif not named:
            verbs.add_parser(name, help=text, add_help=False)
    return parser


def _none(_verb: argparse.ArgumentParser) -> None:
    """Add no options."""


def _why(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--reason", metavar="TEXT", help="why, for the record")
    verb.add_argument("--authorised-by", metavar="WHO", help="on whose word, for the record")


def _zones(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--zone", metavar="ZONE", action="append", help="only this zone; may be repeated"
    )


def _level(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("level", metavar="NAME", help="which level")
    _fixed_level("", asks=True)(verb)


def _fixed_level(level: str, *, asks: bool = False) -> Callable[[argparse.ArgumentParser], None]:
    def options(verb: argparse.ArgumentParser) -> None:
        _why(verb)
        _zones(verb)
        if level:
            verb.set_defaults(level=level)
        if asks:
            verb.add_argument(
                "--yes", action="store_true", help="do not ask before opening (needs --reason)"
            )
        else:
            verb.add_argument(
                "--no-daemon",
                action="store_true",
                help="as root, by the prepared ruleset: the daemon is dead",
            )

    return options


def _rollback(verb: argparse.ArgumentParser) -> None:
    _why(verb)
    verb.add_argument(
        "--yes", action="store_true", help="do not ask (nobody is asked without a terminal)"
    )
    verb.add_argument(
        "number", metavar="N", type=_number, nargs="?", help="to which (the one before this)"
    )


def _show(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("number", metavar="N", type=_number, help="which")


def _reload(verb: argparse.ArgumentParser) -> None:
    _why(verb)
    verb.add_argument("--yes", action="store_true", help="do not ask")


def _refused(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--limit", metavar="N", type=_limit, default=20, help="how many (20)")


def _check(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("directory", metavar="DIR", nargs="?", help="the site's files (/etc/ecluse)")
    more = verb.add_mutually_exclusive_group()
    more.add_argument(
        "--online", action="store_true", help="ask the site's resolvers for every host name"
    )
    more.add_argument(
        "--host", action="store_true", help="look, as root, for ways past the gate on this machine"
    )


def _plan(verb: argparse.ArgumentParser) -> None:
    _zones(verb)
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("level", metavar="LEVEL", nargs="?", help="of setting this level")
    what.add_argument("--reload", action="store_true", help="of a reload of the site's files")
    what.add_argument("--rollback", metavar="N", type=_number, help="of going back to generation N")


def _audit(verb: argparse.ArgumentParser) -> None:
    everywhere = _everywhere()
    verbs = verb.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, text in (
        ("verify", "find altered, removed or inserted lines"),
        ("show", "list the newest records"),
    ):
        one = verbs.add_parser(
            name, help=text, description=text, parents=[everywhere], formatter_class=_Formatter
        )
        one.add_argument(
            "file", metavar="FILE", nargs="?", help="the log (/var/lib/ecluse/audit.log)"
        )
        if name == "show":
            one.add_argument("--limit", metavar="N", type=_limit, default=50, help="how many (50)")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the number of a generation ('ecluse history' lists them)"
        )
    return int(text)


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


_HELP: tuple[tuple[str, str, Callable[[argparse.ArgumentParser], None]], ...] = (
    ("status", "say where we are", _none),
    ("cut", "close all but the vital services, at once and unasked", _fixed_level("cut")),
    ("isolate", "close all but the lifeline, at once and unasked", _fixed_level("isolate")),
    ("open", "open everything; asks for the site's name", _fixed_level("open", asks=True)),
    ("level", "set a level of the site by name", _level),
    ("rollback", "go back to generation N, or to the one before this", _rollback),
    ("history", "list the states that were applied, newest first", _none),
    ("show", "say all about generation N", _show),
    ("reload", "apply the site's files; shows the difference and asks", _reload),
    ("plan", "say what a change would do, with nothing done", _plan),
    ("services", "list the services, with owners, addresses and traffic", _none),
    ("refused", "say which machines keep trying to get out", _refused),
    ("check", "check the site's files; needs no root and no daemon", _check),
    ("events", "follow what happens, until Ctrl-C", _none),
    ("audit", "verify or show the audit log; needs no daemon", _audit),
)
