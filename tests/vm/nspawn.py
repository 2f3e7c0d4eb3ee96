"""A container with systemd as its first process.

Half a second to boot, this machine's kernel, for units and packages.

Each runs in a PID and a mount namespace of its own, so that the death of one process, or of the
test itself, ends all of it. Its root is an overlay over a folder that is never written to: nothing
that a test does outlives it.

    with nspawn.Container(images.root(suite, suite.deb())) as box:
        box.boot()
        assert box.sh("systemctl is-active ecluse").ok
"""

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from tests.lab import netns

REBOOT = 133  # how nspawn says that the inside asked for a reboot (systemd-nspawn(1))
_CGROUPS = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# In the namespaces of unshare(1): an overlay that vanishes with them, a control group that no other
# container shares.
_START = r"""
set -eu
for group in $GROUPS_OF_IT; do mkdir -p "$group"; echo $$ > "$group/cgroup.procs"; done
mount -t overlay ecluse "$FOLDER/root" \
  -o "lowerdir=$LOWER,upperdir=$FOLDER/upper,workdir=$FOLDER/work"
exec systemd-nspawn --quiet --boot --keep-unit --register=no --kill-signal=SIGRTMIN+3 \
  --machine="$MACHINE" --directory="$FOLDER/root" --console=passive \
  --link-journal=no --resolv-conf=off --timezone=off "$@"
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command inside ended."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0


class Container:
    """One container; `boot` it, act with `sh`, `reboot` it, `kill9` it.

    As a context manager it leaves nothing.

    lower: the folder to start from (images.root). network: a network namespace of the lab to live
    in, by name; None: one of its own, with a loopback alone. Write into `upper` before the boot to
    have files of the test's own there.
    """

    running: ClassVar[set["Container"]] = set()

    def __init__(self, lower: Path, *, network: str | None = None) -> None:
        self.name = f"{netns.unique()}-box"
        self.folder = Path(tempfile.gettempdir()) / self.name
        self._lower, self._network = lower, network
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self.log = self.folder / "console.log"
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        atexit.register(self.close)

    @property
    def upper(self) -> Path:
        """Where files that differ from `lower` lie. Write there only while it is not running."""
        return self.folder / "upper"

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, before the boot or while it runs."""
        target = Path(f"/proc/{self._leader}/root" if self._leader else self.upper) / path.lstrip(
            "/"
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    # -- life

    def boot(self, patience: float = 60.0, *, wait: bool = True) -> float:
        """Start it and wait until it has come up (`multi-user.target`); give the seconds that took.

        wait=False: only wait until its systemd can be asked. RuntimeError with the console when it
        does not come up.
        """
        if self._process is not None:
            raise RuntimeError("the container is running already")
        began = time.monotonic()
        link = (
            f"--network-namespace-path=/run/netns/{self._network}"
            if self._network
            else "--private-network"
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("sh", "-c", _START, "container", link),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment(),
            )
        Container.running.add(self)
        self._wait_until_up(began + patience, wait=wait)
        return time.monotonic() - began

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "GROUPS_OF_IT": " ".join(str(group) for group in self._groups()),
            "LOWER": str(self._lower),
            "FOLDER": str(self.folder),
            "MACHINE": self.name,
            # Debian 13's systemd takes only the second kind of control groups, and 12's as well
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }

    def _groups(self) -> list[Path]:
        return [Path(root, self.name) for root in _CGROUPS if Path(root, "cgroup.procs").exists()]

    def _wait_until_up(self, deadline: float, *, wait: bool) -> None:
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                code = self._process.returncode
                self._gone()
                raise RuntimeError(
                    f"the container ended with {code} before it was up:\n{self.console()}"
                )
            self._leader = self._leader or self._find_leader()
            if self._leader and Path(f"/proc/{self._leader}/root/run/systemd/private").exists():
                asked = self.sh("systemctl is-active -q multi-user.target" if wait else "true")
                if asked.ok:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the container did not come up in time:\n{self.console()}")

    def _find_leader(self) -> int:
        """Give the host's number of the systemd inside: the child of nspawn, the child of unshare.

        0 while there is none.
        """
        for parent in _children(self._process.pid):
            for child in _children(parent):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return child
        return 0

    def reboot(self, patience: float = 60.0) -> float:
        """`systemctl reboot`, then boot from its disk; give the seconds that both took."""
        began = time.monotonic()
        self.sh("systemctl reboot --no-block")
        code = self._ended(patience)
        if code != REBOOT:
            raise RuntimeError(
                f"the container ended with {code}, a reboot is {REBOOT}:\n{self.console()}"
            )
        self.boot(patience)
        return time.monotonic() - began

    def poweroff(self, patience: float = 60.0) -> None:
        """`systemctl poweroff`, and wait for it."""
        self.sh("systemctl poweroff --no-block")
        self._ended(patience)

    def _ended(self, patience: float) -> int:
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the container did not end in time:\n{self.console()}") from None
        self._gone()
        return code

    def kill9(self) -> None:
        """End every process of it at once, as a power cut would (but what was not fsynced survives:
        this machine's cache does).
        """
        if self._process is None:
            return
        for pid in _children(
            self._process.pid
        ):  # the first process of its PID namespace: the kernel ends the rest
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        self._process.wait()
        self._gone()

    def _gone(self) -> None:
        self._process, self._leader = None, 0
        Container.running.discard(self)
        for group in self._groups():
            deadline = time.monotonic() + 2
            while group.exists() and time.monotonic() < deadline:
                _drop(group)

    def close(self) -> None:
        """End it and remove its folder; harmless the second time."""
        self.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- acting in it

    def sh(self, script: str, *, timeout: float = 60.0, check: bool = False) -> Done:
        """Run a shell script inside, as its root.

        check=True: RuntimeError with its words when it fails.
        """
        done = subprocess.run(
            [
                *("nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C"),
                *("sh", "-c", script),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
            cwd="/",
            env={"PATH": _PATH, "LANG": "C.UTF-8"},
        )
        if check and done.returncode:
            raise RuntimeError(f"{script}: exit {done.returncode}:\n{done.stdout}{done.stderr}")
        return Done(done.returncode, done.stdout, done.stderr)

    def console(self, lines: int = 60) -> str:
        """Give the end of what it wrote on its console, its boots one after the other."""
        if not self.log.exists():
            return ""
        return "\n".join(
            self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )

    def journal(self, lines: int = 100) -> str:
        """Give the end of its journal, while it runs."""
        return (
            self.sh(f"journalctl -n {lines} --no-pager -o short-monotonic").out
            if self._leader
            else ""
        )


def sweep() -> None:
    """Remove the control groups of containers whose test is dead; netns.sweep removes folders."""
    for root in _CGROUPS:
        for group in Path(root).glob(f"{netns.PREFIX}-*-box"):
            _, pid, start, *_ = group.name.split("-")
            if netns.start_time(int(pid)) != int(start):
                _drop(group)


def _drop(group: Path) -> None:
    folders = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
    for folder in [*folders, group]:
        with contextlib.suppress(OSError):  # a process that is still ending
            folder.rmdir()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
