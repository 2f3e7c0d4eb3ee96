"""The state directory: generations, policies, journal, boot ruleset, addresses (ports.StateStore).

generations/00000007.json  one applied state each, never rewritten; the newest may come after its
                           `boot.nft`
policies/HEX.json          site and allowlist, named by the sha256 of the bytes
ruleset/program-HEX.nft    a compiled table, named by the sha256 of the text
ruleset/LEVEL.nft          the newest program with every zone at that level, complete by itself
boot.nft                   what the machine loads before its network and what a person loads by
                           hand, with its record
closed.nft                 the ruleset of last resort
journal.json               a change that was begun (the intent): for a daemon that is killed, not
                           for a power cut
`spare/`                   reserved room for the records of closings on a full disk
                           (`state/disk_reserve.py`)
by-hand.log                closings without the daemon, until they are in the audit log
names.json                 last known addresses of host names
names.copy.json            the same, at most some minutes older
audit.log, audit.head      the audit chain (`state/audit_log.py`)
"""

import contextlib
import re
import time
from collections.abc import Mapping
from pathlib import Path

from ecluse import atomic_files
from ecluse.errors import StateError
from ecluse.policy import Policy
from ecluse.ports import Recovered
from ecluse.records import Generation, KnownName
from ecluse.state import codec, durable_files, state_files
from ecluse.state.disk_reserve import DiskReserve
from ecluse.state.layout import Layout
from ecluse.state.recovery import recover
from ecluse.state.state_files import BootHeader

_NO_NFT_PATH = re.compile(
    r'["\\*?\[\]{}\x00-\x1f]'
)  # nft globs the path of an include, and has no escapes in it
_COPY_SECONDS = 300.0
"""Seconds between two copies of the saved addresses: another file, so that one bad sector does not
take both.
"""
# As the site's files have it; shorter than any name by a digest (`Layout.digest_in`), so that none
# is taken for one.
_LEVEL = re.compile(r"[a-z][a-z0-9_-]{0,47}")


class DirectoryState:
    """ports.StateStore in a directory (mode 0750, files 0640).

    Nothing is touched before the first call. A write of the boot ruleset or of a generation costs
    two fsyncs (file and folder), one of the intent costs one (the file).
    """

    def __init__(self, state_dir: Path) -> None:
        self._at = Layout(state_dir.absolute())
        if _NO_NFT_PATH.search(str(self._at.root)):
            raise StateError(
                f"the state directory {str(self._at.root)!r} has a character "
                "that nft cannot include a file by",
                hint="choose a path without quotes, brackets, braces, backslashes, '*' and '?'",
            )
        self._ready = False
        self._encoded: tuple[Policy, bytes] | None = None
        self._intent: Generation | None = None
        self._recorded = 0
        self._copy_due = 0.0

    @property
    def audit_path(self) -> Path:
        """Where the audit log belongs: `recover` looks for it there."""
        return self._at.audit

    def recover(self) -> Recovered:
        """Read everything, repair a torn audit tail, and report what was found.

        Damaged content never raises: it is in `damage`, by file name and with its consequence. A
        folder, link or FIFO in a file's place is renamed to `NAME.damaged-N`.

        Raises:
            StateError: The directory itself cannot be made, listed or read.
        """
        found = recover(self._at)
        self._ready = True
        self._intent = found.intent
        self._recorded = found.recorded.number if found.recorded else 0
        return found

    def write_intent(self, generation: Generation) -> None:
        """Record a change that is about to be made, for a daemon that is killed during it.

        A power cut may lose it: it explains a kernel that differs from the files, and no power cut
        leaves one.
        """
        self._prepare()
        durable_files.write_file(
            self._at.journal, state_files.sealed_json(generation), durable=False
        )
        self._intent = generation

    def clear_intent(self) -> None:
        """Remove the intent: the change is recorded, or was not made.

        No fsync when its generation is recorded: should the intent come back after a power cut, the
        generation of its number shows that it was done.
        """
        done = self._intent is not None and self._intent.number <= self._recorded
        durable_files.remove_file(self._at.journal, durable=not done)
        self._intent = None

    def write_generation(self, generation: Generation) -> None:
        """Record an applied state. A different file under its number is set aside."""
        self._prepare()
        path = self._at.generation_file(generation.number)
        data = state_files.sealed_json(generation)
        if not _is_stored(path, data):
            durable_files.write_file(path, data)
        # A record that the disk refused may be written after a newer one.
        self._recorded = max(self._recorded, generation.number)

    def digest_policy(self, policy: Policy) -> str:
        """Give the digest under which `write_policy` would store a policy; writes nothing."""
        data = codec.canonical(policy)
        self._encoded = (policy, data)
        return codec.digest(data)

    def write_policy(self, policy: Policy) -> str:
        """Store a policy under its digest (`sha256:HEX`); give the digest.

        The same policy is stored once.
        """
        self._prepare()
        held, self._encoded = self._encoded, None  # mostly asked for its digest just before
        data = held[1] if held and held[0] is policy else codec.canonical(policy)
        digest = codec.digest(data)
        path = self._at.policy_file(digest)
        if not _is_stored(path, data):
            durable_files.write_file(path, data)
        return digest

    def read_policy(self, digest: str) -> Policy:
        """Read a stored policy.

        StateError when missing, CorruptError when it is not what was written.
        """
        policy = state_files.read_policy(self._at, digest)
        if policy is None:
            raise StateError(
                f"the policy {digest} is not stored: {self._at.policy_file(digest)} is missing"
            )
        return policy

    def write_program(self, text: str, gates: Mapping[str, str]) -> str:
        """Store a compiled ruleset and one small ruleset file for each level; give its name.

        The name is `program-HEX.nft`, HEX the sha256 of the text in UTF-8.

        Args:
            text: The whole table.
            gates: Level name -> the transaction that switches every zone to it.

        Raises:
            StateError: A level name cannot be a file name, or the disk does not take a file.
        """
        for level in gates:
            if not _LEVEL.fullmatch(level):
                raise StateError(f"the level name {level!r} cannot be a file name")
        self._prepare()
        data = text.encode()
        name = self._at.program_name(codec.digest(data))
        contents = {} if _is_stored(self._at.ruleset / name, data) else {name: data}
        for level, gate in gates.items():
            small = state_files.level_text(self._at, name, level, gate, tuple(gates))
            if not _has_bytes(self._at.ruleset / f"{level}.nft", small):
                contents[f"{level}.nft"] = small
        durable_files.write_all(self._at.ruleset, contents)
        return name

    def has_program(self, name: str) -> bool:
        """Say whether a program of that name is stored. Costs no reading of it."""
        return self._at.digest_in(name) is not None and (self._at.ruleset / name).is_file()

    def point_boot(
        self, program: str, gate: str, generation: Generation, *, use_reserve: bool = False
    ) -> None:
        """Make `boot.nft` of a program and the switch's text, and record the state that it sets.

        Both or neither: the whole record stands in the file, with a checksum, so that a change is
        one file. `write_generation` may follow. use_reserve: on a full disk take a reserved file
        for it.
        """
        self._prepare()
        data = state_files.boot_text(self._at, BootHeader(program, generation), gate)
        if use_reserve:
            DiskReserve(self._at.disk_reserve).write_file(self._at.boot, data)
        else:
            durable_files.write_file(self._at.boot, data)
        self._recorded = max(self._recorded, generation.number)

    def fill_disk_reserve(self) -> None:
        """Make the reserved files that are missing; as a rule there is nothing to do."""
        self._prepare()
        DiskReserve(self._at.disk_reserve).fill()

    def write_boot_lock(self, text: str) -> None:
        """Store `boot-lock.nft`, the second lock; an empty text removes it."""
        if text:
            self._write_ruleset(self._at.boot_lock, text)
        else:
            durable_files.remove_file(self._at.boot_lock)

    def write_closed(self, text: str) -> None:
        """Store `closed.nft`, the ruleset of last resort."""
        self._write_ruleset(self._at.closed, text)

    def _write_ruleset(self, path: Path, text: str) -> None:
        self._prepare()
        body = text if text.endswith("\n") else text + "\n"
        durable_files.write_file(
            path, durable_files.with_checksum(body.encode(), durable_files.COMMENT_TRAILER)
        )

    def forget(self, keep_generations: int) -> None:
        """Delete old generations, and the policies and programs that nothing uses.

        keep_generations: how many stay, at least 1. A file is used when a kept generation, the
        intent, `boot.nft` or a level's file names it. While one of these cannot be read, nothing of
        its kind is deleted.
        """
        numbers = self._at.generation_numbers()
        kept = numbers[-max(1, keep_generations) :]
        for name in durable_files.list_folder(self._at.generations):
            number = self._at.number_of(name)
            if number is not None and kept and number < kept[0]:
                _remove_unneeded(self._at.generations / name)
        policies, programs = self._used(kept)
        for folder, used in ((self._at.policies, policies), (self._at.ruleset, programs)):
            for name in durable_files.list_folder(folder) if used is not None else ():
                if self._at.digest_in(name) and used is not None and name not in used:
                    _remove_unneeded(folder / name)

    def remove_offline_closings(self) -> None:
        """Delete the closings without the daemon: they are in the audit log."""
        _remove_unneeded(self._at.offline_closings)

    def read_names(self) -> Mapping[str, KnownName]:
        """Read the saved addresses of host names.

        The copy serves when they are missing or damaged (`recover` reports the damage).
        """
        for path in (self._at.names, self._at.names_copy):
            with contextlib.suppress(StateError):
                found = state_files.read_names(path)
                if found is not None:
                    return found
        return {}

    def write_names(self, names: Mapping[str, KnownName]) -> None:
        """Save the addresses of host names, and every COPY_SECONDS a copy.

        Without them and without the DNS, a service by name is cut off.
        """
        self._prepare()
        sealed = state_files.sealed_names(tuple(names[name] for name in sorted(names)))
        durable_files.write_file(self._at.names, sealed)
        if time.monotonic() >= self._copy_due:
            durable_files.write_file(self._at.names_copy, sealed)
            self._copy_due = time.monotonic() + _COPY_SECONDS

    def _prepare(self) -> None:
        if not self._ready:
            for folder in self._at.folders():
                durable_files.make_folder(folder)
            self._ready = True

    def _used(self, kept: list[int]) -> tuple[set[str] | None, set[str] | None]:
        """Name the files of policies and programs in use; None where that cannot be known."""
        at = self._at
        try:
            users = [state_files.read_generation(at, number) for number in kept]
            users.append(state_files.read_journal(at))
            boot = state_files.read_boot(at)
            users.append(boot.record if boot else None)
            present = [each for each in users if each is not None]
        except StateError:
            return None, None
        policies = {at.policy_name(each.policy) for each in present}
        try:
            programs = {
                at.program_name(each.ruleset) for each in present
            } | self._programs_included()
        except StateError:
            return policies, None
        return policies, programs

    def _programs_included(self) -> set[str]:
        texts = (
            state_files.read_ruleset_file(path) for path in (self._at.boot, *self._at.level_files())
        )
        return {
            name
            for text in texts
            if text is not None
            for name in state_files.included_programs(self._at, text)
        }


def _has_bytes(path: Path, data: bytes) -> bool:
    try:
        return durable_files.read_file(path) == data
    except StateError:
        return False


def _is_stored(path: Path, data: bytes) -> bool:
    """Say whether `path` has just these bytes, durably. A different file is set aside."""
    try:
        found = durable_files.read_file(path)
    except StateError:
        found = b""
    if found is None:
        return False
    if found != data:
        durable_files.set_aside(path)
        return False
    try:
        atomic_files.sync_folder(
            path.parent
        )  # its bytes were synced before it got its name; the name may not be
    except OSError as error:
        raise durable_files.state_error("write", path, error) from error
    return True


def _remove_unneeded(path: Path) -> None:
    """Remove a file that is not needed any more, without fsync: its return does no harm.

    A folder in its place stays.
    """
    if not path.is_dir():
        durable_files.remove_file(path, durable=False)
