"""The machine's own users and groups, from passwd(5) and group(5).

They are read straight from the files, never through NSS: with the network cut, a directory server
that does not answer would hang the daemon in the very minute it is needed. Such a server may also
be what is under attack.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ecluse.safe_text import replace_unsafe

_MAX_BYTES = 8 << 20  # of a file that is read


class Accounts:
    """The account files, read again when they change."""

    def __init__(
        self, passwd: Path = Path("/etc/passwd"), group: Path = Path("/etc/group")
    ) -> None:
        # For getpwuid(3) and for getpwnam(3).
        self._user_names = _AccountFile(passwd, lambda text: _column(text, key=2, value=0))
        self._uids = _AccountFile(passwd, lambda text: _column(text, key=0, value=2))
        self._gids = _AccountFile(group, lambda text: _column(text, key=0, value=2))

    def user_name(self, uid: int) -> str:
        """Give the name of a uid, `uid 1234` when the machine has none for it."""
        return replace_unsafe(self._user_names.get(str(uid)) or f"uid {uid}", 64)

    def uid(self, user: str) -> int | None:
        """Give the uid of a user's name or of a number in text; None when there is no such user."""
        return _number_of(user, self._uids)

    def gid(self, group: str) -> int | None:
        """Give the gid of a group name or of a number in text; None when there is no such group."""
        return _number_of(group, self._gids)


@dataclass(slots=True)
class _AccountFile:
    """One account file, parsed again only when it changed."""

    path: Path
    parse: Callable[[str], Mapping[str, str]]
    parsed: tuple[int, int, int] = (0, 0, 0)
    entries: Mapping[str, str] = field(default_factory=dict)

    def get(self, key: str) -> str | None:
        try:
            stat = self.path.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if version != self.parsed:
                with self.path.open("rb") as file:
                    self.entries = self.parse(file.read(_MAX_BYTES).decode("utf-8", "replace"))
                self.parsed = version
        except OSError:
            self.parsed, self.entries = (0, 0, 0), {}
        return self.entries.get(key)


def _column(text: str, *, key: int, value: int) -> dict[str, str]:
    """Map one column to another; the first line of a key wins, as for getpwuid(3)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 3 and parts[0] and is_number(parts[2]):
            found.setdefault(parts[key], parts[value])
    return found


def _number_of(name: str, file: _AccountFile) -> int | None:
    if is_number(name):
        return int(name)
    found = file.get(name) if name else None
    return int(found) if found is not None else None


def is_number(text: str) -> bool:
    """Say whether a text is a number in ASCII digits."""
    return text.isascii() and text.isdigit()
