"""Warns before a bounded table of the kernel is full: kept flows fail with the others then."""

import asyncio

from ecluse.alerts import Alerts
from ecluse.errors import EcluseError
from ecluse.ports import Links
from ecluse.results import TableUse

_EVERY = 2.0
"""Seconds between two looks: 20,000 questions a second fill a usual table in 13 s."""
_NEARLY, _CALM = 0.8, 0.7
"""The share from which a table is nearly full, and below which it is not any more."""


class KernelLimitsTask:
    """Raises an alert for each table that fills. tables: as last read, for `status`."""

    def __init__(self, links: Links, alerts: Alerts) -> None:
        self._links = links
        self._alerts = alerts
        self.tables: tuple[TableUse, ...] = ()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(_EVERY)

    async def _look(self) -> None:
        try:
            self.tables = await self._links.table_uses()
        except EcluseError as error:
            self._alerts.raise_alert("kernel-tables-unknown", error=error.message)
            return
        self._alerts.clear("kernel-tables-unknown")
        for one in self.tables:
            share = one.used / one.most
            raised = self._alerts.is_raised("kernel-table-full", one.name)
            if share >= _NEARLY or (raised and share >= _CALM):
                self._alerts.raise_alert(
                    "kernel-table-full",
                    key=one.name,
                    table=one.name,
                    percent=100 * one.used // one.most,
                    used=one.used,
                    most=one.most,
                    knob=one.knob,
                )
            else:
                self._alerts.clear("kernel-table-full", key=one.name)
