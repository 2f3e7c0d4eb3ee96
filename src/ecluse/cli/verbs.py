"""The table of verbs: the function that carries each out, its help and its options.

`main` finds a verb's function here, `parser` its options. Adding a verb is adding a line to VERBS;
`add_extension_verbs` adds those of extensions. Nothing here imports argparse, which a plain cut
does not need.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable
    from types import ModuleType

    AddOptions = Callable[[ArgumentParser], None]


class Verb:
    """One verb of the command line.

    Args:
        name: what is typed; two words for a verb of a group (`audit show`, see GROUPS).
        module: imports the module that carries it out; called when the verb is used.
        function: its function there, called with the arguments (SimpleNamespace) and the Screen.
            It gives the exit code.
        text: one line of help.
        add_options: adds the verb's own options to its parser.
        changes: it may change what passes, so that its interruption leaves a doubt.
    """

    __slots__ = ("add_options", "changes", "function", "module", "name", "text")

    def __init__(
        self,
        name: str,
        module: Callable[[], ModuleType],
        function: str,
        text: str,
        add_options: AddOptions | None = None,
        *,
        changes: bool = False,
    ) -> None:
        self.name = name
        self.module = module
        self.function = function
        self.text = text
        self.add_options = add_options
        self.changes = changes


def _why(verb: ArgumentParser) -> None:
    verb.add_argument("--reason", metavar="TEXT", help="why, for the record")
    verb.add_argument("--authorised-by", metavar="WHO", help="on whose word, for the record")


def _zones(verb: ArgumentParser) -> None:
    verb.add_argument(
        "--zone", metavar="ZONE", action="append", help="only this zone; may be repeated"
    )


def _opening(verb: ArgumentParser) -> None:
    _why(verb)
    _zones(verb)
    verb.add_argument(
        "--yes", action="store_true", help="do not ask before opening (needs --reason)"
    )


def _closing(verb: ArgumentParser) -> None:
    _why(verb)
    _zones(verb)
    verb.add_argument(
        "--no-daemon",
        action="store_true",
        help="as root, while the daemon is dead: load the prepared ruleset",
    )


def _cut(verb: ArgumentParser) -> None:
    _closing(verb)
    verb.set_defaults(level="cut")


def _isolate(verb: ArgumentParser) -> None:
    _closing(verb)
    verb.set_defaults(level="isolate")


def _open(verb: ArgumentParser) -> None:
    _opening(verb)
    verb.set_defaults(level="open")


def _level(verb: ArgumentParser) -> None:
    verb.add_argument("level", metavar="NAME", help="name of the level")
    _opening(verb)


def _rollback(verb: ArgumentParser) -> None:
    _why(verb)
    verb.add_argument(
        "--yes", action="store_true", help="do not ask (nobody is asked without a terminal)"
    )
    verb.add_argument(
        "number", metavar="N", type=_generation, nargs="?", help="its number (the one before this)"
    )


def _show(verb: ArgumentParser) -> None:
    verb.add_argument("number", metavar="N", type=_generation, help="number of the generation")


def _reload(verb: ArgumentParser) -> None:
    _why(verb)
    verb.add_argument("--yes", action="store_true", help="do not ask")


def _plan(verb: ArgumentParser) -> None:
    _zones(verb)
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("level", metavar="LEVEL", nargs="?", help="what setting this level would do")
    what.add_argument(
        "--reload", action="store_true", help="what a reload of the site's files would do"
    )
    what.add_argument(
        "--rollback", metavar="N", type=_generation, help="what going back to generation N would do"
    )


def _refused(verb: ArgumentParser) -> None:
    verb.add_argument(
        "--limit", metavar="N", type=_limit, default=20, help="at most so many rows (20)"
    )


def _check(verb: ArgumentParser) -> None:
    verb.add_argument("directory", metavar="DIR", nargs="?", help="the site's files (/etc/ecluse)")
    more = verb.add_mutually_exclusive_group()
    more.add_argument(
        "--online", action="store_true", help="ask the site's resolvers for every host name"
    )
    more.add_argument(
        "--host", action="store_true", help="look, as root, for ways past the gate on this machine"
    )


def _audit_file(verb: ArgumentParser) -> None:
    verb.add_argument("file", metavar="FILE", nargs="?", help="the log (/var/lib/ecluse/audit.log)")


def _audit_show(verb: ArgumentParser) -> None:
    _audit_file(verb)
    verb.add_argument(
        "--limit", metavar="N", type=_limit, default=50, help="at most so many records (50)"
    )


def _generation(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        from argparse import ArgumentTypeError  # noqa: PLC0415 - see the module

        raise ArgumentTypeError(
            f"{text!r} is not the number of a generation ('ecluse history' lists them)"
        )
    return int(text)


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 10_000:
        from argparse import ArgumentTypeError  # noqa: PLC0415 - see the module

        raise ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


# A status need not wait for what a check needs (YAML, pydantic). Three imports are faster than one
# of importlib.
def _queries() -> ModuleType:
    from ecluse.cli import queries  # noqa: PLC0415

    return queries


def _commands() -> ModuleType:
    from ecluse.cli import commands  # noqa: PLC0415

    return commands


def _checks() -> ModuleType:
    from ecluse.cli import offline_checks  # noqa: PLC0415

    return offline_checks


def _proof() -> ModuleType:
    from ecluse.cli import verify  # noqa: PLC0415

    return verify


GROUPS = {"audit": "verify or show the audit log; needs no daemon"}
"""Help of the first word of two-word verbs."""

VERBS: dict[str, Verb] = {}
"""By name, in the order of the help."""


def add_verbs(*verbs: Verb) -> None:
    """Add verbs to the table. ValueError where the name is in use."""
    for verb in verbs:
        if verb.name in VERBS:
            raise ValueError(f"there are two verbs '{verb.name}'")
        VERBS[verb.name] = verb


add_verbs(
    Verb("status", _queries, "status", "say where we are"),
    Verb("cut", _commands, "level", "close all but the vital services, at once and unasked",
         _cut, changes=True),
    Verb("isolate", _commands, "level", "close all but the lifeline, at once and unasked",
         _isolate, changes=True),
    Verb("open", _commands, "level", "open everything; asks for the site's name",
         _open, changes=True),
    Verb("level", _commands, "level", "set a level of the site by name", _level, changes=True),
    Verb("rollback", _commands, "rollback", "go back to generation N, or to the one before this",
         _rollback, changes=True),
    Verb("history", _queries, "history", "list the states that were applied, newest first"),
    Verb("show", _queries, "show", "say all about generation N", _show),
    Verb("reload", _commands, "reload", "apply the site's files; shows the difference and asks",
         _reload, changes=True),
    Verb("plan", _queries, "plan", "say what a change would do, with nothing done", _plan),
    Verb("services", _queries, "services",
         "list the services, with owners, addresses and traffic"),
    Verb("refused", _queries, "refused", "say which machines keep trying to get out", _refused),
    Verb("check", _checks, "check", "check the site's files; needs no root and no daemon", _check),
    Verb("verify", _proof, "verify",
         "prove, as root, that the kernel passes what is recorded; needs no daemon"),
    Verb("events", _queries, "events", "follow what happens, until Ctrl-C"),
    Verb("audit verify", _checks, "audit_verify", "find altered, removed or inserted lines",
         _audit_file),
    Verb("audit show", _checks, "audit_show", "list the newest records", _audit_show),
)  # fmt: skip


def add_extension_verbs() -> None:
    """Add the verbs of extensions, whose modules import the standard library alone.

    The site may use the extension or not: only the daemon knows. One that can't be imported has no
    verbs, and the core has all of its own.
    """
    from ecluse.extensions import EXTENSIONS  # noqa: PLC0415 - no plain cut or status needs it

    for extension in EXTENSIONS:
        if not extension.verbs or extension.name in _ADDED:
            continue
        _ADDED.add(extension.name)
        from importlib import import_module  # noqa: PLC0415 - as above

        try:
            module = import_module(extension.verbs)
            add_verbs(*module.VERBS)
        except Exception as error:  # noqa: BLE001 - a cut never depends on an extension
            sys.stderr.write(f"ecluse: the verbs of {extension.name} are missing: {error}\n")
        else:
            GROUPS.update(module.GROUPS)


_ADDED: set[str] = set()
"""Extensions whose verbs are in the table, or can't be."""
