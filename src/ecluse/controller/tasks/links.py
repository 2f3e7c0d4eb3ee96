"""Looks at the machine's links whenever they change, and says what is odd about them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from ecluse.alerts import OF_THE_MACHINE, Alerts
from ecluse.bypass import MachineWarning, find_bypasses
from ecluse.controller.live_state import LiveState
from ecluse.errors import EcluseError
from ecluse.host_reading import MISSED, RENAMED, HostReading
from ecluse.policy import GATEWAY, OPEN, Levels, Policy
from ecluse.ports import BypassScanPort, Links
from ecluse.records import Actor, AuditRecord
from ecluse.zone_links import LinkReading

_LINKS_SECONDS = 0.5
"""How long an answer waits for a reading of the links, which is a millisecond's work; then it says
that it did not see them.
"""
_PATIENT_SECONDS = 5.0
"""How long work waits that needs the reading: on a starved machine even this took over half a
second, again and again.
"""
_PAUSE = 1.0
"""Seconds between two looks: a routing protocol that flaps announces thousands of changes, and a
look reads every route.
"""
_MOST_CHANGES = 5
"""Changes of which each is an event; of more, the number is."""
_REGULAR = 60.0
"""Seconds after which the machine is looked at although no link changed: a tc filter or a flowtable
changes none.
"""
_ONCE = 60.0
"""Seconds for which a bypass is told of once, however often it comes and goes."""


_CODES = {
    "routing": "routes-not-kept",
    "tunnel": "tunnel-not-kept",
    "nat64": "nat64-zone",
    "zone": "zone-links-odd",
}
"""Kind of what is odd -> code of its alert; of all others `machine-odd`."""
_HELD = frozenset({"bridge", "macvlan", "macvtap", "netdev"})
"""Kinds of ways past the gate that end at the second lock."""


class LinkReader:
    """Reads the machine's links for an answer that says what is kept.

    default_routes: interfaces that carry one, as `LinkTask` last read them: with thousands of
    routes that takes its time, and no answer waits for it.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self.default_routes: tuple[str, ...] = ()

    async def look(self) -> LinkReading:
        """Read the links now. It never raises, and never waits for long."""
        return await self._look(_LINKS_SECONDS)

    async def look_patiently(self) -> LinkReading:
        """Read the links now, for work that can't do without. It never raises."""
        return await self._look(_PATIENT_SECONDS)

    async def _look(self, seconds: float) -> LinkReading:
        try:
            async with asyncio.timeout(seconds):
                host = await self._links.read_links()
        except TimeoutError:
            trouble = f"no answer within {seconds:g} s"
        except EcluseError as error:
            trouble = error.message
        except Exception as error:  # noqa: BLE001 - no thread, no memory: the answer goes out
            trouble = str(error) or type(error).__name__
        else:
            return LinkReading(replace(host, default_routes=self.default_routes))
        return LinkReading(
            None,
            f"the machine's links could not be looked at, so what is kept is not known: {trouble}",
        )


class LinkTask:
    """Tells changes of links in bunches, and looks for ways past the gate.

    bypasses: what a look found that may carry packets past the gate, for `status`.

    Args:
        live: the live state.
        links, bypass_scan: where changes come from, and what is read.
        reader: is given the default routes.
        append_line: appends a line to the audit log.
        itself: the daemon, as an actor.
        alerts, emit: take alerts and events.
        second_lock_stands: whether it does.
        on_interface: called at once when an interface came, went or was changed.
        on_rename: called at once when one was renamed, or may have been.
        on_change: called when links changed.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        links: Links,
        bypass_scan: BypassScanPort,
        reader: LinkReader,
        append_line: Callable[[AuditRecord], Awaitable[object]],
        itself: Actor,
        alerts: Alerts,
        emit: Callable[[str, str], None],
        second_lock_stands: Callable[[], bool],
        on_interface: Callable[[], None],
        on_rename: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._second_lock_stands = second_lock_stands
        self._on_interface = on_interface
        self._on_rename = on_rename
        self._on_change = on_change
        self._live = live
        self._links = links
        self._bypass_scan = bypass_scan
        self._reader = reader
        self._append_line = append_line
        self._itself = itself
        self._alerts = alerts
        self._emit = emit
        self.bypasses: tuple[MachineWarning, ...] = ()
        self._host = HostReading()
        # Changes that are not told yet: the first few, and how many more.
        self._untold: list[str] = []
        self._more = 0
        self._heard = asyncio.Event()
        self._changes: AsyncIterator[str] | None = None
        # What the look before found.
        self._oddities: tuple[str, ...] = ()
        self._unzoned: tuple[str, ...] = ()
        # Bypasses by kind and place: those that were told of, and when each came or went.
        self._known: dict[tuple[str, str], str] = {}
        self._told_at: dict[tuple[str, str], float] = {}

    async def hear(self) -> None:
        """Take announced changes, until cancelled."""
        if self._changes is None:
            self._changes = self._links.changes()
        async for change in self._changes:
            # A device that was renamed has left the second lock: no pause before that.
            if RENAMED in change or change.startswith(MISSED):
                self._on_rename()
            elif change.startswith("interface "):
                self._on_interface()
            if len(self._untold) < _MOST_CHANGES:
                self._untold.append(change)
            else:
                self._more += 1
            self._heard.set()

        self._changes = None  # it came to an end

    async def run(self) -> None:
        """Look whenever something changed, and regularly, until cancelled."""
        await self._look()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REGULAR):
                    await self._heard.wait()
            if self._heard.is_set():
                self._on_change()
            self._heard.clear()
            for change in self._untold:
                self._emit("link", change)
            if self._more:
                self._emit("link", f"and {self._more} more changes of links")
            self._untold, self._more = [], 0
            await self._look()
            await asyncio.sleep(_PAUSE)

    async def _look(self) -> None:
        policy = self._live.current.policy
        try:
            # With thousands of routes this takes its time. No answer waits for it: a cut waits for
            # the links alone (`LinkReader`).
            host = await self._links.read_host()
        except EcluseError as error:
            self._alerts.raise_alert("routes-unknown", error=error.message)
            seen = await self._reader.look()  # the links alone
        else:
            self._reader.default_routes = host.default_routes
            self._alerts.clear("routes-unknown")
            seen = LinkReading(host)
        if seen.host is not None:
            unzoned = seen.unzoned_interfaces(policy)
            for name in sorted({*unzoned} - {*self._unzoned}):
                self._emit(
                    "link",
                    f"interface {name} is in no zone: while any zone is closed, only what "
                    "a service keeps passes there",
                )
            self._unzoned = unzoned
        oddities = seen.link_warnings(policy)
        for text in oddities:
            if text not in self._oddities:
                self._emit("link", text)
        self._oddities = oddities
        await self.scan_for_bypasses(seen)
        self.raise_alerts(seen)

    def bypass_texts(self) -> tuple[str, ...]:
        """Say what the last look found, and which ways past the gate the second lock holds."""
        return tuple(map(self._said, self.bypasses))

    def _said(self, one: MachineWarning) -> str:
        held = one.is_bypass and one.kind in _HELD and self._second_lock_stands()
        return one.what + " (the second lock stands, and drops what goes by it)" * held

    def raise_alerts(self, seen: LinkReading) -> None:
        """Have an alert stand for each thing that is odd about the machine, and for nothing else.

        Of several ways past the gate of one kind at one place the first is an alert.
        """
        if seen.host is None:
            return  # nothing new is known
        alerts, keys = self._alerts, dict[str, set[str]]()
        inside = seen.default_route_bypasses(self._live.current.policy)
        found = [(one.kind, one.is_bypass, one.where, self._said(one)) for one in self.bypasses]
        texts = seen.link_warnings(self._live.current.policy)
        found += [("zone", text in inside, text, text) for text in texts]
        for kind, is_bypass, where, what in found:
            code = "bypass-found" if is_bypass else _CODES.get(kind, "machine-odd")
            key = f"{kind} {where}" if is_bypass else what
            if key in keys.setdefault(code, set()):
                continue
            keys[code].add(key)
            if is_bypass:
                alerts.raise_alert("bypass-found", key, what=what)
            elif code == "routes-not-kept":
                alerts.raise_alert("routes-not-kept", key, what=what)
            elif code == "tunnel-not-kept":
                alerts.raise_alert("tunnel-not-kept", key, what=what)
            elif code == "nat64-zone":
                alerts.raise_alert("nat64-zone", key, what=what)
            elif code == "zone-links-odd":
                alerts.raise_alert("zone-links-odd", key, what=what)
            else:
                alerts.raise_alert("machine-odd", key, what=what)
        for code in OF_THE_MACHINE:
            alerts.clear_others(code, keys.get(code, ()))

    async def scan_for_bypasses(self, seen: LinkReading) -> None:
        """Look for what may carry packets past the gate.

        A new one is an event, and a line in the audit log if it is a way out.
        """
        try:
            if seen.host is None:
                raise EcluseError(seen.trouble)  # noqa: TRY301 - as if the scan had met it
            host = await self._bypass_scan.scan(seen.host)
        except EcluseError as error:
            self._alerts.raise_alert("bypass-scan-failed", error=error.message)
            return
        self._alerts.clear("bypass-scan-failed")
        self._host = host
        live = self._live.current
        # With the gateway open, what `cut` would end is worth saying.
        at = live.levels if live.levels[GATEWAY] != OPEN.name else None
        self.bypasses = find_bypasses(host, live.policy, at)
        new, gone = self._changed_bypasses()
        for what in new:
            self._emit("exit", what)
        if new or gone:
            ended = (f"no more: {one}" for one in gone[:_MOST_CHANGES])
            what = "; ".join([*new[:_MOST_CHANGES], *ended])
            levels = self._live.current.levels
            await self._append_line(AuditRecord("exit", self._itself, what, levels=levels))

    def bypasses_at(self, policy: Policy, levels: Levels) -> tuple[MachineWarning, ...]:
        """Judge what was last read by this policy at these levels."""
        return find_bypasses(self._host, policy, levels)

    def _changed_bypasses(self) -> tuple[list[str], list[str]]:
        """Give the ways out that came and those that went since they were last told of.

        Each counts by its kind and place. What was told of within the last minute waits: a host of
        containers has others with each that starts.
        """
        now = asyncio.get_running_loop().time()
        self._told_at = {way: at for way, at in self._told_at.items() if now - at < _ONCE}
        ways: dict[tuple[str, str], list[str]] = {}
        for one in self.bypasses:
            if one.is_bypass:
                ways.setdefault((one.kind, one.where), []).append(one.what)
        there = {
            way: whats[0] + (f" (and {len(whats) - 1} more there)" if whats[1:] else "")
            for way, whats in ways.items()
        }
        came = there.keys() - self._known.keys() - self._told_at.keys()
        went = self._known.keys() - there.keys() - self._told_at.keys()
        new = [what for way, what in there.items() if way in came]
        gone = [what for way, what in self._known.items() if way in went]
        for way in went:
            del self._known[way]
        self._known |= {way: there[way] for way in came}
        self._told_at |= dict.fromkeys(came | went, now)
        return new, gone
