"""The process of the DNS gate beside a daemon of the lab, as its unit runs it.

Another user, one capability, ahead of others.
"""

import os
import signal
import subprocess
import sys
import time

from tests.lab.daemon import Daemon
from tests.lab.hosts import ROOT
from tests.lab.other_user import other_user

USER = 64089
"""A user that nobody else is: what it may send is told by it (`--dns-user`)."""


class DnsGate:
    """`eclused dns-gate` with its directories under the daemon's own."""

    def __init__(self, namespace: str, daemon: Daemon) -> None:
        self.namespace, self.daemon = namespace, daemon
        self.rundir, self.state = daemon.directory / "dns-run", daemon.directory / "dns-state"
        self.log = daemon.directory / "dns-gate.log"
        self.process: subprocess.Popen[bytes] | None = None
        for folder in (self.rundir, self.state):
            folder.mkdir(exist_ok=True)
            os.chown(folder, USER, USER)
        daemon.flags = (*daemon.flags, "--dns-user", str(USER), "--dns-dir", str(self.rundir))

    def start(self) -> "DnsGate":
        """Start it; it waits for the daemon's orders by itself."""
        command = [
            *("nice", "-n", "-5", "ip", "netns", "exec", self.namespace),
            *(*other_user(USER, more_capabilities="+net_admin"), "--pdeathsig", "KILL"),
            *(sys.executable, "-m", "ecluse.eclused", "dns-gate"),
            *("--orders", str(self.daemon.rundir / "dns-orders.json")),
            *("--run-dir", str(self.rundir), "--state-dir", str(self.state)),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
                cwd=ROOT,
                start_new_session=True,
            )
        return self

    @property
    def engine(self) -> int:
        """The process id of dnsmasq, 0 when there is none."""
        if self.process is None:
            return 0
        children = subprocess.run(
            ["ps", "--ppid", str(self.process.pid), "-o", "pid=,comm="],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return next(
            (int(line.split()[0]) for line in children.splitlines() if "dnsmasq" in line), 0
        )

    def kill9(self) -> None:
        """SIGKILL; harmless when it is gone already."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM; give its exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        code = self.process.wait(10)
        self.process = None
        return code

    def wait_until_well(self, patience: float = 10.0) -> None:
        """Wait until the daemon says that it works, and nothing else of it.

        RuntimeError with its words.
        """
        wrong = self.wait_for(
            lambda said: not said and self.daemon.status()["dns"]["working"], patience
        )
        if wrong or not self.daemon.status()["dns"]["working"]:
            raise RuntimeError(f"{wrong}\n{self.log.read_text()[-3000:]}\n{self.daemon.tail(20)}")

    def wait_until_said(self, patience: float = 5.0) -> float:
        """Wait until the daemon says that it does not work; give after how many seconds.

        RuntimeError when it never does.
        """
        began = time.monotonic()
        if not self.wait_for(bool, patience):
            raise RuntimeError(f"nothing was said for {patience} s")
        return time.monotonic() - began

    def wait_for(self, enough, patience: float) -> list[str]:
        """Look at what the daemon says of it until that is enough, or for so long.

        Give what was said last.
        """
        deadline = time.monotonic() + patience
        while True:
            said = [w for w in self.daemon.status()["warnings"] if w.startswith("the DNS gate:")]
            if enough(said) or time.monotonic() > deadline:
                return said
            time.sleep(0.05)
