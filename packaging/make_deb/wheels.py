"""The bundled libraries: pinned by hash, fetched once, unpacked into the package."""

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from make_deb.suites import ROOT, Suite

FROM_DEBIAN = {"pyyaml"}
"""Debian's own are good enough, and have what a wheel has not: security support."""

_PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+) \\\n    --hash=sha256:(?P<digest>[0-9a-f]{64})$",
    re.MULTILINE,
)
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_SOURCES = {".pyx", ".pxd", ".pxi", ".c", ".h", ".pyi"}
_TESTS = ("multidict/_testcapi",)


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """One wheel, to the byte."""

    name: str
    version: str
    digest: str


def read_pins(suite: Suite) -> tuple[Pin, ...]:
    """Read a suite's requirement file. ValueError when a line of it is none of ours."""
    text = suite.requirements.read_text(encoding="utf-8")
    rest = re.sub(r"^#.*$", "", _PIN.sub("", text), flags=re.MULTILINE)
    if rest.strip():
        raise ValueError(
            f"{suite.requirements.name} has lines that are no pins: {rest.strip()[:200]}"
        )
    return tuple(Pin(*match.groups()) for match in _PIN.finditer(text))


def _pip(suite: Suite, into: Path, *what: str) -> None:
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command += [
        "--only-binary",
        ":all:",
        "--implementation",
        "cp",
        "--python-version",
        suite.python_text,
        *platforms,
    ]
    subprocess.run([*command, "--dest", str(into), *what], check=True, stdin=subprocess.DEVNULL)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(suite: Suite, into: Path) -> tuple[Path, ...]:
    """Give the pinned wheels, in the order of their pins.

    Without a network when all are there from an earlier build.
    """
    into.mkdir(parents=True, exist_ok=True)
    wanted = [pin.digest for pin in read_pins(suite)]
    there = {_digest(path): path for path in into.glob("*.whl")}
    if not set(wanted) <= there.keys():
        _pip(suite, into, "--require-hashes", "--no-deps", "--requirement", str(suite.requirements))
        there = {_digest(path): path for path in into.glob("*.whl")}
    return tuple(there[digest] for digest in wanted)


def _wanted(name: str) -> bool:
    if ".dist-info/" in name:
        return name.endswith(".dist-info/METADATA")  # what scanners for known vulnerabilities read
    return (
        Path(name).suffix not in _SOURCES and not name.startswith(_TESTS) and not name.endswith("/")
    )


def _licences(wheel: ZipFile) -> Iterator[str]:
    for name in wheel.namelist():
        inside = name.partition(".dist-info/")[2]
        if name.endswith("/"):
            continue
        if inside.startswith("licenses/") or re.match(r"(LICEN|COPYING|NOTICE|AUTHORS)", inside):
            yield name


def unpack(wheels: tuple[Path, ...], into: Path, licences: Path) -> None:
    """Unpack libraries and, elsewhere, their licences; what is compiled is stripped."""
    for path in wheels:
        with ZipFile(path) as wheel:
            for name in filter(_wanted, wheel.namelist()):
                wheel.extract(name, into)
            for name in _licences(wheel):
                whole, _, inside = name.partition(".dist-info/")
                target = licences / whole / inside.removeprefix("licenses/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(name))
    for library in sorted(into.rglob("*.so")):
        subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)


def lock(suite: Suite) -> None:
    """Write the requirement file with the newest of everything that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        line
        for line in project["dependencies"]
        if re.split(r"[<>=!~ ]", line)[0].lower() not in FROM_DEBIAN
    ]
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder)
        _pip(suite, into, *wanted)
        pins = sorted(
            Pin(name.lower().replace("_", "-"), version, _digest(path))
            for path in into.glob("*.whl")
            for name, version in [path.name.split("-")[:2]]
        )
    head = (
        f"# The libraries in the package for Debian {suite.release} ({suite.name}), "
        f"Python {suite.python_text}, x86-64."
        " Written by 'make lock-deb'.\n"
    )
    body = "".join(
        f"{pin.name}=={pin.version} \\\n    --hash=sha256:{pin.digest}\n"
        for pin in pins
        if pin.name not in FROM_DEBIAN
    )
    suite.requirements.write_text(head + body, encoding="utf-8")
