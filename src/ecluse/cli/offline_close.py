"""`ecluse cut --no-daemon`: close the gate by the prepared ruleset alone, when the daemon does not
answer.

Needs root, nft(8) and one file that can be read; no daemon, no network, no disk that takes
anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ecluse.accounts import Accounts
from ecluse.api.peer import Peer, actor_of
from ecluse.cli.exit_codes import DONE, UNRECORDED, UsageError, by_hand, set_up
from ecluse.errors import ForbiddenError, KernelError, StateError
from ecluse.ruleset.table_names import BASE_CHAINS
from ecluse.state import durable_files, offline_closings, state_files
from ecluse.state.disk_reserve import DiskReserve
from ecluse.state.layout import CLOSED_AT_BOOT, Layout

if TYPE_CHECKING:
    from types import SimpleNamespace

    from ecluse.cli.terminal import Screen

_BUILT_IN = "/usr/lib/ecluse/closed.nft"
_NFT_SECONDS = 30
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"  # a shell by plain su has no sbin


def close(args: SimpleNamespace, screen: Screen) -> int:
    """Close every zone.

    ForbiddenError for whoever is not root; KernelError when no ruleset could be loaded.
    """
    if args.zone:
        raise UsageError("--no-daemon closes every zone: leave --zone out. Nothing was changed.")
    if os.geteuid() != 0:
        raise ForbiddenError(
            "without the daemon only root may close the gate; nothing was changed",
            hint=f"type: sudo ecluse {args.level} --no-daemon",
        )
    at = Layout(Path(os.environ.get("ECLUSE_STATE_DIR") or "/var/lib/ecluse").absolute())
    loaded, verified = _load_first(at, args.level, screen)
    # What does not shut the gate shall not be what the machine boots into either.
    unrecorded = [*(_boot_so(at, loaded) if verified else []), *_note(at, args, loaded)]
    if verified:
        _end_precaution()
    if args.json:
        answer = {
            "level": args.level,
            "file": str(loaded),
            "verified": verified,
            "unrecorded": unrecorded,
        }
        screen.raw(json.dumps(answer, indent=2))
    else:
        _tell(args.level, loaded, at, screen, verified=verified, unrecorded=unrecorded)
    return DONE if verified and not unrecorded else UNRECORDED


def _load_first(at: Layout, level: str, screen: Screen) -> tuple[Path, bool]:
    """Load the first ruleset that shuts the gate, the wanted one first; give it, and whether the
    gate is seen to be shut.
    """
    loaded: Path | None = None
    troubles: list[str] = []
    for path in (
        at.ruleset / f"{level}.nft",
        at.closed,
        Path(os.environ.get("ECLUSE_BUILT_IN") or _BUILT_IN),
    ):
        trouble = _flaw(at, path) if path.is_relative_to(at.root) else ""
        trouble = trouble or _load(path)
        if not trouble:
            loaded = path
            if _is_shut():
                return path, True
            trouble = "it was loaded, and the gate is not seen to be shut"
        troubles.append(f"{path}: {trouble}")
        screen.wrapped_error(f"{path} cannot be used: {trouble}", "warn")
    if loaded is not None:
        return loaded, False
    raise KernelError(
        "no prepared ruleset could be loaded; nothing was changed\n" + "\n".join(troubles),
        hint="pull the cable to the internet, or shut its link:\n    ip link set dev NAME down",
    )


def _flaw(at: Layout, path: Path) -> str:
    """Say why a file is not what the daemon wrote: one that lost its end would load, and leave
    every base chain accepting.
    """
    try:
        text = state_files.read_ruleset_file(path)
        if text is None:
            return "it is missing"
        for program in state_files.programs_in(at, text):
            if not (at.ruleset / program).is_file():
                return f"ruleset/{program} is missing"
            state_files.check_named_by_digest(at, at.ruleset / program)
    except StateError as error:
        return error.message
    return ""


def _end_precaution() -> None:
    """Take away the boot unit's note that what stands is nobody's command (systemd/boot.sh): now it
    is somebody's.
    """
    with contextlib.suppress(OSError):
        (Path(os.environ.get("ECLUSE_RUN_DIR") or "/run/ecluse") / CLOSED_AT_BOOT).unlink()


def _nft(*words: str) -> tuple[int, str, str]:
    environment = {"PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["nft", *words],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_NFT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"nft did not end within {_NFT_SECONDS} s"
    except OSError as error:
        return 127, "", f"nft could not be run: {error.strerror}"
    return done.returncode, done.stdout, done.stderr


def _load(path: Path) -> str:
    """Load a ruleset file, whole or not at all; give nft's first words when it was refused."""
    code, _, error = _nft("-f", str(path))
    return "" if not code else (error.strip().splitlines() or [f"nft ended with {code}"])[0]


def _is_shut() -> bool:
    """Read the base chains back: each there, each with policy drop; what passes them is said by the
    file, which is whole.
    """
    found = [_nft("list", "chain", "inet", "ecluse", hook) for hook in BASE_CHAINS]
    return all(not code and "policy drop;" in text for code, text, _ in found)


def _boot_so(at: Layout, loaded: Path) -> list[str]:
    """Have the machine boot into what was loaded: a dead daemon is often followed by a reboot.

    Say why not.

    The daemon reads the level in such a `boot.nft`, follows the most closed witness, and writes its
    own.
    """
    try:
        DiskReserve(at.spare).write(at.boot, durable_files.read_file(loaded) or b"")
    except StateError as error:
        return [f"boot ruleset, which stays as it was at a reboot ({error.message})"]
    return []


def _note(at: Layout, args: SimpleNamespace, loaded: Path) -> list[str]:
    """Leave a line for the daemon's records; say why that was not possible."""
    actor = actor_of(Peer(os.getuid(), os.getpid(), frozenset()), Accounts())
    closing = offline_closings.OfflineClosing(
        datetime.now(tz=UTC),
        args.level,
        str(loaded),
        actor,
        args.reason or "",
        args.authorised_by or "",
    )
    try:
        offline_closings.append_closing(at.by_hand, closing)
    except StateError as error:
        return [f"who closed it ({error.message})"]
    return []


def _tell(
    level: str, loaded: Path, at: Layout, screen: Screen, *, verified: bool, unrecorded: list[str]
) -> None:
    screen.line(f"{level.upper()}: every zone, without the daemon", "bold")
    screen.wrapped("  by        ", str(loaded))
    if loaded.name == at.closed.name:
        alone = (
            "the lifeline alone"
            if loaded == at.closed
            else "what is private, among itself (no site is known)"
        )
        screen.line(f"  kept      {alone}: no service is kept", "warn")
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
    if verified:
        screen.line("  live      what is not kept is refused packet by packet; nothing was counted")
    screen.wrapped_error(_way_back(at), "bold")


def _way_back(at: Layout) -> str:
    """Say how to undo it, as it is on this machine: the daemon may never have run."""
    if any(at.generations.glob("*.json")):
        return "To go back: systemctl start ecluse, then: ecluse rollback"
    return (
        f"To go back: the daemon never ran here, so there is nothing to roll back to. To open again, as root:\n{by_hand(str(at.root))}\n"
        f"To set the daemon up, which stays shut until 'ecluse open':\n{set_up()}"
    )
