"""How each state file is written and read.

A reader gives None for a missing file, and raises CorruptError for a damaged one.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ecluse.errors import CorruptError, StateError
from ecluse.policy import CUT, ISOLATE, Policy
from ecluse.records import Generation, KnownName
from ecluse.state import codec, durable_files
from ecluse.state.layout import Layout

T = TypeVar("T")

_EVERY_ZONE = re.compile(r"# Ecluse: every zone at level '([a-z0-9_-]+)'\. ")
_INCLUDE = re.compile(r'^include "([^"\n]*)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BootHeader:
    """What `boot.nft` says of itself.

    program: file name of its program. record: the whole record of the state that it sets.
    """

    program: str
    record: Generation


def sealed_json(value: object) -> bytes:
    """Write a value as canonical JSON and its checksum line."""
    return durable_files.with_checksum(codec.canonical(value) + b"\n", durable_files.JSON_TRAILER)


def _read_json(kind: type[T], path: Path) -> T | None:
    sealed = durable_files.read_file(path)
    if sealed is None:
        return None
    data = durable_files.without_checksum(path, sealed, durable_files.JSON_TRAILER)
    try:
        return codec.read_canonical(kind, data.removesuffix(b"\n"))
    except ValueError as error:
        raise CorruptError(f"{path} holds what this version cannot read: {error}") from error


def read_generation(at: Layout, number: int) -> Generation | None:
    """Read one generation.

    Raises:
        CorruptError: It is damaged, or holds another generation than its name says.
    """
    path = at.generation_file(number)
    found = _read_json(Generation, path)
    if found is not None and found.number != number:
        raise CorruptError(f"{path} holds generation {found.number}, not the one it is named by")
    return found


def read_journal(at: Layout) -> Generation | None:
    """Read the intent."""
    return _read_json(Generation, at.journal)


def sealed_names(names: tuple[KnownName, ...]) -> bytes:
    """Write the saved addresses."""
    return sealed_json(names)


def read_names(path: Path) -> dict[str, KnownName] | None:
    """Read saved addresses, or the copy of them."""
    found: tuple[KnownName, ...] | None = _read_json(tuple[KnownName, ...], path)
    return None if found is None else {known.name: known for known in found}


def read_policy(at: Layout, digest: str) -> Policy | None:
    """Read a policy; its checksum is its name. StateError when `digest` is not one."""
    path = at.policy_file(digest)
    data = durable_files.read_file(path)
    if data is None:
        return None
    if codec.digest(data) != digest:
        raise CorruptError(f"{path} is not what was written (checksum differs)")
    try:
        return codec.read_json(Policy, data)  # the digest has just proved the spelling
    except ValueError as error:
        raise CorruptError(f"{path} holds what this version cannot read: {error}") from error


def verify_digest_name(at: Layout, path: Path) -> None:
    """Read a file that is named by its digest (a policy, a program).

    Raises:
        CorruptError: Its bytes have another digest.
    """
    data = durable_files.read_file(path)
    if data is not None and codec.digest(data) != at.digest_in(path.name):
        raise CorruptError(f"{path} is not what was written (checksum differs)")


def boot_text(at: Layout, boot: BootHeader, gate: str) -> bytes:
    """Write `boot.nft`: a header in comments for people and for us, the ruleset, the checksum."""
    lines = (
        f"# Ecluse: what this gateway loads at boot. By hand: nft -f {at.boot}",
        f"# levels: {json.dumps(dict(boot.record.levels), sort_keys=True)}",
        f"# generation: {boot.record.number}",
        f"# program: {boot.program}",
        f"# record: {codec.canonical(boot.record).decode()}",
        _include(at, boot.program),
        gate.rstrip("\n"),
        "",
    )
    return durable_files.with_checksum("\n".join(lines).encode(), durable_files.COMMENT_TRAILER)


def level_text(at: Layout, program: str, level: str, gate: str, levels: tuple[str, ...]) -> bytes:
    """Write `ruleset/LEVEL.nft`, with the names of all levels, so that a missing one is seen."""
    lines = (
        f"# Ecluse: every zone at level '{level}'. By hand: nft -f {at.ruleset / level}.nft",
        f"# of: {json.dumps(sorted(levels))}",
        _include(at, program),
        gate.rstrip("\n"),
        "",
    )
    return durable_files.with_checksum("\n".join(lines).encode(), durable_files.COMMENT_TRAILER)


def _include(at: Layout, program: str) -> str:
    # Absolute: nft looks for a relative include in its own working directory.
    return f'include "{at.ruleset / program}"'


def read_ruleset_file(path: Path) -> str | None:
    """Read a ruleset file that carries its checksum in its last line."""
    sealed = durable_files.read_file(path)
    if sealed is None:
        return None
    try:
        return durable_files.without_checksum(path, sealed, durable_files.COMMENT_TRAILER).decode()
    except UnicodeDecodeError as error:
        raise CorruptError(f"{path} is not UTF-8") from error


def read_boot(at: Layout) -> BootHeader | None:
    """Read the header of `boot.nft`. Whether its program is there and whole is not checked."""
    text = read_ruleset_file(at.boot)
    if text is None:
        return None
    try:
        program, record = (
            _value_after(line, key)
            for line, key in zip(text.split("\n")[3:5], _BOOT_KEYS, strict=True)
        )
        boot = BootHeader(program, codec.read_canonical(Generation, record.encode()))
    except ValueError as error:
        raise CorruptError(f"{at.boot} does not say which state it sets") from error
    return boot


def level_closed_offline(at: Layout) -> str:
    """Give the level of a `boot.nft` that a closing without the daemon put there.

    That is the file of a level, or of last resort. Empty when it is another's, or damaged.
    """
    try:
        text = read_ruleset_file(at.boot) or ""
        if text and text == read_ruleset_file(at.closed):
            return ISOLATE.name
    except StateError:
        return ""
    match = _EVERY_ZONE.match(text)
    return (
        match[1] if match and listed_levels(text) and match[1] in {CUT.name, ISOLATE.name} else ""
    )


_BOOT_KEYS = ("# program: ", "# record: ")


def _value_after(line: str, key: str) -> str:
    if not line.startswith(key):
        raise ValueError(line)
    return line.removeprefix(key)


def included_programs(at: Layout, text: str) -> set[str]:
    """Name the programs of this state directory that a ruleset file includes.

    One in another directory is given by its path.
    """
    paths = included_paths(text)
    return {path.name if path.parent == at.ruleset else str(path) for path in paths}


def included_paths(text: str) -> list[Path]:
    """Give the files that a ruleset file includes."""
    return [Path(found) for found in _INCLUDE.findall(text)]


def listed_levels(text: str) -> list[str]:
    """Give the levels that a level's file lists; empty when it has no readable list."""
    try:
        return list(
            codec.decode(tuple[str, ...], json.loads(_value_after(text.split("\n")[1], "# of: ")))
        )
    except (ValueError, IndexError):
        return []
