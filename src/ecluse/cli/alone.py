"""`ecluse cut --no-daemon`: close the gate by the prepared ruleset alone, when the daemon does not answer.

Needs root, nft(8) and one file that can be read; no daemon, no network, no disk that takes anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import time

from ecluse.cli.failures import DONE, UNRECORDED, UsageError
from ecluse.cli.terminal import plain
from ecluse.errors import ForbiddenError, KernelError

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from types import SimpleNamespace

    from ecluse.cli.terminal import Screen

BY_HAND = "by-hand.log"
"""In the state directory: a line of JSON for each closing without the daemon, which takes them into its audit log."""

_HOOKS = ("forward", "input", "output")
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"  # a shell by plain su has no sbin


def close(args: SimpleNamespace, screen: Screen) -> int:
    """Close every zone. ForbiddenError for whoever is not root; KernelError when no ruleset could be loaded."""
    if args.zone:
        raise UsageError("--no-daemon closes every zone: leave --zone out. Nothing was changed.")
    if os.geteuid() != 0:
        raise ForbiddenError(
            "without the daemon only root may close the gate; nothing was changed",
            hint=f"type: sudo ecluse {args.level} --no-daemon",
        )
    state = os.environ.get("ECLUSE_STATE_DIR") or "/var/lib/ecluse"
    loaded = _load_first(f"{state}/ruleset/{args.level}.nft", f"{state}/closed.nft", screen)
    verified = _is_shut()
    noted = "; ".join(filter(None, (_note(state, args, loaded), _boot_so(state, loaded))))
    if args.json:
        answer = {"level": args.level, "file": loaded, "verified": verified, "unrecorded": noted}
        screen.raw(json.dumps(answer, indent=2))
    else:
        _tell(args.level, loaded, screen, verified=verified, unrecorded=noted)
    return DONE if verified and not noted else UNRECORDED


def _load_first(wanted: str, last_resort: str, screen: Screen) -> str:
    trouble = _load(wanted)
    if not trouble:
        return wanted
    screen.noted(f"{wanted} could not be loaded: {trouble}", "warn")
    other = _load(last_resort)
    if not other:
        return last_resort
    raise KernelError(
        f"no prepared ruleset could be loaded; nothing was changed\n{wanted}: {trouble}\n{last_resort}: {other}",
        hint="pull the cable to the internet, or shut its link:\n    ip link set dev NAME down",
    )


def _nft(*words: str) -> tuple[int, str, str]:
    environment = {"PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["nft", *words], check=False, capture_output=True, text=True, errors="replace", env=environment
        )
    except OSError as error:
        return 127, "", f"nft could not be run: {error.strerror}"
    return done.returncode, done.stdout, done.stderr


def _load(path: str) -> str:
    """Load a ruleset file, whole or not at all; give nft's first words when it was refused."""
    code, _, error = _nft("-f", path)
    return "" if not code else (error.strip().splitlines() or [f"nft ended with {code}"])[0]


def _is_shut() -> bool:
    """Read the base chains back: each there, each with policy drop, each with its one rule."""
    found = [_nft("list", "chain", "inet", "ecluse", hook) for hook in _HOOKS]
    return all(not code and "policy drop;" in text and "goto " in text for code, text, _ in found)


def _note(state: str, args: SimpleNamespace, loaded: str) -> str:
    """Leave a line for the daemon's records; give why that was not possible, in words."""
    line = {
        "at": time.time(),
        "uid": _number("SUDO_UID") or os.getuid(),
        "login": _login(),
        "level": args.level,
        "file": loaded,
        "reason": args.reason or "",
        "authorised_by": args.authorised_by or "",
    }
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(f"{state}/{BY_HAND}", flags, 0o640)
        try:
            os.write(handle, json.dumps(line).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _boot_so(state: str, loaded: str) -> str:
    """Have the machine boot into what was loaded: a dead daemon is often followed by a reboot. Give why not, in words.

    The daemon takes a `boot.nft` that is not its own for damaged, follows the most closed witness, and writes its own.
    """
    temporary = f"{state}/.tmp-boot.nft-by-hand"
    try:
        with open(loaded, "rb") as source, open(temporary, "wb") as copy:  # noqa: PTH123 - as below
            copy.write(source.read())
            copy.flush()
            os.fsync(copy.fileno())
        os.replace(temporary, f"{state}/boot.nft")  # noqa: PTH105 - as below
        folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        return f"boot.nft still opens at a reboot: {error.strerror}"
    return ""


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None


def _login() -> int | None:
    """Give the uid of the login that started the session (proc(5), loginuid), None when the kernel keeps none."""
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes longer to load than this does
            login = int(file.read())
    except (OSError, ValueError):
        return None
    return None if login == 0xFFFFFFFF else login


def _tell(level: str, loaded: str, screen: Screen, *, verified: bool, unrecorded: str) -> None:
    screen.line(f"{level.upper()}: every zone, without the daemon", "bold")
    screen.line(f"  by        {plain(loaded)}")
    if loaded.endswith("closed.nft"):
        screen.line("  kept      the lifeline alone: no service is kept", "warn")
    if verified:
        screen.line("  verified  yes, read back from the kernel", "good")
    else:
        screen.line("  verified  NO: type 'nft list table inet ecluse'", "bad")
    if unrecorded:
        screen.line(f"  recorded  NO ({unrecorded}): write down when and why, by hand", "bad")
    else:
        screen.line("  recorded  for the daemon, which takes it into its audit log when it is back")
    screen.line("  live      what is not kept is refused packet by packet; nothing was counted")
    screen.line("To go back: systemctl start ecluse, then: ecluse rollback", "bold")
