"""dnsmasq: started, watched, told of new names without a gap, and its log read."""

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

from ecluse.dnsproxy.alias_chains import AliasChains
from ecluse.dnsproxy.dnsmasq_config import config_text, servers_text
from ecluse.dnsproxy.whole_files import write_whole
from ecluse.ruleset.proxy_config import ProxyConfig

PROGRAM = "dnsmasq"
CONFIG, SERVERS = "dnsmasq.conf", "servers.conf"
_PATH = f"{os.defpath}:/usr/sbin:/sbin"
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_PAUSE = 0.5
_MOST = 65536
_READS_LINE = 10e-6
"""Three times what dnsmasq takes to read a line of its names anew (2.90: 60 ms for 20,000), during
which it answers nobody.
"""
_READS = 0.02


def _bind() -> None:
    """Have a child end with us and gain nothing (prctl(2)).

    What we can do it can't: we keep no ambient capability (run.py).

    Between fork and exec; setpriv(1) would do the same, but sets capabilities first, which the
    unit's filter refuses.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


class Dnsmasq:
    """Holds one dnsmasq.

    log: told each piece of its log. trouble: what is wrong with it, empty when nothing is.

    word: what its questions carry, and nobody else knows: its file is ours alone.
    """

    def __init__(self, directory: Path, log: Callable[[bytes], None]) -> None:
        self._config, self._servers = directory / CONFIG, directory / SERVERS
        self._log = log
        self._written = ("", "")
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._next = 0.0
        self.word = secrets.token_hex(16)
        self.trouble = ""
        self.starts = 0
        self._last_words = b""
        self._one, self._reaching = asyncio.Lock(), asyncio.Lock()
        self._orders: ProxyConfig | None = None
        self._reached = frozenset[str](), frozenset[str]()
        self._reads_at = 0.0

    @property
    def pid(self) -> int:
        """Give its process id, 0 when it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def obey(self, orders: ProxyConfig) -> None:
        """Have it work by these orders: a signal where names alone changed, another process
        otherwise. OSError.
        """
        self._orders = orders
        config, servers = (
            config_text(orders, self._servers, self.word),
            servers_text(orders, *self._reached),
        )
        before = self._written
        if servers != before[1]:
            write_whole(self._servers, servers)
        if config != before[0]:
            write_whole(self._config, config, 0o600)
            await self.stop()
        elif servers != before[1] and self.pid:
            os.kill(self.pid, signal.SIGHUP)
        self._written = config, servers
        await self.tend()

    async def reach(self, chains: AliasChains) -> None:
        """Have it let through what answers led to, too.

        It has read that before it reads an answer that is sent after this.

        Those that come while it may not read again yet are in the next reading.
        """
        async with self._reaching:
            await asyncio.sleep(self._reads_at - time.monotonic())
            now = time.monotonic()
            self._reached = chains.targets(now), chains.zones(now)
            if self._orders is None or not self._written[0]:
                return
            servers = servers_text(self._orders, *self._reached)
            if servers == self._written[1]:
                return
            try:
                write_whole(self._servers, servers, lasting=False)
            except OSError as error:
                self.trouble = f"{self._servers} could not be written: {error.strerror}"
                return
            self._written = self._written[0], servers
            self._reads_at = now + max(_READS, servers.count("\n") * _READS_LINE)
            if self.pid:
                os.kill(self.pid, signal.SIGHUP)

    async def tend(self) -> None:
        """Start it when it does not run; not more than twice a second."""
        async with self._one:
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
                f"--conf-file={self._config}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                process_group=0,
                preexec_fn=_bind,
            )
        except OSError as error:
            self.trouble = f"dnsmasq could not be started: {error.strerror}"
            return
        self.starts += 1
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Read its log as it comes.

        It drops lines rather than wait for us (log-async), and so never waits with an answer.
        """
        if process.stderr is None:
            return
        while data := await process.stderr.read(_MOST):
            self._last_words = data[-2000:]
            self._log(data)

    async def stop(self) -> None:
        """End it, and what it forked for each TCP connection: nothing is held that a kill would
        lose.

        Those hold its log open for minutes else, and Python 3.13 waits for that too
        (`Process.wait`).
        """
        async with self._one:
            process, self._process, self._next = self._process, None, 0.0
            # Its group is there as long as one of them is: nobody else's has that number then.
            if process is not None and (process.returncode is None or not self._ended_whole()):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def _ended_whole(self) -> bool:
        return self._reader is None or self._reader.done()

    async def rest(self) -> None:
        """End it, and start none until there are orders again."""
        self._written, self.trouble = ("", ""), ""
        await self.stop()

    async def replace_hung(self) -> None:
        """Put another in the place of one that does not answer."""
        self.trouble = "dnsmasq did not answer and was replaced"
        await self.stop()
        await self.tend()
