"""Looks at the machine's links whenever they change, and says what is odd between them and the site's zones."""

import asyncio
from collections.abc import AsyncIterator

from ecluse.controller import report
from ecluse.controller.shared import Shared
from ecluse.errors import EcluseError

_PAUSE = 1.0
"""Seconds between two looks: a routing protocol that flaps tells of thousands of changes, and a look reads every route."""
_MOST_TOLD = 5


class LinkWatch:
    """Tells changes of links in bunches. A look that fails is said and made again with the next change."""

    def __init__(self, shared: Shared) -> None:
        self._s = shared
        self._told: list[str] = []
        self._more = 0
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        changes = self._s.ports.links.changes()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._look_for_ever())
            both.create_task(self._hear(changes))

    async def _hear(self, changes: AsyncIterator[str]) -> None:
        async for change in changes:
            if len(self._told) < _MOST_TOLD:
                self._told.append(change)
            else:
                self._more += 1
            self._heard.set()

    async def _look_for_ever(self) -> None:
        await self._look()
        while True:
            await self._heard.wait()
            self._heard.clear()
            for change in self._told:
                self._s.say("link", change)
            if self._more:
                self._s.say("link", f"and {self._more} more changes of links")
            self._told, self._more = [], 0
            await self._look()
            await asyncio.sleep(_PAUSE)

    async def _look(self) -> None:
        warnings = self._s.notes.warnings
        try:
            interfaces = await self._s.ports.links.interfaces()
            routes = await self._s.ports.links.default_routes()
        except EcluseError as error:
            warnings["links"] = f"the machine's links could not be read: {error.message}"
            return
        policy = self._s.live.policy
        self._s.notes.foreign = report.foreign_interfaces(policy, interfaces, routes)
        odd = report.link_warnings(policy, interfaces, routes)
        warnings.pop("links", None)
        if odd:
            warnings["links"] = "; ".join(odd)
