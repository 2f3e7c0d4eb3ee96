"""Background task: reads the machine's links when they change, and says what is odd about them.

One event costs one reading: `read_host` makes it, and both judges (`zone_links`, `bypass`) take it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from ecluse.bypass import find_bypasses
from ecluse.controller.context import Context
from ecluse.errors import EcluseError
from ecluse.records import AuditRecord
from ecluse.zone_links import LinkReading

_PAUSE = 1.0
"""Seconds between two readings.

A routing protocol that flaps announces thousands of changes, and a reading takes every route.
"""
_MOST_CHANGES = 5
"""Changes that are told one by one; of the others only their number."""
_REGULAR = 60.0
"""Seconds after which the machine is read although no link changed.

A tc filter or a flowtable changes none.
"""
_BYPASS_QUIET = 60.0
"""Seconds for which a bypass is told of once, however often it comes and goes."""


class LinkTask:
    """Tells changes of links in bunches, then judges the machine as it is.

    A reading that fails is told, and made again with the next change.
    """

    def __init__(self, shared: Context, record: Callable[[AuditRecord], Awaitable[object]]) -> None:
        self._s = shared
        self._record = record
        self._unsaid: list[str] = []
        self._unsaid_more = 0
        self._heard = asyncio.Event()
        self._changes: AsyncIterator[str] | None = None
        self._link_warnings: tuple[str, ...] = ()
        self._unzoned: tuple[str, ...] = ()
        self._known: dict[tuple[str, str], str] = {}
        self._told_at: dict[tuple[str, str], float] = {}

    async def hear(self) -> None:
        """Collect changes, until cancelled."""
        if self._changes is None:
            self._changes = self._s.ports.links.changes()
        async for change in self._changes:
            if len(self._unsaid) < _MOST_CHANGES:
                self._unsaid.append(change)
            else:
                self._unsaid_more += 1
            self._heard.set()

        self._changes = None  # it came to an end: the next call subscribes again

    async def look(self) -> None:
        """Read and judge whenever something changed, and regularly, until cancelled."""
        await self._look()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REGULAR):
                    await self._heard.wait()
            self._heard.clear()
            for change in self._unsaid:
                self._s.say("link", change)
            if self._unsaid_more:
                self._s.say("link", f"and {self._unsaid_more} more changes of links")
            self._unsaid, self._unsaid_more = [], 0
            await self._look()
            await asyncio.sleep(_PAUSE)

    async def _look(self) -> None:
        notes = self._s.notes
        try:
            # With thousands of routes this takes its time. No answer waits for it: a cut waits for
            # the links alone (`see_links`).
            host = await self._s.ports.links.read_host()
        except EcluseError as error:
            notes.warnings["routes"] = f"the machine's routes could not be read: {error.message}"
        else:
            notes.default_routes = host.default_routes
            notes.warnings.pop("routes", None)
        seen = await self._s.see_links()  # the reading that was just made
        self._judge_links(seen)
        await self._scan_for_bypasses(seen)

    def _judge_links(self, seen: LinkReading) -> None:
        """Tell as an event what is odd now and was not before."""
        policy = self._s.live.policy
        if seen.host is not None:
            unzoned = seen.unzoned_interfaces(policy)
            for name in sorted({*unzoned} - {*self._unzoned}):
                what = f"interface {name} is in no zone: it is closed while any zone is"
                self._s.say("link", what)
            self._unzoned = unzoned
        warnings = seen.link_warnings(policy)
        for text in warnings:
            if text not in self._link_warnings:
                self._s.say("link", text)
        self._link_warnings = warnings

    async def _scan_for_bypasses(self, seen: LinkReading) -> None:
        """Name what may carry packets past the gate.

        A new bypass is an event; one that comes or goes is a line of the audit log, too.
        """
        warnings = self._s.notes.warnings
        try:
            if seen.host is None:
                raise EcluseError(seen.trouble)  # noqa: TRY301 - as if the scan had met it
            host = await self._s.ports.bypass_scan.scan(seen.host)
        except EcluseError as error:
            warnings["bypasses"] = f"ways past the gate could not be looked for: {error.message}"
            return
        warnings.pop("bypasses", None)
        self._s.notes.bypasses = find_bypasses(host, self._s.live.policy)
        came, went = self._bypass_changes()
        for what in came:
            self._s.say("exit", what)
        if came or went:
            gone = [f"no more: {one}" for one in went[:_MOST_CHANGES]]
            what = "; ".join([*came[:_MOST_CHANGES], *gone])
            await self._record(
                AuditRecord("exit", self._s.itself, what, levels=self._s.live.levels)
            )

    def _bypass_changes(self) -> tuple[list[str], list[str]]:
        """Give the texts of the bypasses that came and of those that went since last told.

        Each counts by kind and place. One that was told of within the last minute waits: a host of
        containers has other interfaces with each container that starts.
        """
        now = asyncio.get_running_loop().time()
        self._told_at = {key: at for key, at in self._told_at.items() if now - at < _BYPASS_QUIET}
        texts: dict[tuple[str, str], list[str]] = {}
        for one in self._s.notes.bypasses:
            if one.is_bypass:
                texts.setdefault((one.kind, one.where), []).append(one.what)
        there = {
            key: every[0] + (f" (and {len(every) - 1} more there)" if every[1:] else "")
            for key, every in texts.items()
        }
        came = there.keys() - self._known.keys() - self._told_at.keys()
        went = self._known.keys() - there.keys() - self._told_at.keys()
        new = [what for key, what in there.items() if key in came]
        gone = [what for key, what in self._known.items() if key in went]
        for key in went:
            del self._known[key]
        self._known |= {key: there[key] for key in came}
        self._told_at |= dict.fromkeys(came | went, now)
        return new, gone
