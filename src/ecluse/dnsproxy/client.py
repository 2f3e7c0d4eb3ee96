"""The daemon's side of the DNS gate: writes its orders, asks it whether it works, reads what it
tells. The port `DnsGate`.
"""

import asyncio
from pathlib import Path

import dns.exception
import dns.rcode

from ecluse.dnsproxy.health import ask_health
from ecluse.dnsproxy.process_report import parse
from ecluse.dnsproxy.whole_files import write_whole
from ecluse.errors import StateError
from ecluse.ports import DnsReport
from ecluse.ruleset.proxy_config import ProxyConfig
from ecluse.state import durable_files
from ecluse.state.codec import canonical, digest

ORDERS = "dns-orders.json"
REPORT = "report.json"
_LARGEST = 1 << 20
"""Bytes of a report; one of 200 questions (tally.py) has a tenth."""
_SECONDS = 0.8
_AGAIN = 0.05
"""New orders are taken up within a quarter of a second: so often it is asked meanwhile whether they
are.
"""


class DnsProxyClient:
    """run_dir: where the orders are written.

    told_dir: where the gate's process writes its report.
    """

    def __init__(self, run_dir: Path, told_dir: Path) -> None:
        self._orders_file, self._report_file = run_dir / ORDERS, told_dir / REPORT
        self._orders: ProxyConfig | None = None
        self._digest = ""

    async def publish(self, orders: ProxyConfig | None) -> None:
        """Write the orders, if they are others than before.

        StateError when they could not be written.
        """
        data = canonical(orders) if orders else b""
        self._orders = orders
        if (digest(data) if data else "") == self._digest and self._orders_file.exists():
            return
        try:
            await asyncio.to_thread(write_whole, self._orders_file, data.decode())
        except OSError as error:
            message = f"{self._orders_file} could not be written: {error.strerror}"
            raise StateError(message, retry=True) from error
        self._digest = digest(data) if data else ""

    async def check(self) -> str:
        """Ask the gate, the whole way through, whether it works by the orders; give what is wrong,
        empty when nothing is.

        One that works by older orders is given a moment: each change of level would else be
        followed by an alarm.
        """
        if self._orders is None:
            return ""
        word = self._digest.removeprefix("sha256:")[:16]
        loop = asyncio.get_running_loop()
        until = loop.time() + _SECONDS
        try:
            while True:
                reply = await ask_health(word, self._orders.port, _SECONDS)
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
            "it works by older orders"
            if reply.rcode() == dns.rcode.REFUSED
            else "its engine alone answers"
        )

    async def report(self) -> DnsReport | None:
        """Read what the gate's process told last, None when it told nothing.

        It is another user's file: whatever stands there, the daemon neither waits for it nor runs
        out of memory.
        """
        try:
            told = await asyncio.to_thread(durable_files.read_file, self._report_file, _LARGEST)
        except StateError:
            return None
        return parse(told) if told else None
