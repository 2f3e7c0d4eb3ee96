"""`ecluse cut --no-daemon`: closes the gate by the prepared ruleset, when no daemon answers.

It needs root, nft(8) and one file that can be read. It needs no daemon, no network and no disk that
can be written.
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
from ecluse.cli.exit_codes import (
    DONE,
    UNRECORDED,
    UsageError,
    reopen_command,
    setup_commands,
)
from ecluse.errors import ForbiddenError, KernelError, StateError
from ecluse.ruleset import exit_text, flowtable
from ecluse.ruleset.table_names import BASE_CHAINS
from ecluse.state import durable_files, offline_closings, state_files
from ecluse.state.disk_reserve import DiskReserve
from ecluse.state.layout import CLOSED_AT_BOOT, Layout

if TYPE_CHECKING:
    from types import SimpleNamespace

    from ecluse.cli.terminal import Screen

_BUILT_IN = "/usr/lib/ecluse/closed.nft"
_NFT_SECONDS = 30
NOT_PERMITTED = "Operation not permitted"
"""How nft writes EPERM (strerror of the C locale)."""
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"  # a shell by plain su has no sbin


def close(args: SimpleNamespace, screen: Screen) -> int:
    """Close every zone.

    Raises:
        UsageError: a zone was named.
        ForbiddenError: the user is not root.
        KernelError: no ruleset could be loaded.
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
    # A ruleset that does not close the gate must not become what the machine boots into.
    unrecorded = [
        *(_write_boot_ruleset(at, loaded) if verified else []),
        *_append_closing(at, args, loaded),
    ]
    if verified:
        _remove_precaution_note()
    if args.json:
        answer = {
            "level": args.level,
            "file": str(loaded),
            "verified": verified,
            "unrecorded": unrecorded,
        }
        screen.raw(json.dumps(answer, indent=2))
    else:
        _show_closing(args.level, loaded, at, screen, verified=verified, unrecorded=unrecorded)
    return DONE if verified and not unrecorded else UNRECORDED


def _load_first(at: Layout, level: str, screen: Screen) -> tuple[Path, bool]:
    """Load the first ruleset that closes the gate, beginning with the one of this level.

    Gives its path, and whether the kernel shows a closed gate.
    """
    loaded: Path | None = None
    troubles: list[str] = []
    for path in (
        at.ruleset / f"{level}.nft",
        at.closed,
        Path(os.environ.get("ECLUSE_BUILT_IN") or _BUILT_IN),
    ):
        trouble = _why_unusable(at, path) if path.is_relative_to(at.root) else ""
        trouble = trouble or _load_file(path, screen)
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


def _why_unusable(at: Layout, path: Path) -> str:
    """Say why a file is not as the daemon wrote it; empty when it is.

    A file that lost its end would load, and leave every base chain accepting.
    """
    try:
        text = state_files.read_ruleset_file(path)
        if text is None:
            return "it is missing"
        for program in state_files.included_programs(at, text):
            if not (at.ruleset / program).is_file():
                return f"ruleset/{program} is missing"
            state_files.verify_digest_name(at, at.ruleset / program)
    except StateError as error:
        return error.message
    return ""


def _remove_precaution_note() -> None:
    """Remove the boot unit's note that nobody commanded this closing (systemd/boot.sh)."""
    with contextlib.suppress(OSError):
        (Path(os.environ.get("ECLUSE_RUN_DIR") or "/run/ecluse") / CLOSED_AT_BOOT).unlink()


def _run_nft(*words: str, given: str | None = None) -> tuple[int, str, str]:
    environment = {"PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["nft", *words],
            check=False,
            capture_output=True,
            input=given,
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


def _load_file(path: Path, screen: Screen) -> str:
    """Load a ruleset file, whole or not at all; give nft's first line when it refused.

    A file also ends the flowtable, and most the second lock. Where a process owns a table of that
    name (`flags owner`) the kernel refuses that, and all with it: then the gate is closed alone.
    """
    code, _, error = _run_nft("-f", str(path))
    if code and NOT_PERMITTED in error and (alone := _without_extras(path)):
        code, _, again = _run_nft("-f", "-", given=alone)
        if not code:
            _end_flows_of_strangers(screen)
        error = again or error
    return "" if not code else (error.strip().splitlines() or [f"nft ended with {code}"])[0]


def _without_extras(path: Path) -> str:
    """Give a file with the programs that it includes, but without what ends other tables."""
    try:
        text = (durable_files.read_file(path) or b"").decode()
        for program in state_files.included_paths(text):
            whole = (durable_files.read_file(program) or b"").decode()
            text = text.replace(f'include "{program}"', whole)
    except (StateError, UnicodeDecodeError):
        return ""
    for removal in (flowtable.REMOVAL, exit_text.REMOVAL):
        text = text.replace(removal, "")
    return text


def _end_flows_of_strangers(screen: Screen) -> None:
    """End the connections in a flowtable that could not be taken away, and say what is left."""
    from ecluse.kernel.conntrack import end_offloaded  # noqa: PLC0415 - no other closing needs it

    screen.wrapped_error(
        f"a process owns table {flowtable.TABLE} or {exit_text.TABLE}: the gate was closed without "
        f"taking it away. 'nft list table {flowtable.TABLE}' (or {exit_text.TABLE}) names the "
        "process: end it. Until then kept services may be slow or dropped.",
        "warn",
    )
    try:
        ended = end_offloaded()
    except OSError as error:
        screen.wrapped_error(
            f"CONNECTIONS IN A FLOWTABLE MAY GO ON: they could not be ended ({error.strerror}). "
            "Pull the cable, or end that process",
            "bad",
        )
    else:
        if ended:
            screen.wrapped_error(f"{ended} connections in a flowtable were ended", "warn")


def _is_shut() -> bool:
    """Read the base chains back: each must exist with policy drop.

    The rules in them are the file's, which was checked.
    """
    found = [_run_nft("list", "chain", "inet", "ecluse", hook) for hook in BASE_CHAINS]
    return all(not code and "policy drop;" in text for code, text, _ in found)


def _write_boot_ruleset(at: Layout, loaded: Path) -> list[str]:
    """Make the machine boot into the loaded ruleset: a reboot often follows a dead daemon.

    Gives why that failed. The daemon reads the level from such a `boot.nft`, takes the most closed
    of all that it finds, and writes its own. A ruleset that takes the second lock away may keep
    more than the stored one lets out: that goes first.
    """
    try:
        text = durable_files.read_file(loaded) or b""
        if exit_text.REMOVAL.encode() in text:
            durable_files.remove_file(at.boot_lock)
        DiskReserve(at.disk_reserve).write_file(at.boot, text)
    except StateError as error:
        return [f"boot ruleset, which stays as it was at a reboot ({error.message})"]
    return []


def _append_closing(at: Layout, args: SimpleNamespace, loaded: Path) -> list[str]:
    """Append a line for the daemon's records; give why that failed."""
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
        offline_closings.append_closing(at.offline_closings, closing)
    except StateError as error:
        return [f"who closed it ({error.message})"]
    return []


def _show_closing(
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
    """Say how to undo it on this machine, whose daemon may never have run."""
    if any(at.generations.glob("*.json")):
        return "To go back: systemctl start ecluse, then: ecluse rollback"
    return (
        "To go back: the daemon never ran here, so there is nothing to roll back to. "
        f"To open again, as root:\n{reopen_command(str(at.root))}\n"
        f"To set the daemon up, which stays shut until 'ecluse open':\n{setup_commands()}"
    )
