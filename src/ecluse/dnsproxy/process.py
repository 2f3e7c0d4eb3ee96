"""`eclused dns-gate`: the process of the DNS gate, in the foreground, until SIGTERM.

It asks the daemon for nothing.

Every quarter of a second it looks whether the daemon wrote other orders, whether the engine lives
and whether the kernel's sets are still those it filled; at once when the kernel says that somebody
changed the table. A look costs next to nothing, and misses no event that a watch might.
"""

import argparse
import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import dns.exception
import dns.rcode
import dns.rdatatype

from ecluse import systemd_notify
from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.denied_queries import DeniedQueries
from ecluse.dnsproxy.dnsmasq import Dnsmasq
from ecluse.dnsproxy.forwarder import Forwarder
from ecluse.dnsproxy.health import ask_health
from ecluse.dnsproxy.learned import LearnedAddresses
from ecluse.dnsproxy.message_filter import Refusal
from ecluse.dnsproxy.whole_files import write_whole
from ecluse.kernel.netlink_stream import NetlinkStream
from ecluse.output import STDERR, Output, capture_prints, write_last_words
from ecluse.ports import KernelChange
from ecluse.ruleset.proxy_config import ProxyConfig
from ecluse.state.codec import digest, read_json

NAME = b"ecluse-dns"
"""What the kernel calls us: the daemon tells by it whose the addresses in the sets are
(controller/tasks/tamper.py).
"""
ORDERS_FILE, RUN_DIR, STATE_DIR = (
    "/run/ecluse/dns-orders.json",
    "/run/ecluse-dns",
    "/var/lib/ecluse-dns",
)
REPORT, LAST, LOCK = "report.json", "last-orders.json", "lock"
_LOOK = 0.25
_BREATH = 0.01
"""Between two looks at least, in seconds, however often others change the table."""
_HEALTH, _SAVE = 1.0, 60.0
_AGAIN, _CALM = 1.0, 60.0
"""Seconds before what failed is begun again, and without a fault until it is no trouble any more.
"""
_PR_SET_NAME, _PR_SET_PDEATHSIG, _PR_CAP_AMBIENT, _CLEAR_ALL = 15, 1, 47, 4


class DnsProxyProcess:
    """Everything of one run."""

    def __init__(self, orders: Path, run_dir: Path, state_dir: Path) -> None:
        self._file, self._run_dir = orders, run_dir
        self._last = state_dir / LAST
        self._memory = LearnedAddresses(state_dir, run_dir)
        self._tally = DeniedQueries(self._why)
        self._engine = Dnsmasq(run_dir, self._tally.count_line)
        self._strainer = Forwarder(self._memory, self._engine.word, self._engine.reach)
        self._orders: ProxyConfig | None = None
        self._digest = ""
        self._seen: tuple[int, int, int] | None = None
        self._unkept: str | None = None
        self._trouble = {"orders": "", "kernel": "", "disk": "", "last": ""}
        self._wake = asyncio.Event()
        self._silent = 0
        self._report = ""

    def _why(self, name: str, kind: str) -> Refusal | None:
        """Say why a question from the log was refused; what the inside's own servers answer was
        not.
        """
        orders = self._orders
        if orders is None or message_filter.is_health(name) or self._is_internal(name):
            return None
        try:
            return self._strainer.why(name, dns.rdatatype.from_text(kind.removeprefix("type=")))
        except (dns.exception.DNSException, ValueError):
            return Refusal("type")

    def _is_internal(self, name: str) -> bool:
        orders = self._orders
        return orders is not None and any(
            name == one or name.endswith(f".{one}")
            for each in orders.internal
            for one in each.names
        )

    async def run(self) -> None:
        """Work until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._end, stop)
        changes = self._memory.changes()
        beside = [
            asyncio.create_task(for_ever(self._trouble, "asking the engine", self._health)),
            asyncio.create_task(
                for_ever(self._trouble, "hearing of changes", lambda: self._hear(changes))
            ),
            asyncio.create_task(
                for_ever(self._trouble, "asking for the site's names", self._strainer.warm)
            ),
        ]
        systemd_notify.notify("READY=1")
        told = time.monotonic()
        saved = told - _SAVE
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    await self._obey()
                    self._tend()
                    await self._engine.tend()
                except Exception as error:  # noqa: BLE001 - tried again; if it lasts, the watchdog starts us anew
                    self._trouble["work"] = f"it does not get through its work: {error!r}"
                else:
                    self._trouble["work"] = ""
                    systemd_notify.notify("WATCHDOG=1")
                if time.monotonic() - told >= 1.0:
                    told = time.monotonic()
                    self._tell()
                if time.monotonic() - saved >= _SAVE:
                    saved = time.monotonic()
                    self._save()
                await asyncio.sleep(_BREATH)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await self._wake.wait()
        finally:
            for task in beside:
                task.cancel()
            changes.close()
            await self._engine.stop()
            self._strainer.close()
            self._save()
            self._memory.close()

    def _end(self, stop: asyncio.Event) -> None:
        stop.set()
        self._wake.set()

    async def _hear(self, changes: NetlinkStream[KernelChange]) -> None:
        """Have a look taken at once when somebody changed the table."""
        async for change in changes:
            if self._memory.hear(change):
                self._wake.set()

    async def _obey(self) -> None:
        """Read the orders when the file is another one; what can't be read changes nothing."""
        file = self._file
        if self._seen is None and not file.exists():
            file = self._last  # after a reboot: the last ones hold until the daemon writes others
        try:
            found = file.stat()
            which = (found.st_ino, found.st_mtime_ns, found.st_size)
            if which == self._seen:
                return
            data = file.read_bytes()
            orders = read_json(ProxyConfig, data) if data.strip() else None
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._trouble["orders"] = f"the orders can't be read, those before stand: {error}"
            return
        self._seen = which
        try:
            if orders is None:
                self._orders, self._digest = None, ""
                await self._engine.rest()
                self._strainer.close()
            else:
                self._orders, self._digest = orders, digest(data).removeprefix("sha256:")
                await self._strainer.obey(orders, self._digest)
                self._memory.obey(orders)
                await self._engine.obey(orders)
            self._trouble["orders"] = ""
        except OSError as error:
            self._seen = None
            self._trouble["orders"] = f"the orders can't be followed: {error.strerror or error}"
            return
        if file is self._file:
            self._unkept = data.decode()
            self._keep()

    def _keep(self) -> None:
        """Put the orders that are followed on disk for the next boot; where that fails they are
        followed all the same.
        """
        if self._unkept is None:
            return
        try:
            write_whole(self._last, self._unkept)
        except OSError as error:
            self._trouble["last"] = (
                f"the orders could not be kept for the next boot: {error.strerror}"
            )
        else:
            self._unkept, self._trouble["last"] = None, ""

    def _tend(self) -> None:
        try:
            self._memory.tend()
            self._trouble["kernel"] = ""
        except OSError as error:
            self._trouble["kernel"] = (
                f"the kernel's sets could not be looked after: {error.strerror}"
            )

    def _save(self) -> None:
        self._keep()
        try:
            self._memory.save()
            self._trouble["disk"] = ""
        except OSError as error:
            self._trouble["disk"] = f"learned addresses could not be saved: {error.strerror}"

    async def _health(self) -> None:
        """Ask the engine once a second; one that is silent for as long twice is replaced."""
        while True:
            await asyncio.sleep(0 if self._silent else _HEALTH)
            orders = self._orders
            if orders is None or not self._engine.pid:
                continue
            try:
                reply = await ask_health(self._digest[:16], orders.port, 1.0)
            except (dns.exception.DNSException, OSError):
                self._silent += 1
                if self._silent >= 2:
                    self._silent = 0
                    await self._engine.replace_hung()
                continue
            self._silent = 0
            if reply.rcode() == dns.rcode.NOERROR:
                self._engine.trouble = ""

    def _tell(self) -> None:
        """Write what the daemon shows to people, when it is something new."""
        told = {
            "digest": self._digest,
            "engine": self._engine.pid,
            "starts": self._engine.starts,
            "trouble": [
                t
                for t in (
                    *self._trouble.values(),
                    self._memory.trouble,
                    self._engine.trouble,
                    self._strainer.trouble,
                    self._strainer.validating.trouble(time.monotonic()),
                )
                if t
            ],
            "learned": len(self._memory),
            "removed": self._memory.removed,
            "removed_last": self._memory.last,
            "adopted": self._memory.adopted,
            "strained": dict(self._strainer.counted),
            "refused": self._tally.total,
            "unread": self._tally.unread,
            "clients": dict(self._tally.clients.most_common(100)),
            "questions": self._tally.told(),
            "validating": self._strainer.validating.told(time.monotonic()),
        }
        text = json.dumps(told)
        if text != self._report:
            with contextlib.suppress(OSError):
                write_whole(self._run_dir / REPORT, text)
                self._report = text


async def for_ever(
    trouble: dict[str, str], what: str, work: Callable[[], Awaitable[object]]
) -> None:
    """Have `work` done until cancelled: where it fails or ends it is begun again a second later,
    and `trouble` says so.
    """
    while True:
        calm = asyncio.get_running_loop().call_later(_CALM, trouble.pop, what, None)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - nothing that runs beside ends for good
            trouble[what] = f"{what} failed and was begun again: {error!r}"
        finally:
            calm.cancel()
        await asyncio.sleep(_AGAIN)


def _only_one(run_dir: Path) -> int:
    """Hold the lock of this directory until we end: two processes would take each other's addresses
    for a stranger's.

    OSError where another holds it; a lock that can't be made at all stops nobody.
    """
    try:
        handle = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OSError(errno.EBUSY, "another process of the DNS gate is at work here") from error
    return handle


def _take_place() -> None:
    """Take our name, and leave no capability to the engine: what it is started with is what we are
    still given.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, NAME, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)


def parser() -> argparse.ArgumentParser:
    """Give the flags: where its files are. The manual is made from them."""
    made = argparse.ArgumentParser(
        prog="eclused dns-gate",
        description="Answer the zones' DNS for what is kept, and refuse the rest.",
    )
    for flag, metavar, default, text in (
        ("--orders", "FILE", ORDERS_FILE, "the daemon's orders"),
        ("--run-dir", "DIR", RUN_DIR, "what a reboot may lose: its report, the engine's files"),
        (
            "--state-dir",
            "DIR",
            STATE_DIR,
            "what outlasts a reboot: learned addresses, the last orders",
        ),
    ):
        made.add_argument(
            flag, type=Path, metavar=metavar, default=Path(default), help=f"{text} ({default})"
        )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run in the foreground. Exit codes: 0 stopped, 1 could not run, 2 wrong arguments."""
    given = parser().parse_args(argv)
    _take_place()
    try:
        _only_one(given.run_dir)
        with capture_prints(
            Output(STDERR, lambda lost: f"{lost} lines could not be written here\n")
        ):
            asyncio.run(DnsProxyProcess(given.orders, given.run_dir, given.state_dir).run())
    except OSError as error:
        write_last_words(f"eclused dns-gate: {error}\n")
        return 1
    except Exception as error:  # noqa: BLE001 - it is started anew; nobody is helped by a traceback
        write_last_words(
            f"eclused dns-gate: {type(error).__name__}: {error}; it ends, and what was learned stays\n"
        )
        return 1
    return 0
