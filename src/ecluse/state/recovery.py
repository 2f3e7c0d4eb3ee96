"""Read a state directory at start.

Everything is read, each damage is put into words, and nothing is believed without a checksum.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from ecluse import atomic_files
from ecluse.errors import CorruptError, StateError
from ecluse.policy import ISOLATE
from ecluse.ports import Recovered
from ecluse.records import Generation
from ecluse.state import audit_log, durable_files, offline_closings, state_files
from ecluse.state.layout import Layout
from ecluse.state.state_files import BootHeader

T = TypeVar("T")

_MAX_GENERATIONS = 10_000
_MAX_DAMAGE = 100


def recover(at: Layout) -> Recovered:
    """Read the state directory as `ports.StateStore.recover` says."""
    return _Recovery(at).run()


def _more_closed(one: str, other: str) -> str:
    """Give the more closed of two levels, each `isolate`, `cut` or empty."""
    return ISOLATE.name if ISOLATE.name in {one, other} else one or other


class _Recovery:
    """One reading of the directory; `_damage` grows with it."""

    def __init__(self, at: Layout) -> None:
        self._at = at
        self._damage: list[str] = []
        self._without_names = "host names are looked up again"

    def run(self) -> Recovered:
        at = self._at
        self._folders()
        used = self._used_before()
        generations = self._generations()
        boot_by_hand = state_files.level_closed_offline(at)
        boot = None if boot_by_hand else self._boot()
        intent = self._read_or_report(
            at.journal, partial(state_files.read_journal, at), "a change may have been under way"
        )
        if boot is not None and boot.record.number > max(generations, default=0):
            self._write_missing_generation(boot.record, intent)
            generations[boot.record.number] = boot.record
        newest = max(generations, default=0)
        chain = self._audit()
        if boot is not None:
            self._boot_program(boot)
        self._names()
        self._read_or_report(
            at.closed, partial(state_files.read_ruleset_file, at.closed), "it is written again"
        )
        self._named_by_digest()
        self._level_files()
        if generations or (used and boot is not None):
            self._missing_files(interrupted=intent is not None)
        if used and not generations:
            self._damage.append(
                "generations/: no generation can be read, although this gateway was in use before"
            )
        self._missing_generations(generations, chain.generation)
        self._missing_policies(generations)
        by_hand, unread = self._read_or_report(
            at.offline_closings,
            partial(offline_closings.read_closings, at.offline_closings),
            "it is not recorded",
        ) or (
            (),
            "",
        )
        if unread:
            self._report(at.offline_closings, unread, "they are not recorded")
        return Recovered(
            first_install=not used,
            generations=generations,
            recorded=generations.get(newest),
            boot_levels=None if boot is None else boot.record.levels,
            audit_levels=chain.levels,
            # A generation that is recorded was done: only the removal of its intent was not.
            intent=None if intent is not None and intent.number <= newest else intent,
            damage=_limited(self._damage),
            by_hand=tuple(one.audit_record() for one in by_hand),
            closed_by_hand=_more_closed(
                boot_by_hand, offline_closings.level_since(by_hand, generations.get(newest))
            ),
        )

    def _boot(self) -> BootHeader | None:
        at = self._at
        return self._read_or_report(
            at.boot, partial(state_files.read_boot, at), "the levels it set are unknown"
        )

    def _folders(self) -> None:
        at = self._at
        durable_files.make_folder(at.root)
        for folder in at.folders()[1:]:
            if os.path.lexists(folder) and not folder.is_dir():
                self._set_aside(folder, "is not a folder")
            durable_files.make_folder(folder)
        for folder in at.folders():
            atomic_files.remove_temporaries(folder)

    def _used_before(self) -> bool:
        at = self._at
        return bool(
            durable_files.list_folder(at.generations)
            or durable_files.list_folder(at.policies)
            or os.path.lexists(at.boot)
            or os.path.lexists(at.journal)
            or _is_not_empty(at.audit)
        )

    def _names(self) -> None:
        """Check the saved addresses of host names; the copy serves when they cannot be read."""
        at = self._at
        copy = self._read_or_report(
            at.names_copy, partial(state_files.read_names, at.names_copy), "it is written again"
        )
        if copy is not None:
            self._without_names = "its copy, of some minutes before, is used"
        self._read_or_report(
            at.names, partial(state_files.read_names, at.names), self._without_names
        )

    def _read_or_report(
        self, path: Path, reader: Callable[[], T | None], consequence: str
    ) -> T | None:
        """Read one file. Damage is reported with its consequence, and gives None.

        What is no regular file is renamed out of the way.
        """
        try:
            return reader()
        except CorruptError as error:
            if path.is_symlink() or not path.is_file():
                self._set_aside(path, "is not a regular file", consequence)
            else:
                self._report(path, self._relative(error.message), consequence)
        except StateError as error:
            self._report(path, self._relative(error.message), consequence)
        return None

    def _relative(self, words: str) -> str:
        return words.replace(f"{self._at.root}/", "")

    def _report(self, path: Path, words: str, consequence: str) -> None:
        told = self._at.relative_name(path)
        start = words if words.startswith(told) else f"{told}: {words}"
        self._damage.append(f"{start}; {consequence}")

    def _set_aside(self, path: Path, words: str, consequence: str = "a new one is made") -> None:
        told = self._at.relative_name(path)
        try:
            aside = self._at.relative_name(durable_files.set_aside(path))
        except StateError as error:
            self._damage.append(
                f"{told} {words}, and {self._relative(error.message)}; {consequence}"
            )
        else:
            self._damage.append(f"{told} {words}, renamed to {aside}; {consequence}")

    def _generations(self) -> dict[int, Generation]:
        numbers = self._at.generation_numbers()
        if len(numbers) > _MAX_GENERATIONS:
            self._damage.append(
                f"generations/: {len(numbers)} files; only the newest {_MAX_GENERATIONS} were read"
            )
        found: dict[int, Generation] = {}
        for number in numbers[-_MAX_GENERATIONS:]:
            generation = self._read_or_report(
                self._at.generation_file(number),
                partial(state_files.read_generation, self._at, number),
                "it is left out",
            )
            if generation is not None:
                found[number] = generation
        return found

    def _write_missing_generation(self, record: Generation, intent: Generation | None) -> None:
        """Write the newest generation's file from `boot.nft`.

        `boot.nft` has the record before the file exists. Reported, since somebody may have taken
        the file away; not where an intent shows that the daemon died in between.
        """
        path = self._at.generation_file(record.number)
        if os.path.lexists(path):
            return  # damaged: that was told, and stays as evidence
        if intent is None or intent.number != record.number:
            self._damage.append(
                f"{self._at.relative_name(path)} was not there; it was written from boot.nft"
            )
        try:
            durable_files.write_file(path, state_files.sealed_json(record))
        except StateError as error:
            self._report(path, self._relative(error.message), "boot.nft holds it")

    def _audit(self) -> audit_log.Survey:
        path = self._at.audit
        try:
            self._damage += audit_log.repair(path, lambda: datetime.now(UTC))
        except CorruptError as error:
            self._set_aside(
                path, self._relative(error.message).removeprefix("audit.log "), "a new log is begun"
            )
        except StateError as error:
            self._report(path, self._relative(error.message), "its torn end was not repaired")
        try:
            found = audit_log.survey(path)
        except StateError as error:
            self._report(
                path, self._relative(error.message), "what stood last is not known from it"
            )
            return audit_log.Survey(lines=False, damage=(), levels=None, generation=0)
        self._damage += (self._relative(words) for words in found.damage)
        return found

    def _boot_program(self, boot: BootHeader) -> None:
        at = self._at
        text = state_files.read_ruleset_file(at.boot) or ""
        if state_files.included_programs(at, text) != {boot.program}:
            self._damage.append(
                f"boot.nft includes another program than {boot.program}; it is written again"
            )
        elif not os.path.lexists(at.ruleset / boot.program):
            self._damage.append(
                f"ruleset/{boot.program} is missing: "
                "boot.nft cannot be loaded until it is written again"
            )

    def _named_by_digest(self) -> None:
        for folder, consequence in (
            (self._at.policies, "generations that name it cannot be restored"),
            (
                self._at.ruleset,
                "rulesets that include it cannot be loaded until it is written again",
            ),
        ):
            for name in durable_files.list_folder(folder):
                if self._at.digest_in(name) is not None:
                    path = folder / name
                    self._read_or_report(
                        path,
                        partial(state_files.verify_digest_name, self._at, path),
                        consequence,
                    )

    def _level_files(self) -> None:
        at = self._at
        there = at.level_files()
        expected: set[str] = set()
        for path in there:
            text = self._read_or_report(
                path, partial(state_files.read_ruleset_file, path), "do not load it by hand"
            )
            if text is None:
                continue
            expected |= {f"{level}.nft" for level in state_files.listed_levels(text)}
            for program in sorted(state_files.included_programs(at, text)):
                if not os.path.lexists(at.ruleset / program):
                    told = at.relative_name(path)
                    self._damage.append(
                        f"{told} cannot be loaded: ruleset/{program} is missing; "
                        "both are written again"
                    )
        for name in sorted(expected - {path.name for path in there}):
            self._damage.append(f"ruleset/{name} is missing; it is written again")

    def _missing_files(self, *, interrupted: bool) -> None:
        """Report the files that are missing beside the generations.

        A crash in the middle of a change explains most of them.
        """
        at = self._at
        if interrupted:
            return
        if not os.path.lexists(at.boot) and not self._is_reported("boot.nft"):
            self._damage.append(
                "boot.nft is missing: what this gateway loaded at boot is not known from it"
            )
        if not os.path.lexists(at.closed) and not self._is_reported("closed.nft"):
            self._damage.append(
                "closed.nft is missing: the ruleset of last resort; it is written again"
            )
        if not _is_not_empty(at.audit) and not self._is_reported("audit.log"):
            self._damage.append(
                "audit.log is missing or empty: who did what until now cannot be told from it"
            )
        if not os.path.lexists(at.names) and not self._is_reported("names.json"):
            self._damage.append(f"names.json is missing: {self._without_names}")
        if not at.level_files():
            self._damage.append(
                "ruleset/: the files of the levels are missing; they are written again"
            )

    def _is_reported(self, name: str) -> bool:
        return any(words.startswith(name) for words in self._damage)

    def _missing_generations(self, found: Mapping[int, Generation], audited: int) -> None:
        named: dict[int, str] = {}
        oldest = min(found, default=0)
        for generation in found.values():
            if generation.previous > oldest:
                named.setdefault(generation.previous, f"generation {generation.number} follows it")
        if audited > oldest:
            named.setdefault(audited, "audit.log says it was reached")
        for number in sorted(named.keys() - found.keys()):
            name = self._at.relative_name(self._at.generation_file(number))
            self._damage.append(f"{name} cannot be read: {named[number]}")

    def _missing_policies(self, found: Mapping[int, Generation]) -> None:
        users: dict[str, list[int]] = {}
        for generation in found.values():
            users.setdefault(self._at.policy_name(generation.policy), []).append(generation.number)
        for name, numbers in users.items():
            if not os.path.lexists(self._at.policies / name):
                which = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
                self._damage.append(
                    f"policies/{name} is missing: generation {which} cannot be restored"
                )


def _is_not_empty(path: Path) -> bool:
    """Say whether something stands at `path` that is not an empty file."""
    try:
        return not path.is_file() or path.lstat().st_size > 0 if os.path.lexists(path) else False
    except OSError:
        return True


def _limited(damage: list[str]) -> tuple[str, ...]:
    more = len(damage) - _MAX_DAMAGE
    return (*damage[:_MAX_DAMAGE], f"and {more} more") if more > 0 else tuple(damage)
