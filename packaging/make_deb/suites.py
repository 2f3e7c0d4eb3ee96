"""The releases of Debian that a package is built for, and the version that each package gets."""

import os
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Suite:
    """A release of Debian.

    python: the minor version that its /usr/bin/python3 is; bundled libraries are compiled for it.
    """

    name: str
    release: int
    python: tuple[int, int]

    @property
    def requirements(self) -> Path:
        """The pinned libraries that are bundled."""
        return ROOT / "packaging" / f"requirements-{self.name}.txt"

    @property
    def python_text(self) -> str:
        """Give the minor version as `3.11`."""
        return ".".join(map(str, self.python))


SUITES = (Suite("bookworm", 12, (3, 11)), Suite("trixie", 13, (3, 13)))


@dataclass(frozen=True, slots=True)
class Stamp:
    """The version without the suite's mark, and the time of the commit (seconds since 1970)."""

    version: str
    epoch: int

    def of(self, suite: Suite) -> str:
        """Give the package's version for a suite.

        The newer Debian's sorts higher, so that an upgrade of Debian upgrades the package.
        """
        return f"{self.version}+deb{suite.release}"

    @property
    def at(self) -> datetime:
        """Give the time of the commit."""
        return datetime.fromtimestamp(self.epoch, tz=UTC)


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if not done.returncode else ""


def stamp(version: str = "") -> Stamp:
    """Read version and time.

    A commit that is no release sorts below the release that it leads to (`~`, deb-version(7)).

    version: takes the place of what would be read.
    """
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or 0)
    if not epoch:
        raise SystemExit(
            "make deb: neither a git checkout nor SOURCE_DATE_EPOCH says when this was made"
        )
    if version:
        return Stamp(version, epoch)
    release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    if f"v{release}" in _git("tag", "--points-at", "HEAD").split():
        return Stamp(release, epoch)
    commit = _git("rev-parse", "--short=10", "HEAD") or "unknown"
    at = datetime.fromtimestamp(epoch, tz=UTC)
    return Stamp(f"{release}~{at:%Y%m%d%H%M%S}.g{commit}", epoch)
