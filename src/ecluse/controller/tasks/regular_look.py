"""The regular look: compares the kernel with the live state, and reads its counters."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from ecluse.alerts import Alerts
from ecluse.controller.live_state import LiveState
from ecluse.controller.table.manager import TableManager
from ecluse.errors import EcluseError
from ecluse.gc_pause import collect_if_small
from ecluse.ports import Clock, CounterValue, Firewall

_TRY_AGAIN = 0.05
"""Seconds between two tries to read the table back."""
_UNSWEPT = 6
"""Looks after which garbage is collected although somebody commands just then."""

CounterReader = Callable[[Mapping[str, CounterValue]], Awaitable[None]]


class RegularLook:
    """Looks at the kernel.

    counters: as last read, by name; last_packet: when each was last seen to rise.

    Args:
        live, table: what is compared.
        firewall: gives the counters.
        clock: gives the time now.
        counter_readers: called with the counters of each look.
        alerts: take what is wrong.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        table: TableManager,
        firewall: Firewall,
        clock: Clock,
        counter_readers: Sequence[CounterReader],
        alerts: Alerts,
    ) -> None:
        self._live = live
        self._table = table
        self._firewall = firewall
        self._clock = clock
        self._counter_readers = counter_readers
        self._alerts = alerts
        self._unswept = 0
        self.counters: Mapping[str, CounterValue] = {}
        self.last_packet: dict[str, datetime] = {}

    async def read_back(self) -> None:
        """Read the table's looks whenever we changed it, until cancelled."""
        tracker = self._table.tracker
        while True:
            await tracker.unread.wait()
            with contextlib.suppress(EcluseError):
                if await tracker.read_back():
                    continue
            tracker.unread.set()
            await asyncio.sleep(_TRY_AGAIN)

    async def look(self) -> None:
        """Compare the kernel with the live state, and read its counters. KernelError."""
        live = self._live
        if not live.lock.locked():
            async with live.lock.hold():
                await self._table.tracker.wait_for_announcements()
                current = live.current
                live.in_step = await self._table.in_step(current.loaded, current.levels)
                live.checked = self._clock()
        counters = await self._firewall.counters()
        self._take_counters(counters, self._clock())
        for read in self._counter_readers:
            await read(counters)

    def _take_counters(self, counters: Mapping[str, CounterValue], now: datetime) -> None:
        """Remember when each counter was seen to rise; a counter that fell was made again."""
        for name, value in counters.items():
            before = self.counters.get(name)
            # On the first look a counter may have stood for long: when its last packet came is not
            # known then.
            if before is not None and value.packets and value.packets != before.packets:
                self.last_packet[name] = now
        self.counters = dict(counters)

    async def look_or_alert(self) -> None:
        """Look; where that fails raise an alert, and take the kernel for out of step."""
        try:
            await self.look()
        except EcluseError as error:
            self._live.in_step = False
            self._alerts.raise_alert("kernel-not-compared", error=error.message)
        else:
            self._alerts.clear("kernel-not-compared")

    async def collect_garbage(self) -> None:
        """Give memory back."""
        # While somebody commands it can wait, but not for ever: it stops everything for some
        # milliseconds.
        self._unswept += 1
        if self._unswept >= _UNSWEPT or not self._live.lock.locked():
            self._unswept = 0
            collect_if_small()
