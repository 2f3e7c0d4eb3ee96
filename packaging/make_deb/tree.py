"""Which file of the repository goes where on the machine."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from make_deb.suites import ROOT

PRIVATE = Path("usr/lib/ecluse")
PYTHON = PRIVATE / "python"
UNITS = Path("usr/lib/systemd/system")
DOC = Path("usr/share/doc/ecluse")
EXAMPLES = Path("usr/share/ecluse/examples")
_UNIT = {".service", ".socket", ".target", ".timer", ".path", ".mount"}


@dataclass(slots=True)
class Units:
    """What was found in systemd/: units to enable, and names of files for sysusers and tmpfiles."""

    enabled: list[str] = field(default_factory=list)
    sysusers: list[str] = field(default_factory=list)
    tmpfiles: list[str] = field(default_factory=list)

    @property
    def started(self) -> list[str]:
        """Sockets, then services.

        Never a unit of the boot: it would load the state that the daemon is to reconcile.
        """
        sockets = [unit for unit in self.enabled if unit.endswith(".socket")]
        return [*sockets, "ecluse.service"]


def put(source: Path, target: Path, mode: int = 0o644) -> None:
    """Copy one file; what is there already is a mistake of ours."""
    if target.exists():
        raise FileExistsError(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _files(folder: Path, pattern: str = "*") -> Iterator[Path]:
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def lay_systemd(source: Path, root: Path) -> Units:
    """Lay out systemd/.

    A file that no rule knows ends the build: it would be missed on a gateway, not here.
    """
    units = Units()
    for path in _files(source):
        name, inside = path.name, path.relative_to(source)
        if len(inside.parts) == 2 and inside.parts[0].endswith(".d") and path.suffix == ".conf":
            put(path, root / UNITS / inside)
        elif len(inside.parts) > 1:
            raise ValueError(f"systemd/{inside}: the package does not know where this belongs")
        elif path.suffix in _UNIT:
            put(path, root / UNITS / name)
            if re.search(r"^\[Install\]$", path.read_text(encoding="utf-8"), re.MULTILINE):
                units.enabled.append(name)
        elif path.suffix in {".sysusers", ".tmpfiles"}:
            kind = path.suffix[1:]
            getattr(units, kind).append(f"{path.stem}.conf")
            put(path, root / f"usr/lib/{kind}.d" / f"{path.stem}.conf")
        elif path.suffix == ".nft":
            put(path, root / PRIVATE / name)
        elif path.suffix == ".sh" or os.access(path, os.X_OK):
            put(path, root / PRIVATE / name, 0o755)
        elif path.suffix != ".md":
            raise ValueError(f"systemd/{inside}: the package does not know where this belongs")
    return units


def lay_ours(root: Path) -> None:
    """Lay out programs, library, documentation and the example of a site's files."""
    for name in ("ecluse", "eclused"):
        put(ROOT / "packaging/launchers" / name, root / "usr/bin" / name, 0o755)
    for path in _files(ROOT / "src/ecluse", "*.py"):
        put(path, root / PYTHON / path.relative_to(ROOT / "src"))
    for path in _files(ROOT / "src/ecluse", "*.txt"):
        put(path, root / PYTHON / path.relative_to(ROOT / "src"))
    for path in _files(ROOT / "docs"):
        put(path, root / DOC / "docs" / path.name)
    put(ROOT / "README.md", root / DOC / "README.md")
    # Outside /usr/share/doc, which small images leave out; the link is where people look.
    for path in _files(ROOT / "config"):
        put(path, root / EXAMPLES / "config" / path.relative_to(ROOT / "config"))
    (root / DOC / "examples").symlink_to("../../ecluse/examples")
    (root / "etc/ecluse/allowlist.d").mkdir(parents=True)
