"""`ecluse cut --no-daemon`: close the gate by the prepared ruleset alone, when the daemon does not answer.

Needs root, nft(8) and one file that can be read; no daemon, no network, no disk that takes anything.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ecluse.api.peer import Accounts, Peer, actor_of
from ecluse.cli.failures import DONE, UNRECORDED, UsageError
from ecluse.errors import ForbiddenError, KernelError, StateError
from ecluse.ruleset.names import BASE_CHAINS
from ecluse.state import byhand, durable
from ecluse.state.layout import Layout
from ecluse.state.spare import Spare

if TYPE_CHECKING:
    from types import SimpleNamespace

    from ecluse.cli.terminal import Screen

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
    at = Layout(Path(os.environ.get("ECLUSE_STATE_DIR") or "/var/lib/ecluse").absolute())
    loaded = _load_first(at.ruleset / f"{args.level}.nft", at.closed, screen)
    verified = _is_shut()
    unrecorded = [*_boot_so(at, loaded), *_note(at, args, loaded)]
    if args.json:
        answer = {"level": args.level, "file": str(loaded), "verified": verified, "unrecorded": unrecorded}
        screen.raw(json.dumps(answer, indent=2))
    else:
        _tell(args.level, loaded, at, screen, verified=verified, unrecorded=unrecorded)
    return DONE if verified and not unrecorded else UNRECORDED


def _load_first(wanted: Path, last_resort: Path, screen: Screen) -> Path:
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


def _load(path: Path) -> str:
    """Load a ruleset file, whole or not at all; give nft's first words when it was refused."""
    code, _, error = _nft("-f", str(path))
    return "" if not code else (error.strip().splitlines() or [f"nft ended with {code}"])[0]


def _is_shut() -> bool:
    """Read the base chains back: each there, each with policy drop, each with its one rule."""
    found = [_nft("list", "chain", "inet", "ecluse", hook) for hook in BASE_CHAINS]
    return all(not code and "policy drop;" in text and "goto " in text for code, text, _ in found)


def _boot_so(at: Layout, loaded: Path) -> list[str]:
    """Have the machine boot into what was loaded: a dead daemon is often followed by a reboot. Say why not.

    The daemon reads the level in such a `boot.nft`, follows the most closed witness, and writes its own.
    """
    try:
        Spare(at.spare).write(at.boot, durable.read(loaded) or b"")
    except StateError as error:
        return [f"boot ruleset, which stays as it was at a reboot ({error.message})"]
    return []


def _note(at: Layout, args: SimpleNamespace, loaded: Path) -> list[str]:
    """Leave a line for the daemon's records; say why that was not possible."""
    actor = actor_of(Peer(os.getuid(), os.getpid(), frozenset()), Accounts())
    closing = byhand.Closing(
        datetime.now(tz=UTC), args.level, str(loaded), actor, args.reason or "", args.authorised_by or ""
    )
    try:
        byhand.note(at.by_hand, closing)
    except StateError as error:
        return [f"who closed it ({error.message})"]
    return []


def _tell(
    level: str, loaded: Path, at: Layout, screen: Screen, *, verified: bool, unrecorded: list[str]
) -> None:
    screen.line(f"{level.upper()}: every zone, without the daemon", "bold")
    screen.wrapped("  by        ", str(loaded))
    if loaded == at.closed:
        screen.line("  kept      the lifeline alone: no service is kept", "warn")
    if verified:
        screen.line("  verified  yes, read back from the kernel", "good")
    else:
        screen.line("  verified  NO: type 'nft list table inet ecluse'", "bad")
    if unrecorded:
        screen.line("  recorded  NOT FULLY. It is done, but this could not be written:", "bad")
        for what in unrecorded:
            screen.wrapped("            ", what, "bad")
    else:
        screen.line("  recorded  for the daemon, which takes it into its audit log when it is back")
    screen.line("  live      what is not kept is refused packet by packet; nothing was counted")
    screen.line("To go back: systemctl start ecluse, then: ecluse rollback", "bold")
