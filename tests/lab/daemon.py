"""The real daemon in the gateway's namespace, its command line and its API."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tests.lab import policy
from tests.lab.hosts import ROOT
from tests.lab.other_user import other_user


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the API. body: parsed JSON, or text when it is not JSON."""

    status: int
    body: Any


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Daemon:
    """An `eclused` of its own.

    Configuration, state, run directory, socket and log under `directory`.

    argv: what the interpreter runs, for tests that inject crashes. flags: more flags of the daemon.
    site, allowlist: see `policy.write`. environment: more variables. The files are written at once,
    nothing is started before `start`. Start it from a thread that lives as long as it should: it
    dies with that thread (PR_SET_PDEATHSIG, prctl(2)), so that nothing can be left running.
    """

    running: ClassVar[set["Daemon"]] = set()
    held_up: ClassVar[list[str]] = []
    """What held the event loop of a daemon for over 20 ms (tests/lab/loopwatch), until the test's
    end asks for it.
    """
    watched: ClassVar[bool] = False
    """Whether that is looked at: in every test (tests/conftest.py), and never while speed is
    measured.
    """

    def __init__(
        self,
        namespace: str,
        directory: Path,
        *,
        argv: Sequence[str] = ("-m", "ecluse.eclused"),
        flags: Sequence[str] = (),
        site: dict | None = None,
        allowlist: dict[str, list[dict]] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.namespace, self.directory = namespace, directory
        self.argv, self.flags = tuple(argv), tuple(flags)
        self.environment = environment or {}
        self.pass_fds: tuple[int, ...] = ()
        self.output: int | None = None
        """A descriptor that takes what it says, in place of its log file."""
        self.config, self.state, self.rundir = (
            directory / name for name in ("config", "state", "run")
        )
        self.socket = self.rundir / "ecluse.sock"
        self.log = directory / "eclused.log"
        for folder in (self.config, self.state, self.rundir):
            folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.write_config(site, allowlist)

    def write_config(
        self, site: dict | None = None, allowlist: dict[str, list[dict]] | None = None
    ) -> None:
        """Write the site's files again (None: the lab's own); the daemon only looks on `reload`."""
        policy.write(self.config, site, allowlist)

    # -- life

    @property
    def pid(self) -> int:
        """The daemon's own process id. RuntimeError when it is not running."""
        if self.process is None:
            raise RuntimeError("the daemon was not started")
        return self.process.pid

    def start(self, patience: float = 15.0, *, wait: bool = True) -> "Daemon":
        """Start it and wait until `GET /v1/status` answers 200.

        RuntimeError with its log when it does not.

        wait=False: only start it, for tests in which it is to die on the way.
        """
        if self.process is not None:
            raise RuntimeError("the daemon is running already")
        command = [
            *("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.namespace),
            *(sys.executable, *self.argv),
            *("--config-dir", str(self.config), "--state-dir", str(self.state)),
            *("--run-dir", str(self.rundir), "--socket", str(self.socket)),
            *self.flags,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log if self.output is None else self.output,
                stderr=log if self.output is None else self.output,
                env=self._environment() | self._watched(),
                cwd=ROOT,
                start_new_session=True,
                pass_fds=self.pass_fds,
            )
        Daemon.running.add(self)
        if wait:
            self.wait_until_up(patience)
        return self

    def wait_until_up(self, patience: float = 15.0) -> None:
        """Wait until the socket answers. RuntimeError with the log when it dies or stays silent."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            code = self.process.poll() if self.process else 0
            if code is not None:
                self._gone()
                raise RuntimeError(
                    f"the daemon ended with {code} before it answered; its log:\n{self.tail()}"
                )
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.api("GET", "/v1/status", timeout=2.0).status == 200:
                    return
            time.sleep(0.01)
        raise RuntimeError(
            f"the daemon did not answer within {patience} s; its log:\n{self.tail()}"
        )

    def wait(self, patience: float = 15.0) -> int:
        """Wait until it has ended by itself.

        Give its exit code (negative: the signal that killed it).
        """
        if self.process is None:
            raise RuntimeError("the daemon is not running")
        code = self.process.wait(patience)
        self._gone()
        return code

    def kill9(self) -> None:
        """SIGKILL, and wait until it is gone; harmless when it is gone already."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.wait()

    def stop(self, patience: float = 15.0) -> int:
        """SIGTERM; give its exit code. RuntimeError with its log when it does not end in time."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise RuntimeError(
                f"the daemon ignored SIGTERM for {patience} s:\n{self.tail()}"
            ) from None

    def restart(self) -> None:
        self.stop()
        self.start()

    def hang_up(self) -> None:
        """SIGHUP: reload the configuration."""
        os.kill(self.pid, signal.SIGHUP)

    def _gone(self) -> None:
        self.process = None
        Daemon.running.discard(self)
        with contextlib.suppress(FileNotFoundError):
            Daemon.held_up += self._loopwatch.read_text(encoding="utf-8").splitlines()
            self._loopwatch.unlink()

    @property
    def _loopwatch(self) -> Path:
        return self.directory / "loopwatch.txt"

    def _watched(self) -> dict[str, str]:
        if not Daemon.watched:
            return {}
        path = f"{ROOT / 'tests/lab/loopwatch'}:{self._environment()['PYTHONPATH']}"
        return {"PYTHONPATH": path, "ECLUSE_LOOPWATCH": str(self._loopwatch)}

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ECLUSE_")}
        return inherited | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"} | self.environment

    def tail(self, lines: int = 60) -> str:
        """Give the end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(
            self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )

    # -- speaking with it

    def api(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float = 15.0,
    ) -> Reply:
        """Ask the API over the UNIX socket. OSError when nothing listens."""
        connection = _Connection(self.socket, timeout)
        try:
            data = None if body is None else json.dumps(body)
            more = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, more | (headers or {}))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        try:
            return Reply(response.status, json.loads(text))
        except ValueError:
            return Reply(response.status, text)

    def status(self) -> dict[str, Any]:
        """Give `GET /v1/status`. RuntimeError when it is not 200."""
        return self._good(self.api("GET", "/v1/status"))

    def level(self, level: str, reason: str = "test", **more: Any) -> dict[str, Any]:
        """`POST /v1/level`; give the change. RuntimeError when it is not 200."""
        return self._good(self.api("POST", "/v1/level", {"level": level, "reason": reason, **more}))

    def _good(self, reply: Reply) -> dict[str, Any]:
        if reply.status != 200:
            raise RuntimeError(f"the API answered {reply.status}: {reply.body}")
        return reply.body

    def cli(
        self,
        *arguments: str,
        stdin: str = "",
        user: int | None = None,
        groups: Sequence[int] = (),
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run `ecluse` with these arguments against this daemon, with stdin as given (never the
        terminal's).

        user, groups: run it as this uid, with the first group as its own.
        """
        who = () if user is None else other_user(user, groups)
        return subprocess.run(
            [*who, sys.executable, "-m", "ecluse.cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=self._environment() | {"ECLUSE_SOCKET": str(self.socket)},
            cwd=ROOT,
        )
