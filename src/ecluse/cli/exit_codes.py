"""Exit codes, and the text that a person reads when something failed."""

import os
from types import SimpleNamespace

from ecluse.cli.terminal import Screen
from ecluse.errors import (
    ConfigError,
    EcluseError,
    ForbiddenError,
    RequestError,
    StaleError,
    UnreachableError,
)

DONE = 0
FOUND = 1
USAGE = 2
REFUSED = 3
UNREACHABLE = 4
FAILED = 5
UNRECORDED = 6
INTERRUPTED = 130

CODES = """\
exit codes:
  0  done
  1  'check' found faults or a way past the gate, 'audit verify' problems,
     'verify' a packet that the kernel judges otherwise than the files
  2  usage: a wrong option, or a level, zone or generation that does not exist
  3  denied: you may not command; or you answered a question with no
  4  the daemon cannot be reached, or its answer was lost
  5  failed and nothing changed (where that is not sure, the message says so)
  6  done, but not fully recorded or not verified
  130  interrupted by Ctrl-C at a question: nothing was sent
"""


class UsageError(Exception):
    """The command line asks for something that does not exist or go together."""


def code_of(error: EcluseError) -> int:
    """Give the exit code of an error."""
    if isinstance(error, ForbiddenError):
        return REFUSED
    if isinstance(error, UnreachableError):
        return UNREACHABLE
    if isinstance(error, RequestError) and not isinstance(error, StaleError):
        return USAGE
    return FAILED


def report(error: EcluseError, args: SimpleNamespace, screen: Screen) -> int:
    """Show what failed and what to do next; give the exit code."""
    screen.wrapped_error(f"ecluse: {error.message}", "bad")
    if error.hint:
        screen.wrapped_error(error.hint)
    if isinstance(error, UnreachableError):
        screen.wrapped_error(without_daemon())
    if getattr(args, "json", False):
        screen.raw(_as_json(error))
    return code_of(error)


# in the configuration directory, since the daemon first ran as a unit (ecluse.service)
IN_SERVICE = "in-service"


def without_daemon() -> str:
    """Give the text of what to type when no daemon answers.

    It fits this machine, whose daemon may never have run.
    """
    state = os.environ.get("ECLUSE_STATE_DIR") or "/var/lib/ecluse"
    if not _has_run(state):
        return _first_start_text(state)
    prepared = (
        "To keep only the vital services, as root:\n"
        "    ecluse cut --no-daemon\n"
        "The same by nft alone (or isolate.nft):\n"
        f"    nft -f {state}/ruleset/cut.nft\n"
    )
    return (
        "\n"
        "The gate as it stands holds without the daemon: "
        "what is cut stays cut, what is kept stays kept.\n"
        f"{prepared if _may_exist(state, 'ruleset/cut.nft') else ''}"
        "To keep the lifeline alone, as root:\n"
        "    ecluse isolate --no-daemon\n"
        "To see what the kernel does now:\n"
        "    nft list table inet ecluse\n"
        "To start the daemon, and to see why it stopped:\n"
        "    systemctl start ecluse\n"
        "    journalctl -u ecluse -n 50"
    )


def config_dir() -> str:
    """Give the directory of the site's files."""
    return os.environ.get("ECLUSE_CONFIG_DIR") or "/etc/ecluse"


def _may_exist(state: str, name: str) -> bool:
    """Say whether the state directory has this file; True where this user can't see that."""
    hidden = os.access(state, os.F_OK) and not os.access(state, os.X_OK)
    return hidden or os.access(f"{state}/{name}", os.F_OK)


def _has_run(state: str) -> bool:
    return os.access(f"{config_dir()}/{IN_SERVICE}", os.F_OK) or _may_exist(state, "generations")


def setup_commands() -> str:
    """Give the commands that start the daemon for the first time."""
    config = config_dir()
    if os.access(f"{config}/site.yaml", os.F_OK):
        return "    ecluse check\n    systemctl start ecluse"
    return (
        f"    cp -r /usr/share/ecluse/examples/config/. {config}/\n"
        f"    editor {config}/site.yaml {config}/allowlist.d/*.yaml\n"
        "    ecluse check\n"
        "    systemctl start ecluse"
    )


def reopen_command(state: str) -> str:
    """Give the command that takes back a closing of which no daemon knows."""
    return f"    nft delete table inet ecluse && rm -f {state}/boot.nft {state}/by-hand.log"


def _first_start_text(state: str) -> str:
    stands = (
        "The daemon never ran on this machine: there is no gate yet, and everything passes, "
        "unless somebody loaded one by hand ('nft list table inet ecluse' shows it). "
        "To shut everything now all the same, as root "
        "(no service is kept, the inside goes on among itself):\n"
        "    ecluse isolate --no-daemon"
    )
    if _may_exist(state, "boot.nft"):
        stands = (
            "The daemon never ran on this machine, and somebody shut the gate without it: "
            f"no service is kept. To open it again, as root:\n{reopen_command(state)}"
        )
    return f"\n{stands}\nTo set the daemon up, as root:\n{setup_commands()}"


def _as_json(error: EcluseError) -> str:
    import json  # noqa: PLC0415 - an error of a text command should not pay for it

    problem: dict[str, object] = {"error": error.kind, "message": error.message, "hint": error.hint}
    if isinstance(error, ConfigError):
        problem["faults"] = [
            {
                "file": f.file,
                "line": f.line,
                "column": f.column,
                "wrong": f.wrong,
                "expected": f.expected,
            }
            for f in error.faults
        ]
    return json.dumps(problem, indent=2)
