"""Base systems, disks and an emulator, made from Debian's packages and kept in build/vm.

A file is named by a hash of all that went into it, so a changed recipe or package makes a new one
and nothing is ever stale. `python -m tests.vm.images [12|13] [--deb FILE]` builds ahead of the
tests and says how long it took.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.hosts import ROOT
from tests.vm import guest

CACHE = ROOT / "build" / "vm"

NEEDS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
}
"""Program -> the package of this machine that brings it."""

_SYSTEM = (
    *(
        "systemd-sysv",
        "udev",
        "dbus",
        "kmod",
        "iproute2",
        "procps",
        "libcap2-bin",
        "qemu-guest-agent",
    ),
    *("iputils-ping", "python3", "linux-image-cloud-amd64"),
)
_PRODUCT = ("nftables", "python3-nftables", "python3-yaml", "dnsmasq-base", "adduser")
"""What the package depends on: an image is installed offline, so all of it has to be there before.
"""
_NEIGHBOURS = ("conntrack", "iptables", "ipset", "firewalld", "ufw")
"""Other firewalls and tools that a gateway may have. None of them is enabled."""
_SHAPES = (
    *("frr", "keepalived", "libteam-utils", "tayga", "udhcpc", "wireguard-tools"),
    *("charon-systemd", "strongswan-swanctl", "wide-dhcpv6-client", "wide-dhcpv6-server"),
)
"""What the shapes of gateway run. None of them is enabled either."""

# No manuals: a third of the size. The one customize hook is one line for each thing that a test
# would trip over.
_PATHS = ("doc", "man", "locale", "info")
_CUSTOMIZE = r"""
set -eu
cd "$1"
chroot . passwd -q -d root
chroot . systemctl -q enable systemd-networkd
chroot . systemctl -q disable nftables firewalld ufw conntrackd ipset netfilter-persistent \
  frr tayga keepalived strongswan wide-dhcpv6-client wide-dhcpv6-server 2>/dev/null || :
# nothing here has to wait for a network, and 120 s of a missing one would be waited for
chroot . systemctl -q mask systemd-networkd-wait-online.service \
  apt-daily.timer apt-daily-upgrade.timer
find lib/modules/ -name '*.ko.xz' -print0 | xargs -0 -r unxz
chroot . depmod "$(ls lib/modules)"
: > etc/fstab
# mmdebstrap copies both from this machine
echo gateway > etc/hostname
: > etc/resolv.conf
# without this folder the journal of earlier boots is gone
mkdir -p var/log/journal
rm -rf usr/lib/udev/hwdb.bin var/lib/apt/lists/* var/cache/apt/* boot/initrd.img-*
touch etc/.updated var/.updated
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """A Debian release.

    number: as in `make test-vm-12`; name: as apt and the package's folder call it.
    """

    number: str
    name: str

    def deb(self) -> Path:
        """Give the newest package that `make deb` built for it.

        FileNotFoundError when there is none.
        """
        folder = ROOT / "build" / "deb" / self.name
        found = sorted(folder.glob("ecluse_*_amd64.deb"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise FileNotFoundError(f"no package in {folder.relative_to(ROOT)}: type `make deb`")
        return found[-1]


BOOKWORM, TRIXIE = Suite("12", "bookworm"), Suite("13", "trixie")
SUITES = (BOOKWORM, TRIXIE)


@dataclass(frozen=True, slots=True)
class Disk:
    """What a virtual machine starts from.

    image: raw ext4, never written to; kernel: the suite's own.
    """

    image: Path
    kernel: Path


def need() -> None:
    """Install what is missing on this machine from Debian.

    RuntimeError when that takes root and we are not.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [
        package for program, package in NEEDS.items() if not shutil.which(program, path=path)
    ]
    if not missing:
        return
    if os.geteuid() != 0:
        raise RuntimeError(
            f"missing: sudo apt-get install --no-install-recommends {' '.join(missing)}"
        )
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    _run("apt-get", "update", "-q", env=environment)
    _run("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing, env=environment)


def base(suite: Suite) -> Path:
    """Give the tar of the suite's minimal system with all that the tests need, without our package
    (40 s).
    """
    packages = ",".join((*_SYSTEM, *_PRODUCT, *_NEIGHBOURS, *_SHAPES))
    key = _hash(suite.name, packages, _CUSTOMIZE, *_PATHS)

    def build(target: Path) -> None:
        hook = target.with_suffix(".hook")
        hook.write_text("#!/bin/sh" + _CUSTOMIZE)
        hook.chmod(0o755)
        excludes = [f"--dpkgopt=path-exclude=/usr/share/{path}/*" for path in _PATHS]
        try:
            _mmdebstrap(
                suite.name,
                target,
                "--format=tar",
                f"--include={packages}",
                *excludes,
                f"--customize-hook={hook}",
            )
        finally:
            hook.unlink()

    return _made(f"base-{suite.name}", key, ".tar", build)


def emulator() -> list[str]:
    """Give the command of QEMU 10, from a folder with Debian 13's.

    7.2 of Debian 12 hangs now and then (30 s).
    """
    key = _hash("qemu-system-x86")
    folder = _made(
        "qemu",
        key,
        "",
        lambda target: _mmdebstrap(
            "trixie", target, "--format=directory", "--include=qemu-system-x86"
        ),
    )
    library = folder / "usr/lib/x86_64-linux-gnu"
    return [
        *(str(folder / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(library)),
        *(str(folder / "usr/bin/qemu-system-x86_64"), "-L", str(folder / "usr/share/seabios")),
        *("-L", str(folder / "usr/share/qemu")),
    ]


def root(suite: Suite, deb: Path) -> Path:
    """Give a folder with the suite's system and the package installed, offline.

    Never written to later (5 s).
    """
    tar = base(suite)
    key = _hash(tar.name, deb.read_bytes(), _INSTALL)

    def build(target: Path) -> None:
        target.mkdir()
        _run(
            "tar",
            "-C",
            str(target),
            "-xpf",
            str(tar),
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
        )
        shutil.copy(deb, target / "root" / "ecluse.deb")
        _run("unshare", "--net", "chroot", str(target), "sh", "-euc", _INSTALL)

    return _made(f"root-{suite.name}", key, "", build)


# No network, not even a name server: what is missing in the image would fail here.
_INSTALL = (
    "dpkg -i /root/ecluse.deb; rm /root/ecluse.deb; rm -f /etc/machine-id; "
    "systemd-id128 new > /etc/machine-id"
)


def disk(suite: Suite, deb: Path) -> Disk:
    """Give the disk of a virtual machine.

    The same system, with the files of `guest` laid over it (10 s).

    In its /root lies the package once more, as the version after it (`next.deb`).
    """
    folder = root(suite, deb)
    laid = guest.files()
    key = _hash(
        folder.name, *(f"{path}\n{text}" for path, text in sorted(laid.items())), *guest.UNITS
    )

    def build(target: Path) -> None:
        tree = target.with_suffix(".tree")
        shutil.rmtree(tree, ignore_errors=True)
        try:
            _run("cp", "-a", "--reflink=auto", str(folder), str(tree))
            for path, text in laid.items():
                to = tree / path.lstrip("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_text(text, encoding="utf-8")
            _next_version(deb, tree / "root/next.deb")
            _run("systemctl", f"--root={tree}", "-q", "enable", *guest.UNITS)
            target.touch()
            os.truncate(target, 2 << 30)
            _run("mke2fs", "-q", "-F", "-t", "ext4", "-m0", "-d", str(tree), str(target))
        finally:
            shutil.rmtree(tree, ignore_errors=True)

    image = _made(f"disk-{suite.name}", key, ".img", build)
    return Disk(image, min((folder / "boot").glob("vmlinuz-*")))


def _next_version(deb: Path, to: Path) -> None:
    """Write the same package as the next version, so that an upgrade runs the same code."""
    tree = to.with_suffix(".tree")
    _run("dpkg-deb", "-R", str(deb), str(tree))
    control = tree / "DEBIAN" / "control"
    text = control.read_text(encoding="utf-8")
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+next", text), encoding="utf-8")
    _run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(to))
    shutil.rmtree(tree)


def _mmdebstrap(suite: str, target: Path, *arguments: str) -> None:
    """Build from the mirror that this machine's own apt uses: none is written down here."""
    listed = _output(
        "apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"
    )
    mirrors = [
        line.removeprefix("Debian ") for line in listed.splitlines() if line.startswith("Debian ")
    ]
    if not mirrors:
        raise RuntimeError("this machine's apt knows no Debian mirror: type `apt-get update`")
    _run(
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", *arguments),
        *(suite, str(target), f"deb {mirrors[0]} {suite} main"),
    )


def _made(name: str, key: str, suffix: str, build) -> Path:
    """Give build/vm/NAME-KEY, built when it is not there; older ones of that name go.

    One process builds at a time.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / f"{name}-{key}{suffix}"
    if target.exists():
        os.utime(target)
        return target
    with _locked():
        if not target.exists():
            for old in CACHE.glob(f"{name}-*"):
                if time.time() - old.lstat().st_mtime > 6 * 3600:
                    _remove(old)
            part = CACHE / f"part-{name}{suffix}"
            _remove(part)
            try:
                build(part)
            except BaseException:
                _remove(part)
                raise
            part.rename(target)
    return target


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    if _locked.depth:  # a disk is built from a root, that from a base
        yield
        return
    with (CACHE / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _locked.depth += 1
        try:
            yield
        finally:
            _locked.depth -= 1


_locked.depth = 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def _output(*argv: str, env: dict[str, str] | None = None) -> str:
    environment = (env or dict(os.environ)) | {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    }
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(argv)[:200]}: exit {done.returncode}:\n"
            f"{(done.stdout + done.stderr)[-4000:]}"
        )
    return done.stdout


_run = _output


def main(arguments: Sequence[str] | None = None) -> int:
    """Build everything for the suites named, or for both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help="12, 13; both when none is named")
    parser.add_argument("--deb", type=Path, help="a package other than the one in build/deb")
    chosen = parser.parse_args(arguments)
    need()
    steps = [("emulator", emulator)]
    for suite in SUITES:
        if not chosen.suites or suite.number in chosen.suites:
            steps.append((f"Debian {suite.number}", lambda s=suite: disk(s, chosen.deb or s.deb())))
    for words, step in steps:
        began = time.monotonic()
        step()
        print(f"{words}: {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
