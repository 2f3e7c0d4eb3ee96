"""The daemon's client of the DNS proxy: writes its configuration, checks it, reads its report."""

import asyncio
from pathlib import Path

import dns.exception
import dns.rcode

from ecluse.atomic_files import replace_file
from ecluse.dnsproxy.health import ask_health
from ecluse.dnsproxy.process_report import DnsReport, parse_report
from ecluse.dnsproxy.proxy_config import ProxyConfig
from ecluse.errors import StateError
from ecluse.state import durable_files
from ecluse.state.codec import canonical, digest

CONFIG_FILE = "dns-orders.json"
REPORT = "report.json"
_LARGEST = 1 << 20
"""Bytes of a report; one of 200 names (`refused_names.MOST_ROWS`) has a tenth."""
_SECONDS = 0.8
_AGAIN = 0.05
"""Seconds between two checks; the proxy reads a new configuration within a quarter of a second."""


class DnsProxyClient:
    """The DNS proxy, seen from the daemon.

    run_dir: where the configuration is written. report_dir: where the proxy writes its report.
    """

    def __init__(self, run_dir: Path, report_dir: Path) -> None:
        self._config_file, self._report_file = run_dir / CONFIG_FILE, report_dir / REPORT
        self._config: ProxyConfig | None = None
        self._digest = ""

    async def publish(self, config: ProxyConfig | None) -> None:
        """Write the configuration, if it is another one; an empty file for None.

        Raises:
            StateError: it could not be written.
        """
        data = canonical(config) if config else b""
        self._config = config
        if (digest(data) if data else "") == self._digest and self._config_file.exists():
            return
        try:
            await asyncio.to_thread(
                replace_file, self._config_file, data, mode=0o644, sync_name=False
            )
        except OSError as error:
            message = f"{self._config_file} could not be written: {error.strerror}"
            raise StateError(message, retry=True) from error
        self._digest = digest(data) if data else ""

    async def check(self) -> str:
        """Return what is wrong with the proxy, empty when it works by the configuration.

        It has a moment to read a new one: else each change of level would raise an alarm.
        """
        if self._config is None:
            return ""
        digest = self._digest.removeprefix("sha256:")[:16]
        loop = asyncio.get_running_loop()
        until = loop.time() + _SECONDS
        try:
            while True:
                reply = await ask_health(digest, self._config.port, _SECONDS)
                if reply.rcode() != dns.rcode.REFUSED or loop.time() >= until:
                    break
                await asyncio.sleep(_AGAIN)
        except OSError:
            return "it does not run"
        except dns.exception.DNSException:
            return "it does not answer"
        if reply.rcode() == dns.rcode.NOERROR:
            return ""
        return (
            "it works by an older configuration"
            if reply.rcode() == dns.rcode.REFUSED
            else "dnsmasq answers, and the forwarder behind it does not"
        )

    async def report(self) -> DnsReport | None:
        """Read the proxy's report, None if there is none.

        It is another user's file: the daemon must neither wait for it nor run out of memory.
        """
        try:
            data = await asyncio.to_thread(durable_files.read_file, self._report_file, _LARGEST)
        except StateError:
            return None
        return parse_report(data) if data else None
