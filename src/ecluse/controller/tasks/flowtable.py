"""Keeps a flowtable for kept flows, where the site asks for one (`fast_path: flowtable`).

Whatever takes something away ends the flowtable in its own transaction (`Firewall`); this task only
makes it, when all that follows a change is done. So nothing that a closing waits for can fail for
want of a device, or of a kernel that has flowtables.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from ecluse.alerts import Alerts
from ecluse.controller.live_state import LiveState
from ecluse.errors import KernelError
from ecluse.host_reading import HostReading
from ecluse.ports import Firewall
from ecluse.ruleset.flowtable import MOST_DEVICES, is_wanted
from ecluse.zone_links import LinkReading

_RENEWAL = 30.0
"""Seconds after which all flows are judged again: by our chains, which renew learned addresses and
count, and by the site's own rules, which may have changed.
"""
_AGAIN = 600.0
"""Seconds until a kernel that refused is asked again for the same devices: each refusal holds
nf_tables for some 20 ms.
"""


def flowtable_devices(host: HostReading) -> tuple[str, ...]:
    """Give the interfaces whose packets may go by the flowtable.

    Not loopback; not a port of another interface, by whose name packets are forwarded; no VRF; none
    without an address of its own or a route: to take one out costs a closing 17 ms on Linux 6.12.
    """
    names = (
        one.name
        for one in host.devices
        if one.up
        and one.own_ip
        and not (one.elsewhere or one.master)
        and one.kind != "vrf"
        and one.name != "lo"
        and '"' not in one.name
    )
    return tuple(sorted(names)[:MOST_DEVICES])


class FlowtableTask:
    """Makes the flowtable after each change, and a new one every half minute.

    Args:
        live: the live state.
        firewall: where it is made.
        count_commit: counts a transaction of ours that changed nothing of table `inet ecluse`.
        look_at_links: reads the machine's interfaces.
        alerts: take what is wrong.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        firewall: Firewall,
        count_commit: Callable[[], Awaitable[None]],
        look_at_links: Callable[[], Awaitable[LinkReading]],
        alerts: Alerts,
    ) -> None:
        self._live = live
        self._firewall = firewall
        self._count_commit = count_commit
        self._look_at_links = look_at_links
        self._alerts = alerts
        self._wanted = asyncio.Event()
        # The devices that the kernel refused, and when.
        self._refused: tuple[str, ...] = ()
        self._refused_at = 0.0

    def follow(self) -> None:
        """Have it made again soon: levels, policy or links changed."""
        self._wanted.set()

    async def run(self) -> None:
        """Make it after each change and regularly, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEWAL):
                    await self._wanted.wait()
            self._wanted.clear()
            await self.renew()

    async def renew(self) -> None:
        """Bring it to the live state: a new one without flows, or none."""
        if not self._live.started:
            return
        if not self._is_wanted():
            await self._end()
            self._refused = ()
            self._alerts.clear("flowtable-missing")
            return
        seen = await self._look_at_links()
        devices = flowtable_devices(seen.host) if seen.host else ()
        refused_now = time.monotonic() - self._refused_at < _AGAIN
        if not devices or (devices == self._refused and refused_now):
            return
        async with self._live.lock.hold():
            if not self._is_wanted():
                return
            try:
                await self._firewall.make_flowtable(devices)
            except KernelError as error:
                self._refused, self._refused_at = devices, time.monotonic()
                self._alerts.raise_alert("flowtable-missing", error=error.message)
            else:
                await self._count_commit()
                self._refused = ()
                self._alerts.clear("flowtable-missing")
        if self._refused:
            await self._end()

    def _is_wanted(self) -> bool:
        live = self._live.current
        return is_wanted(live.policy, live.levels)

    async def _end(self) -> None:
        """End one that may stand."""
        if not self._firewall.flowtable_may_stand:
            return
        async with self._live.lock.hold():
            with contextlib.suppress(KernelError):  # it is tried again
                await self._firewall.end_flowtable()
                await self._count_commit()
