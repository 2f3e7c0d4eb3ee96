"""Where each file of the state directory is, and what its name means."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ecluse.errors import StateError
from ecluse.state import durable_files

CLOSED_AT_BOOT = "closed-at-boot"
"""In the run directory: the boot unit's note that it closed the gate because the recorded state
could not be loaded.
"""

_GENERATION = re.compile(r"([0-9]{8,18})\.json(\.damaged-[0-9])?")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_NAMED_BY_DIGEST = re.compile(r"(?:program-)?([0-9a-f]{64})\.(?:json|nft)")


@dataclass(frozen=True, slots=True)
class Layout:
    """The files under one state directory; `root` is absolute."""

    root: Path

    @property
    def generations(self) -> Path:
        """One file for each applied state."""
        return self.root / "generations"

    @property
    def policies(self) -> Path:
        """One file for each policy that was ever applied and is still referred to."""
        return self.root / "policies"

    @property
    def ruleset(self) -> Path:
        """Compiled programs and one file for each level."""
        return self.root / "ruleset"

    @property
    def boot(self) -> Path:
        """The ruleset that the machine loads before its network."""
        return self.root / "boot.nft"

    @property
    def boot_lock(self) -> Path:
        """The second lock, loaded after `boot`; missing where none is to stand."""
        return self.root / "boot-lock.nft"

    @property
    def closed(self) -> Path:
        """The ruleset of last resort."""
        return self.root / "closed.nft"

    @property
    def journal(self) -> Path:
        """The intent: a change that was begun."""
        return self.root / "journal.json"

    @property
    def names(self) -> Path:
        """Last known addresses of host names."""
        return self.root / "names.json"

    @property
    def names_copy(self) -> Path:
        """A copy of `names`, some minutes older.

        For when the other cannot be read and no resolver answers.
        """
        return self.root / "names.copy.json"

    @property
    def audit(self) -> Path:
        """The audit chain."""
        return self.root / "audit.log"

    @property
    def offline_closings(self) -> Path:
        """The closings without the daemon since it last ran."""
        return self.root / "by-hand.log"

    @property
    def disk_reserve(self) -> Path:
        """The reserved files for a full disk (`state/disk_reserve.py`)."""
        return self.root / "spare"

    def folders(self) -> tuple[Path, ...]:
        """Give every folder that must be there, the outermost first."""
        return (self.root, self.generations, self.policies, self.ruleset)

    def generation_file(self, number: int) -> Path:
        """Give the file of a generation."""
        return self.generations / f"{number:08d}.json"

    def number_of(self, name: str) -> int | None:
        """Give the generation that a file of `generations/` belongs to (a damaged one too).

        None for a foreign name.
        """
        match = _GENERATION.fullmatch(name)
        return int(match[1]) if match else None

    def generation_numbers(self) -> list[int]:
        """Give the numbers that have a file now, readable or not, rising."""
        found = durable_files.list_folder(self.generations)
        numbers = {number for name in found if (number := self.number_of(name)) is not None}
        return sorted(number for number in numbers if self.generation_file(number).name in found)

    def policy_file(self, digest: str) -> Path:
        """Give the file of a policy.

        StateError when `digest` is not `sha256:HEX`: it may come from a request.
        """
        if not _DIGEST.fullmatch(digest):
            raise StateError(f"{digest!r:.80} is not the digest of a policy")
        return self.policies / self.policy_name(digest)

    def policy_name(self, digest: str) -> str:
        """Give the file name that a digest stands for, whatever the digest looks like."""
        return f"{digest.removeprefix('sha256:')}.json"

    def program_name(self, digest: str) -> str:
        """Give the file name of the program whose text has this digest (`sha256:HEX`)."""
        return f"program-{digest.removeprefix('sha256:')}.nft"

    def digest_in(self, name: str) -> str | None:
        """Give the digest (`sha256:HEX`) in a file name; None when it has none."""
        match = _NAMED_BY_DIGEST.fullmatch(name)
        return f"sha256:{match[1]}" if match else None

    def level_files(self) -> list[Path]:
        """Give the files of levels that are there."""
        names = durable_files.list_folder(self.ruleset)
        return [
            self.ruleset / name
            for name in names
            if name.endswith(".nft") and self.digest_in(name) is None
        ]

    def relative_name(self, path: Path) -> str:
        """Give a file's path from the state directory on, as people name it."""
        return os.path.relpath(path, self.root)
