"""Network namespaces by name, and the removal of those whose maker is dead.

A name is `ecluse-PID-START-RANDOM-ROLE`: PID and start time (field 22 of /proc/PID/stat) tell for
certain whether the process that made it still lives. Directories in the temporary directory are
named alike.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

PREFIX = "ecluse"
_NAME = re.compile(rf"{PREFIX}-(\d+)-(\d+)-[0-9a-f]{{6}}(?:-[a-z]+)?")
_NETNS = Path("/run/netns")


def start_time(pid: int) -> int:
    """Give when a process started, in clock ticks since boot (proc(5)).

    0 when it does not live (a zombie does not).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def unique() -> str:
    """Give a prefix for all that one hospital of this process makes."""
    return f"{PREFIX}-{os.getpid()}-{start_time(os.getpid())}-{secrets.token_hex(3)}"


def run(*argv: str, text: str = "", check: bool = True) -> str:
    """Run a program and give its standard output.

    RuntimeError with its own words when it failed.
    """
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def namespaces(prefix: str = PREFIX) -> list[str]:
    """Name every namespace whose name starts so."""
    return sorted(p.name for p in _NETNS.glob(f"{prefix}*")) if _NETNS.is_dir() else []


def directories(prefix: str = PREFIX) -> list[Path]:
    return sorted(p for p in Path(tempfile.gettempdir()).glob(f"{prefix}*") if p.is_dir())


def remove(prefix: str) -> None:
    """End what still runs in these namespaces, then delete them and their directories."""
    names = namespaces(prefix)
    for name in names:
        for pid in run("ip", "netns", "pids", name, check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    if names:
        run(
            "ip",
            "-force",
            "-batch",
            "-",
            text="".join(f"netns del {name}\n" for name in names),
            check=False,
        )
    for directory in directories(prefix):
        shutil.rmtree(directory, ignore_errors=True)


def leftovers() -> list[str]:
    """Name what dead runs left behind: namespaces and directories whose maker no longer lives."""
    found = []
    for name in {*namespaces(), *(d.name for d in directories())}:
        match = _NAME.fullmatch(name)
        if match and start_time(int(match[1])) != int(match[2]):
            found.append(name)
    return sorted(found)


def sweep() -> list[str]:
    """Remove what dead runs left behind; give the names."""
    found = leftovers()
    for name in found:
        remove(name)
    return found
