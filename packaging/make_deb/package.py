"""Puts one package together: tree, control file, maintainer scripts, archive."""

import gzip
import hashlib
import os
import shutil
import subprocess
from email.utils import format_datetime
from pathlib import Path

from make_deb import completion, manual, tree, wheels
from make_deb.suites import ROOT, Stamp, Suite

MAINTAINER = "Écluse maintainers <maintainers@ecluse.invalid>"
SCRIPTS = ROOT / "packaging/scripts"
_DESCRIPTION = """\
cuts a hospital off the internet and keeps its vital services
 Écluse runs on the Linux gateway of a hospital. In an attack one command, at
 once, ends all traffic with the internet but that of the services that care
 depends on (laboratories, blood bank, emergency dispatch), which lose no
 packet. It proves the cut from the kernel, holds it through crashes and
 reboots, records who did what, and takes it back in small, watched steps.
 .
 The daemon eclused keeps one nftables table of its own and touches no other.
 The Python libraries that it needs and that this release of Debian has not, or
 has too old, come with it in a directory of its own.
"""


def _control(suite: Suite, stamp: Stamp, size: int) -> str:
    major, minor = suite.python
    depends = (
        f"python3 (>= {major}.{minor})",
        f"python3 (<< {major}.{minor + 1})",
        "python3-nftables",
        "python3-yaml",
        "nftables (>= 1.0.6)",
        "libc6 (>= 2.28)",
        "libgcc-s1 (>= 4.2)",
        "systemd",
    )
    fields = {
        "Package": "ecluse",
        "Version": stamp.of(suite),
        "Architecture": "amd64",
        "Maintainer": MAINTAINER,
        "Installed-Size": str(size),
        "Depends": ", ".join(depends),
        "Recommends": "dnsmasq-base",
        "Section": "net",
        "Priority": "optional",
        "Description": _DESCRIPTION.rstrip("\n"),
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _script(name: str, suite: Suite, units: tree.Units) -> str:
    """Fill in what a maintainer script leaves open: lines and words between two #."""
    values = {
        "#GATE#": (SCRIPTS / "gate.sh").read_text(encoding="utf-8").rstrip("\n"),
        "#LEFT#": (SCRIPTS / "left-cut.sh").read_text(encoding="utf-8").rstrip("\n"),
        "#UNITS#": " ".join(units.enabled),
        "#START#": " ".join(units.started),
        "#PYTHON#": suite.python_text,
        "#SYSUSERS#": f"systemd-sysusers {' '.join(units.sysusers)}" if units.sysusers else ":",
        "#TMPFILES#": f"systemd-tmpfiles --create {' '.join(units.tmpfiles)} || true"
        if units.tmpfiles
        else ":",
    }
    text = (SCRIPTS / name).read_text(encoding="utf-8")
    for word, value in values.items():
        text = text.replace(word, value)
    return text


def _changelog(suite: Suite, stamp: Stamp) -> bytes:
    entry = (
        f"ecluse ({stamp.of(suite)}) {suite.name}; urgency=medium\n\n"
        "  * What a user notices stands in docs/CHANGELOG.md beside this file.\n\n"
        f" -- {MAINTAINER}  {format_datetime(stamp.at)}\n"
    )
    return gzip.compress(entry.encode(), mtime=0)


def _copyright(licences: Path) -> str:
    head = (ROOT / "packaging/copyright").read_text(encoding="utf-8").rstrip("\n")
    return head + "".join(f"\n {folder.name}" for folder in sorted(licences.iterdir())) + "\n"


def _lay_made(root: Path, stamp: Stamp) -> None:
    """Lay out what is made from the code: manual pages and completion."""
    texts = dict(completion.files())
    for name, text in manual.pages(f"{stamp.at:%Y-%m-%d}").items():
        texts[f"usr/share/man/man{name[-1]}/{name}.gz"] = text
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _seal(root: Path, epoch: int) -> int:
    """Set modes and times; give the size in KiB as Debian counts it.

    Each file is rounded up to a KiB, and a directory counts as one.
    """
    size = 0
    for path in sorted(root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
        size += 1 if path.is_dir() or path.is_symlink() else -(-path.stat().st_size // 1024)
    return size


def _md5sums(root: Path) -> str:
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())
    return "".join(
        (
            f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  "
            f"{path.relative_to(root)}\n"
        )
        for path in found
    )


def build(suite: Suite, stamp: Stamp, out: Path, cache: Path) -> Path:
    """Build one package; give its path."""
    folder = out / suite.name
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "root"
    doc = root / tree.DOC
    tree.lay_ours(root)
    _lay_made(root, stamp)
    units = tree.lay_systemd(ROOT / "systemd", root)
    wheels.unpack(wheels.fetch(suite, cache / suite.name), root / tree.PYTHON, doc / "licences")
    (doc / "changelog.gz").write_bytes(_changelog(suite, stamp))
    tree.put(ROOT / "CHANGELOG.md", doc / "docs/CHANGELOG.md")
    (doc / "copyright").write_text(_copyright(doc / "licences"), encoding="utf-8")
    overrides = root / "usr/share/lintian/overrides/ecluse"
    tree.put(ROOT / "packaging/lintian-overrides", overrides)
    size, sums = _seal(root, stamp.epoch), _md5sums(root)
    control = root / "DEBIAN"
    control.mkdir()
    for name in ("postinst", "prerm", "postrm"):
        (control / name).write_text(_script(name, suite, units), encoding="utf-8")
        (control / name).chmod(0o755)
    (control / "control").write_text(_control(suite, stamp, size), encoding="utf-8")
    (control / "md5sums").write_text(sums, encoding="utf-8")
    package = folder / f"ecluse_{stamp.of(suite)}_amd64.deb"
    command = [
        "dpkg-deb",
        "--root-owner-group",
        "-Zxz",
        "--threads-max=1",
        "--build",
        str(root),
        str(package),
    ]
    subprocess.run(
        command,
        check=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(stamp.epoch)},
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(root)
    return package
