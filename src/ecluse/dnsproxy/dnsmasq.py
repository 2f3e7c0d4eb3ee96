"""The dnsmasq process: started, supervised, given new names without a gap, its log read."""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ecluse.atomic_files import replace_file
from ecluse.dnsproxy.alias_chains import AliasChains
from ecluse.dnsproxy.dnsmasq_config import config_text, servers_text
from ecluse.dnsproxy.proxy_config import ProxyConfig

PROGRAM = "dnsmasq"
CONFIG, SERVERS = "dnsmasq.conf", "servers.conf"
_PATH = f"{os.defpath}:/usr/sbin:/sbin"
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_PAUSE = 0.5
_MOST = 65536
_RELOAD_PER_LINE = 10e-6
"""Seconds a line: three times what dnsmasq takes to reload its names (2.90: 60 ms for 20,000).

It answers nobody meanwhile.
"""
_RELOAD_AT_LEAST = 0.02


def _restrict_child() -> None:
    """Have the child end with us, and gain no privileges (prctl(2)); runs between fork and exec.

    It gets none of our capabilities: we have no ambient ones (`process`). setpriv(1) would do the
    same, but sets capabilities first, which the unit's filter forbids.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


class Dnsmasq:
    """One dnsmasq process.

    log: called with each piece of its log. trouble: what is wrong with it, empty when nothing is.
    secret: marks its queries to the forwarder; only we can read the file that it stands in.
    """

    def __init__(self, directory: Path, log: Callable[[bytes], None]) -> None:
        self._main, self._servers = directory / CONFIG, directory / SERVERS
        self._log = log
        self._written = ("", "")
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._next = 0.0
        self.secret = secrets.token_hex(16)
        self.trouble = ""
        self.starts = 0
        self._last_words = b""
        self._start_lock, self._names_lock = asyncio.Lock(), asyncio.Lock()
        self._config: ProxyConfig | None = None
        self._extra = frozenset[str](), frozenset[str]()
        self._reload_at = 0.0

    @property
    def pid(self) -> int:
        """Return its process id, 0 when it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def apply_config(self, config: ProxyConfig) -> None:
        """Reload it if only names changed, else restart it. OSError if a file can't be written."""
        self._config = config
        main = config_text(config, self._servers, self.secret)
        servers = servers_text(config, *self._extra)
        before = self._written
        if servers != before[1]:
            replace_file(self._servers, servers.encode(), mode=0o644, sync_name=False)
        if main != before[0]:
            replace_file(self._main, main.encode(), mode=0o600, sync_name=False)
            await self.stop()
        elif servers != before[1] and self.pid:
            os.kill(self.pid, signal.SIGHUP)
        self._written = main, servers
        await self.ensure_running()

    async def let_through(self, chains: AliasChains) -> None:
        """Add targets and zones to its list of names.

        dnsmasq handles the signal before it reads an answer that is sent after this returns. A
        reload is followed by a pause: names that come meanwhile are in the next one.
        """
        async with self._names_lock:
            await asyncio.sleep(self._reload_at - time.monotonic())
            now = time.monotonic()
            self._extra = chains.targets(now), chains.zones(now)
            if self._config is None or not self._written[0]:
                return
            servers = servers_text(self._config, *self._extra)
            if servers == self._written[1]:
                return
            try:
                replace_file(
                    self._servers, servers.encode(), mode=0o644, sync_data=False, sync_name=False
                )
            except OSError as error:
                self.trouble = f"{self._servers} could not be written: {error.strerror}"
                return
            self._written = self._written[0], servers
            self._reload_at = now + max(_RELOAD_AT_LEAST, servers.count("\n") * _RELOAD_PER_LINE)
            if self.pid:
                os.kill(self.pid, signal.SIGHUP)

    async def ensure_running(self) -> None:
        """Start it when it does not run, at most twice a second."""
        async with self._start_lock:
            await self._start()

    async def _start(self) -> None:
        if self.pid or not self._written[0] or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PAUSE
        if self._process is not None:
            words = self._last_words.decode(errors="replace").strip().splitlines()[-1:]
            self.trouble = f"dnsmasq ended with {self._process.returncode}: {' '.join(words)[:200]}"
        program = shutil.which(PROGRAM, path=_PATH)
        if program is None:
            self.trouble = "dnsmasq is not installed: apt install dnsmasq-base"
            return
        try:
            self._process = await asyncio.create_subprocess_exec(
                program,
                f"--conf-file={self._main}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                process_group=0,
                preexec_fn=_restrict_child,
            )
        except OSError as error:
            self.trouble = f"dnsmasq could not be started: {error.strerror}"
            return
        self.starts += 1
        self._reader = asyncio.create_task(self._read_log(self._process))

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Read its log. It drops lines rather than wait for us (log-async): no answer waits."""
        if process.stderr is None:
            return
        while data := await process.stderr.read(_MOST):
            self._last_words = data[-2000:]
            self._log(data)

    async def stop(self) -> None:
        """Kill it and the children that it forked for TCP connections; they have no state to lose.

        Else those children keep its log open for minutes, and Python 3.13's `Process.wait` waits
        for that too.
        """
        async with self._start_lock:
            process, self._process, self._next = self._process, None, 0.0
            # While one of them lives, the number of its group is given to nobody else.
            if process is not None and (process.returncode is None or not self._log_ended()):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def _log_ended(self) -> bool:
        return self._reader is None or self._reader.done()

    async def disable(self) -> None:
        """Kill it, and start none until there is a configuration again."""
        self._written, self.trouble = ("", ""), ""
        await self.stop()

    async def replace_hung(self) -> None:
        """Restart one that does not answer."""
        self.trouble = "dnsmasq did not answer and was replaced"
        await self.stop()
        await self.ensure_running()
