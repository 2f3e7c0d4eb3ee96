"""Watches tables of the kernel's that have a bound, and says it before one is full: kept flows fail
with the others then.
"""

import asyncio

from ecluse.controller.context import Context
from ecluse.errors import EcluseError
from ecluse.results import TableUse

_EVERY = 2.0
"""Seconds between two looks: 20,000 questions a second fill a usual table in 13 s."""
_NEARLY, _CALM = 0.8, 0.7
"""The share from which a table is told as nearly full, and below which it is not any more."""


class KernelLimitsTask:
    """Tells each table once as it fills, and once as it is emptier again."""

    def __init__(self, shared: Context) -> None:
        self._s = shared

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(_EVERY)

    async def _look(self) -> None:
        warnings = self._s.notes.warnings
        try:
            tables = await self._s.ports.links.tables()
        except EcluseError as error:
            warnings["tables"] = f"how full the kernel's tables are is not known: {error.message}"
            return
        warnings.pop("tables", None)
        self._s.notes.tables = tables
        for one in tables:
            topic, share = f"table {one.name}", one.used / one.most
            told = topic in warnings
            if share >= _NEARLY or (told and share >= _CALM):
                warnings[topic] = _words(one)
                if not told:
                    self._s.say("warning", warnings[topic])
            elif warnings.pop(topic, None):
                self._s.say(
                    "table",
                    f"the kernel's table of {one.name} has room again ({one.used:,} of {one.most:,})",
                )


def _words(one: TableUse) -> str:
    state = "is FULL" if one.used >= one.most else f"is {100 * one.used // one.most} % full"
    return (
        f"the kernel's table of {one.name} {state} ({one.used:,} of {one.most:,}): once it is full, new flows fail, kept ones "
        f"too. Raise {one.knob} (sysctl -w), and see in 'ecluse refused' who fills it"
    )
