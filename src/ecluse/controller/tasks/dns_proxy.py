"""Gives the DNS gate its orders whenever they change, and says within seconds when it does not
work.
"""

import asyncio
import contextlib

from ecluse.controller.context import Context
from ecluse.errors import EcluseError
from ecluse.ports import DnsReport
from ecluse.ruleset.dns_redirect import is_on
from ecluse.ruleset.proxy_config import proxy_config_of

_EVERY = 1.5
"""Seconds between two questions; a gate that is dead or hung is told after two of them at the
latest.
"""
_TOPIC = "dns"


class DnsProxyTask:
    """The gate is a process of its own, and the kernel holds the redirect: nothing here stands in
    the way of a question.
    """

    def __init__(self, shared: Context) -> None:
        self._s = shared
        self._changed = asyncio.Event()

    def soon(self) -> None:
        """Take note that levels or names are others than before."""
        self._changed.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._changed.clear()
            worked = self._s.notes.dns_works
            self._s.notes.dns_works, wrong = await self._look()
            before = self._s.notes.warnings.get(_TOPIC)
            if not wrong:
                if self._s.notes.warnings.pop(_TOPIC, None):
                    self._s.say(
                        "dns", f"the DNS gate {'is without trouble' if worked else 'works'} again"
                    )
            else:
                text = f"the DNS gate: {wrong}"
                self._s.notes.warnings[_TOPIC] = text
                if before is None:
                    self._s.say("warning", text)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._changed.wait()

    async def _look(self) -> tuple[bool, str]:
        """Say whether it answers by its orders, and what is wrong: one that answers may have other
        trouble (a full disk).
        """
        live = self._s.live
        try:
            await self._s.ports.dns.publish(proxy_config_of(live.policy, live.levels))
            if not is_on(live.policy):
                return True, ""
            if self._s.options.dns_uid is None:
                return False, "this machine has no user for it: see dns_user in ecluse.toml"
            wrong = await self._s.ports.dns.check()
            before, self._s.notes.dns = self._s.notes.dns, await self._s.ports.dns.report()
            report = self._s.notes.dns
            self._tell(before, report)
        except EcluseError as error:
            return False, error.message
        return not wrong, _with_reason(wrong, report)

    def _tell(self, before: DnsReport | None, now: DnsReport | None) -> None:
        """Say what the gate's process found in its sets that it never learned.

        It counts from its own start.
        """
        if now is None:
            return
        if now.removed and (before is None or now.removed != before.removed):
            self._s.say(
                "warning",
                f"the DNS gate took {now.removed} of somebody else's addresses out of its sets by now, the newest: {now.removed_last}",
            )
        if now.adopted and (before is None or now.adopted != before.adopted):
            self._s.say(
                "warning",
                f"the DNS gate's record was lost: {now.adopted} addresses in its sets are kept that nothing tells of",
            )


def _with_reason(wrong: str, report: DnsReport | None) -> str:
    """Add what the gate's own process says to what was seen from here."""
    said = "; ".join(report.trouble) if report else ""
    if not wrong:
        return said
    reason = f"{wrong} ({said})" if said else wrong
    return f"{reason}; what has an address already goes on, names are not answered"
