"""Background task: watches the kernel's bounded tables and says when one is nearly full.

Once it is full, new kept flows fail with the others.
"""

import asyncio

from ecluse.controller.context import Context
from ecluse.errors import EcluseError
from ecluse.results import TableUse

_EVERY = 2.0
"""Seconds between two readings: 20,000 questions a second fill a usual table in 13 s."""
_NEARLY, _CALM = 0.8, 0.7
"""The share from which a table is told as nearly full, and below which it no longer is."""


class KernelLimitsTask:
    """Tells each table once as it fills, and once as it is emptier again."""

    def __init__(self, shared: Context) -> None:
        self._s = shared

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._read_tables()
            await asyncio.sleep(_EVERY)

    async def _read_tables(self) -> None:
        warnings = self._s.notes.warnings
        try:
            tables = await self._s.ports.links.table_uses()
        except EcluseError as error:
            warnings["tables"] = f"how full the kernel's tables are is not known: {error.message}"
            return
        warnings.pop("tables", None)
        self._s.notes.tables = tables
        for one in tables:
            topic, share = f"table {one.name}", one.used / one.most
            was_told = topic in warnings
            if share >= _NEARLY or (was_told and share >= _CALM):
                warnings[topic] = _warning(one)
                if not was_told:
                    self._s.say("warning", warnings[topic])
            elif warnings.pop(topic, None):
                room = f"has room again ({one.used:,} of {one.most:,})"
                self._s.say("table", f"the kernel's table of {one.name} {room}")


def _warning(one: TableUse) -> str:
    state = "is FULL" if one.used >= one.most else f"is {100 * one.used // one.most} % full"
    return (
        f"the kernel's table of {one.name} {state} ({one.used:,} of {one.most:,}): once it is "
        f"full, new flows fail, kept ones too. Raise {one.knob} (sysctl -w), and see in "
        "'ecluse refused' who fills it"
    )
