"""Looks at the machine's links whenever they change, and says what is odd between them and the
site's zones.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from ecluse.bypass import findings
from ecluse.controller.context import Context
from ecluse.errors import EcluseError
from ecluse.records import AuditRecord

_PAUSE = 1.0
"""Seconds between two looks: a routing protocol that flaps tells of thousands of changes, and a
look reads every route.
"""
_MOST_TOLD = 5
_REGULAR = 60.0
"""Seconds after which the machine is looked at although no link changed: a tc filter or a flowtable
changes none.
"""
_NEWS = 60.0
"""Seconds for which a way past the gate is told of once, however often it comes and goes."""


class LinkTask:
    """Tells changes of links in bunches.

    A look that fails is said and made again with the next change.
    """

    def __init__(self, shared: Context, record: Callable[[AuditRecord], Awaitable[object]]) -> None:
        self._s = shared
        self._record = record
        self._told: list[str] = []
        self._remarks: tuple[str, ...] = ()
        self._foreign: tuple[str, ...] = ()
        self._more = 0
        self._heard = asyncio.Event()
        self._changes: AsyncIterator[str] | None = None
        self._known: dict[tuple[str, str], str] = {}
        self._said: dict[tuple[str, str], float] = {}

    async def hear(self) -> None:
        """Take note of changes, until cancelled."""
        if self._changes is None:
            self._changes = self._s.ports.links.changes()
        async for change in self._changes:
            if len(self._told) < _MOST_TOLD:
                self._told.append(change)
            else:
                self._more += 1
            self._heard.set()

        self._changes = None  # it came to an end

    async def look(self) -> None:
        """Look whenever something changed, and regularly, until cancelled."""
        await self._look()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REGULAR):
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
        notes, policy = self._s.notes, self._s.live.policy
        try:
            # With thousands of routes this takes its time: no answer waits for it, but for the
            # links alone.
            notes.default_routes = await self._s.ports.links.default_routes()
        except EcluseError as error:
            notes.warnings["routes"] = f"the machine's routes could not be read: {error.message}"
        else:
            notes.warnings.pop("routes", None)
        seen = await self._s.see_links()
        if seen.host is not None:
            foreign = seen.strangers(policy)
            for name in sorted({*foreign} - {*self._foreign}):
                self._s.say(
                    "link", f"interface {name} is in no zone: it is closed while any zone is"
                )
            self._foreign = foreign
        remarks = seen.remarks(policy)
        for text in remarks:
            if text not in self._remarks:
                self._s.say("link", text)
        self._remarks = remarks
        await self._look_for_exits()

    async def _look_for_exits(self) -> None:
        """Name what may carry packets past the gate; what is new is an event, and a way out stands
        in the audit log too.
        """
        warnings = self._s.notes.warnings
        try:
            host = await self._s.ports.exits.look()
        except EcluseError as error:
            warnings["exits"] = f"ways past the gate could not be looked for: {error.message}"
            return
        warnings.pop("exits", None)
        self._s.notes.exits = findings(host, self._s.live.policy)
        new, gone = self._news()
        for what in new:
            self._s.say("exit", what)
        if new or gone:
            what = "; ".join([*new[:_MOST_TOLD], *(f"no more: {one}" for one in gone[:_MOST_TOLD])])
            await self._record(
                AuditRecord("exit", self._s.itself, what, levels=self._s.live.levels)
            )

    def _news(self) -> tuple[list[str], list[str]]:
        """Give the ways out that came and those that went since they were last told of, each by its
        kind and place.

        What was told of within the last minute waits: a host of containers has others with each
        that starts.
        """
        now = asyncio.get_running_loop().time()
        self._said = {way: at for way, at in self._said.items() if now - at < _NEWS}
        ways: dict[tuple[str, str], list[str]] = {}
        for one in self._s.notes.exits:
            if one.is_exit:
                ways.setdefault((one.kind, one.where), []).append(one.what)
        there = {
            way: whats[0] + (f" (and {len(whats) - 1} more there)" if whats[1:] else "")
            for way, whats in ways.items()
        }
        came = there.keys() - self._known.keys() - self._said.keys()
        went = self._known.keys() - there.keys() - self._said.keys()
        new = [what for way, what in there.items() if way in came]
        gone = [what for way, what in self._known.items() if way in went]
        for way in went:
            del self._known[way]
        self._known |= {way: there[way] for way in came}
        self._said |= dict.fromkeys(came | went, now)
        return new, gone
