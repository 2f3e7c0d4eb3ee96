"""`ecluse`: the command line. It imports the standard library alone on the way to the daemon."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from ecluse.cli import fast_args
from ecluse.cli.exit_codes import FAILED, INTERRUPTED, UNREACHABLE, USAGE, UsageError, report
from ecluse.cli.terminal import InterruptedQuestionError, Screen
from ecluse.cli.verbs import VERBS
from ecluse.errors import EcluseError

# True for type checkers alone. `typing`, and what is imported below it here and in the modules that
# this one imports, takes as long to load as all the rest. So annotations are never evaluated.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from ecluse.api.request_socket import RequestSocket


def main(
    argv: Sequence[str] | None = None,
    request: RequestSocket | None = None,
    trouble: BaseException | None = None,
) -> int:
    """Run one command line and give its exit code. No traceback leaves this function.

    Args:
        argv: the words after `ecluse`; None for those of this process.
        request: what `fast_path` has sent to the daemon already for this command line.
        trouble: what went wrong there.
    """
    screen = Screen()
    args = SimpleNamespace(
        json=False, socket=os.environ.get("ECLUSE_SOCKET") or fast_args.DEFAULT_SOCKET
    )
    args.request = request
    args.waiting = lambda why: _show_waiting(args, screen, why)
    try:
        _parse(sys.argv[1:] if argv is None else argv, args)
        return _run_verb(args, screen, trouble)
    except UsageError as error:
        screen.wrapped_error(f"ecluse: {error}", "bad")
        return USAGE
    except EcluseError as error:
        return report(error, args, screen)
    except InterruptedQuestionError:
        screen.error_line()
        screen.wrapped_error(
            "interrupted at a question: nothing of the command was sent, nothing was changed."
        )
        return INTERRUPTED
    except KeyboardInterrupt:
        return _interrupted(args, screen)
    except Exception as error:  # noqa: BLE001 - nobody shall see a traceback
        screen.wrapped_error(
            f"ecluse: an error of its own ({type(error).__name__}: {error})", "bad"
        )
        screen.wrapped_error(
            "If this was a command, look with 'ecluse status' whether it was carried out."
        )
        return FAILED
    finally:
        screen.finish()


def _parse(words: Sequence[str], args: SimpleNamespace) -> None:
    """Parse the command line into `args`. SystemExit after help or a usage error was written."""
    found = fast_args.parse_fast(words)
    if found is None:
        from ecluse.cli.parser import build_parser  # noqa: PLC0415 - a third of the start of a cut

        build_parser(words).parse_args(words, namespace=args)
    else:
        vars(args).update(found)


def _run_verb(args: SimpleNamespace, screen: Screen, trouble: BaseException | None) -> int:
    if trouble is not None:
        raise trouble
    verb = VERBS[_verb_name(args)]
    return int(getattr(verb.module(), verb.function)(args, screen))


def _verb_name(args: SimpleNamespace) -> str:
    """Give the verb that was typed, with both words of a group's; empty before it was parsed."""
    verb: str = getattr(args, "verb", "")
    return verb if verb in VERBS else f"{verb} {getattr(args, 'what', '')}".strip()


def _interrupted(args: SimpleNamespace, screen: Screen) -> int:
    if getattr(args, "verb", "") == "events":
        return 0
    screen.error_line("interrupted")
    verb = VERBS.get(_verb_name(args))
    if verb is not None and verb.changes:
        screen.wrapped_error(
            "If the command had been sent it may be carried out: look with 'ecluse status'."
        )
        return UNREACHABLE
    return INTERRUPTED


def _show_waiting(args: SimpleNamespace, screen: Screen, why: str) -> None:
    """Say what to do about a daemon that does not answer.

    systemd's socket accepts the request even when no daemon runs.
    """
    screen.error_line(why, "warn")
    if args.verb in {"cut", "isolate"}:
        where = " EVERY zone" if args.zone else ""
        screen.error_line(
            f"It closes as soon as it runs. To close{where} now without it: Ctrl-C, then as root:"
        )
        screen.error_line(f"    ecluse {args.verb} --no-daemon")
    else:
        screen.error_line("Why: systemctl status ecluse. The gate as it stands holds without it.")
    screen.finish()


def run(request: RequestSocket | None = None, trouble: BaseException | None = None) -> NoReturn:
    """Run the command line of this process, then end it at once.

    Python's own end takes every module apart, for 4 ms. Nothing is left to be done here: both
    outputs are flushed.
    """
    try:
        code = main(None, request, trouble)
    except SystemExit as stop:  # argparse's, after it wrote its message
        code = stop.code if isinstance(stop.code, int) else USAGE
    os._exit(code)


if __name__ == "__main__":  # `python -m ecluse.cli` is the way in, but this must not do nothing
    run()
