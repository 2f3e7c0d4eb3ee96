"""`ecluse`: the command line.

Standard library only on the way to the daemon, so that it answers at once.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from ecluse.cli import fast_args
from ecluse.cli.exit_codes import FAILED, INTERRUPTED, UNREACHABLE, USAGE, UsageError, report
from ecluse.cli.terminal import LeftAloneError, Screen
from ecluse.errors import EcluseError

# Set by type checkers alone. What is imported below it, here and in what this imports, takes as
# long to load as all the rest; so no annotation may be looked at while running.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from ecluse.api.request_socket import RequestSocket

_VERBS = {
    "status": ("queries", "status"),
    "services": ("queries", "services"),
    "history": ("queries", "history"),
    "show": ("queries", "show"),
    "refused": ("queries", "refused"),
    "plan": ("queries", "plan"),
    "events": ("queries", "events"),
    "cut": ("commands", "level"),
    "isolate": ("commands", "level"),
    "open": ("commands", "level"),
    "level": ("commands", "level"),
    "rollback": ("commands", "rollback"),
    "reload": ("commands", "reload"),
    "check": ("offline_checks", "check"),
    "audit verify": ("offline_checks", "audit_verify"),
    "audit show": ("offline_checks", "audit_show"),
}
_CHANGING = frozenset({"cut", "isolate", "open", "level", "rollback", "reload"})


def main(
    argv: Sequence[str] | None = None,
    question: RequestSocket | None = None,
    trouble: BaseException | None = None,
) -> int:
    """Run one command line; give its exit code. No traceback ever leaves here.

    question: what this command line asks of the daemon, where it is on its way already (`hurry`).
    trouble: what kept it.
    """
    screen = Screen()
    args = SimpleNamespace(
        json=False, socket=os.environ.get("ECLUSE_SOCKET") or fast_args.DEFAULT_SOCKET
    )
    args.question = question
    args.waiting = lambda why: _waiting(args, screen, why)
    try:
        _read(sys.argv[1:] if argv is None else argv, args)
        return _run(args, screen, trouble)
    except UsageError as error:
        screen.noted(f"ecluse: {error}", "bad")
        return USAGE
    except EcluseError as error:
        return report(error, args, screen)
    except LeftAloneError:
        screen.note()
        screen.noted(
            "interrupted at a question: nothing of the command was sent, nothing was changed."
        )
        return INTERRUPTED
    except KeyboardInterrupt:
        return _interrupted(args, screen)
    except Exception as error:  # noqa: BLE001 - the last resort before a person would see a traceback
        screen.noted(f"ecluse: an error of its own ({type(error).__name__}: {error})", "bad")
        screen.noted("If this was a command, look with 'ecluse status' whether it was carried out.")
        return FAILED
    finally:
        screen.finish()


def _read(words: Sequence[str], args: SimpleNamespace) -> None:
    """Read the command line into `args`. SystemExit after help or a fault of usage was written."""
    found = fast_args.parse_fast(words)
    if found is None:
        from ecluse.cli.parser import build_parser  # noqa: PLC0415 - a third of the start of a cut

        build_parser(words).parse_args(words, namespace=args)
    else:
        vars(args).update(found)


def _run(args: SimpleNamespace, screen: Screen, trouble: BaseException | None) -> int:
    if trouble is not None:
        raise trouble
    name = args.verb + (f" {args.what}" if args.verb == "audit" else "")
    if getattr(args, "zone", None) and args.verb == "plan" and args.level is None:
        raise UsageError("--zone goes with a level")
    module, function = _VERBS[name]
    # Only the module of this verb is loaded: a status need not wait for YAML and pydantic.
    full_name = f"ecluse.cli.{module}"
    __import__(full_name)
    run: Any = getattr(sys.modules[full_name], function)
    return int(run(args, screen))


def _interrupted(args: SimpleNamespace, screen: Screen) -> int:
    verb = getattr(args, "verb", "")
    if verb == "events":
        return 0
    screen.note("interrupted")
    if verb in _CHANGING:
        screen.noted(
            "If the command had been sent it may be carried out: look with 'ecluse status'."
        )
        return UNREACHABLE
    return INTERRUPTED


def _waiting(args: SimpleNamespace, screen: Screen, why: str) -> None:
    """Say what to do about a daemon that does not answer: systemd's socket takes the question even
    when none runs.
    """
    screen.note(why, "warn")
    if args.verb in {"cut", "isolate"}:
        where = " EVERY zone" if args.zone else ""
        screen.note(
            f"It closes as soon as it runs. To close{where} now without it: Ctrl-C, then as root:"
        )
        screen.note(f"    ecluse {args.verb} --no-daemon")
    else:
        screen.note("Why: systemctl status ecluse. The gate as it stands holds without it.")
    screen.finish()


def run(question: RequestSocket | None, trouble: BaseException | None) -> NoReturn:
    """Run the command line of this process, then end it at once.

    Python's own end takes apart every module, for 4 ms. Here nothing is left to be done: both
    outputs are flushed.
    """
    try:
        code = main(None, question, trouble)
    except SystemExit as stop:  # argparse's, with what it had to say written
        code = stop.code if isinstance(stop.code, int) else USAGE
    os._exit(code)


if __name__ == "__main__":
    # Not the way in any more (`python -m ecluse.cli` is), but a cut that does nothing and exits
    # with 0 must not be one.
    from ecluse.cli import fast_path

    fast_path.run()
