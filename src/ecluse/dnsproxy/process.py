"""`eclused dns-gate`: the process of the DNS proxy, in the foreground, until SIGTERM.

It needs nothing of the daemon but the file with its configuration. Every quarter of a
second it checks whether that file changed, whether dnsmasq runs and whether the kernel's sets are
those it filled; at once when the kernel reports a change of the table. A check costs next to
nothing, and misses nothing that a watch of the file might miss.
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
from ecluse.atomic_files import remove_temporaries, replace_file
from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.dnsmasq import Dnsmasq
from ecluse.dnsproxy.forwarder import Forwarder
from ecluse.dnsproxy.health import ask_health
from ecluse.dnsproxy.learned import LearnedAddresses
from ecluse.dnsproxy.message_filter import Refusal
from ecluse.dnsproxy.proxy_config import ProxyConfig
from ecluse.dnsproxy.refused_names import RefusedNames
from ecluse.kernel.netlink_stream import NetlinkStream
from ecluse.output import STDERR, Output, capture_prints, write_last_words
from ecluse.ports import KernelChange
from ecluse.state.codec import digest, read_json

NAME = b"ecluse-dns"
"""Our name in the kernel: by it the daemon tells our changes of the sets from others'."""
CONFIG_FILE, RUN_DIR, STATE_DIR = (
    "/run/ecluse/dns-orders.json",
    "/run/ecluse-dns",
    "/var/lib/ecluse-dns",
)
REPORT, LAST, LOCK = "report.json", "last-orders.json", "lock"
_CHECK = 0.25
_CHECK_AT_LEAST = 0.01
"""Seconds between two checks, at most and at least (however often others change the table)."""
_HEALTH, _SAVE = 1.0, 60.0
_RESTART, _CALM = 1.0, 60.0
"""Seconds before a failed task is restarted, and without a fault until its trouble is forgotten."""
_PR_SET_NAME, _PR_SET_PDEATHSIG, _PR_CAP_AMBIENT, _CLEAR_ALL = 15, 1, 47, 4


class DnsProxyProcess:
    """One run of the DNS proxy."""

    def __init__(self, config_file: Path, run_dir: Path, state_dir: Path) -> None:
        self._file, self._run_dir = config_file, run_dir
        for folder in (run_dir, state_dir):
            remove_temporaries(folder)
        self._last = state_dir / LAST
        self._learned = LearnedAddresses(state_dir, run_dir)
        self._refused = RefusedNames(self._refusal)
        self._dnsmasq = Dnsmasq(run_dir, self._refused.count_lines)
        self._forwarder = Forwarder(self._learned, self._dnsmasq.secret, self._dnsmasq.let_through)
        self._config: ProxyConfig | None = None
        self._digest = ""
        self._seen: tuple[int, int, int] | None = None
        self._unsaved: bytes | None = None
        self._trouble = {"orders": "", "kernel": "", "disk": "", "last": ""}
        self._wake = asyncio.Event()
        self._silent = 0
        self._report = ""

    def _refusal(self, name: str, kind: str) -> Refusal | None:
        """Return why a query from the log was refused; None if an inside server answers it."""
        config = self._config
        if config is None or message_filter.health_digest(name) or self._is_internal(name):
            return None
        try:
            return self._forwarder.refusal(
                name, dns.rdatatype.from_text(kind.removeprefix("type="))
            )
        except (dns.exception.DNSException, ValueError):
            return Refusal("type")

    def _is_internal(self, name: str) -> bool:
        config = self._config
        return config is not None and any(
            name == one or name.endswith(f".{one}")
            for each in config.internal
            for one in each.names
        )

    async def run(self) -> None:
        """Run until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._request_stop, stop)
        changes = self._learned.changes()
        background = [
            asyncio.create_task(run_forever(self._trouble, "asking dnsmasq", self._watch_dnsmasq)),
            asyncio.create_task(
                run_forever(
                    self._trouble, "hearing of changes", lambda: self._watch_changes(changes)
                )
            ),
            asyncio.create_task(
                run_forever(
                    self._trouble, "asking for the site's names", self._forwarder.ask_own_names
                )
            ),
        ]
        systemd_notify.notify("READY=1")
        reported = time.monotonic()
        saved = reported - _SAVE
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    await self._follow_config()
                    self._reconcile()
                    await self._dnsmasq.ensure_running()
                except Exception as error:  # noqa: BLE001 - tried again, or the watchdog
                    self._trouble["work"] = f"it does not get through its work: {error!r}"
                else:
                    self._trouble["work"] = ""
                    systemd_notify.notify("WATCHDOG=1")
                if time.monotonic() - reported >= 1.0:
                    reported = time.monotonic()
                    self._write_report()
                if time.monotonic() - saved >= _SAVE:
                    saved = time.monotonic()
                    self._save()
                await asyncio.sleep(_CHECK_AT_LEAST)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(_CHECK, self._learned.seconds_until_due())):
                        await self._wake.wait()
        finally:
            for task in background:
                task.cancel()
            changes.close()
            await self._dnsmasq.stop()
            self._forwarder.close()
            self._save()
            self._learned.close()

    def _request_stop(self, stop: asyncio.Event) -> None:
        stop.set()
        self._wake.set()

    async def _watch_changes(self, changes: NetlinkStream[KernelChange]) -> None:
        """Wake the main loop when somebody changed the table."""
        async for change in changes:
            if self._learned.is_relevant(change):
                self._wake.set()

    async def _follow_config(self) -> None:
        """Read the configuration if its file changed; one that can't be read changes nothing."""
        file = self._file
        if self._seen is None and not file.exists():
            file = self._last  # after a reboot, until the daemon writes another
        try:
            found = file.stat()
            which = (found.st_ino, found.st_mtime_ns, found.st_size)
            if which == self._seen:
                return
            data = file.read_bytes()
            config = read_json(ProxyConfig, data) if data.strip() else None
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._trouble["orders"] = (
                f"its configuration can't be read, the one before stands: {error}"
            )
            return
        self._seen = which
        try:
            if config is None:
                self._config, self._digest = None, ""
                await self._dnsmasq.disable()
                self._forwarder.close()
            else:
                self._config, self._digest = config, digest(data).removeprefix("sha256:")
                await self._forwarder.apply_config(config, self._digest)
                self._learned.apply_config(config)
                await self._dnsmasq.apply_config(config)
            self._trouble["orders"] = ""
        except OSError as error:
            self._seen = None
            self._trouble["orders"] = (
                f"its configuration can't be followed: {error.strerror or error}"
            )
            return
        if file is self._file:
            self._unsaved = data
            self._save_config()

    def _save_config(self) -> None:
        """Save the configuration for the next boot; it is in use even if that fails."""
        if self._unsaved is None:
            return
        try:
            replace_file(self._last, self._unsaved, mode=0o644, sync_name=False)
        except OSError as error:
            self._trouble["last"] = (
                f"its configuration could not be kept for the next boot: {error.strerror}"
            )
        else:
            self._unsaved, self._trouble["last"] = None, ""

    def _reconcile(self) -> None:
        try:
            self._learned.reconcile()
            self._trouble["kernel"] = ""
        except OSError as error:
            self._trouble["kernel"] = (
                f"the kernel's sets could not be looked after: {error.strerror}"
            )

    def _save(self) -> None:
        self._save_config()
        try:
            self._learned.save()
            self._trouble["disk"] = ""
        except OSError as error:
            self._trouble["disk"] = f"learned addresses could not be saved: {error.strerror}"

    async def _watch_dnsmasq(self) -> None:
        """Check dnsmasq once a second; replace it after two checks without an answer."""
        while True:
            await asyncio.sleep(0 if self._silent else _HEALTH)
            config = self._config
            if config is None or not self._dnsmasq.pid:
                continue
            try:
                reply = await ask_health(self._digest[:16], config.port, 1.0)
            except (dns.exception.DNSException, OSError):
                self._silent += 1
                if self._silent >= 2:
                    self._silent = 0
                    await self._dnsmasq.replace_hung()
                continue
            self._silent = 0
            if reply.rcode() == dns.rcode.NOERROR:
                self._dnsmasq.trouble = ""

    def _write_report(self) -> None:
        """Write the report for the daemon, if it changed."""
        report = {
            "digest": self._digest,
            "engine": self._dnsmasq.pid,
            "starts": self._dnsmasq.starts,
            "trouble": [
                t
                for t in (
                    *self._trouble.values(),
                    self._learned.trouble,
                    self._dnsmasq.trouble,
                    self._forwarder.trouble,
                    self._forwarder.validating.trouble(time.monotonic()),
                )
                if t
            ],
            "learned": len(self._learned),
            "removed": self._learned.removed,
            "removed_last": self._learned.last,
            "adopted": self._learned.adopted,
            "strained": dict(self._forwarder.counted),
            "refused": self._refused.total,
            "unread": self._refused.unread,
            "clients": dict(self._refused.clients.most_common(100)),
            "questions": self._refused.rows(),
            "validating": self._forwarder.validating.clients(time.monotonic()),
        }
        text = json.dumps(report)
        if text != self._report:
            with contextlib.suppress(OSError):
                replace_file(
                    self._run_dir / REPORT,
                    text.encode(),
                    mode=0o644,
                    sync_data=False,
                    sync_name=False,
                )
                self._report = text


async def run_forever(
    trouble: dict[str, str], what: str, work: Callable[[], Awaitable[object]]
) -> None:
    """Run `work` until cancelled; when it fails or ends, restart it a second later.

    `trouble` says so, until it has run for a minute without a fault.
    """
    while True:
        calm = asyncio.get_running_loop().call_later(_CALM, trouble.pop, what, None)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - no background task may end for good
            trouble[what] = f"{what} failed and was begun again: {error!r}"
        finally:
            calm.cancel()
        await asyncio.sleep(_RESTART)


def _lock_directory(run_dir: Path) -> int:
    """Lock this directory until we end: two processes would delete each other's addresses.

    Returns -1 if the lock file can't be made: that is no reason not to run.

    Raises:
        OSError: another process has the lock.
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


def _drop_ambient_capabilities() -> None:
    """Take our name, and drop the ambient capabilities, so that dnsmasq inherits none."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, NAME, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags: where its files are. The manual is made from it."""
    made = argparse.ArgumentParser(
        prog="eclused dns-gate",
        description="Answer the zones' DNS for what is kept, and refuse the rest.",
    )
    for flag, metavar, default, text in (
        ("--orders", "FILE", CONFIG_FILE, "its configuration, which the daemon writes"),
        ("--run-dir", "DIR", RUN_DIR, "what a reboot may lose: its report, dnsmasq's files"),
        (
            "--state-dir",
            "DIR",
            STATE_DIR,
            "what outlasts a reboot: learned addresses, the last configuration",
        ),
    ):
        made.add_argument(
            flag, type=Path, metavar=metavar, default=Path(default), help=f"{text} ({default})"
        )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run in the foreground. Exit codes: 0 stopped, 1 could not run, 2 wrong arguments."""
    given = parser().parse_args(argv)
    _drop_ambient_capabilities()
    try:
        _lock_directory(given.run_dir)
        with capture_prints(
            Output(STDERR, lambda lost: f"{lost} lines could not be written here\n")
        ):
            asyncio.run(DnsProxyProcess(given.orders, given.run_dir, given.state_dir).run())
    except OSError as error:
        write_last_words(f"eclused dns-gate: {error}\n")
        return 1
    except Exception as error:  # noqa: BLE001 - systemd restarts it; a traceback helps nobody
        write_last_words(
            f"eclused dns-gate: {type(error).__name__}: {error}; "
            "it ends, and what was learned stays\n"
        )
        return 1
    return 0
