"""Addresses of host names: new ones into the kernel, old ones out once nobody uses them.

An address never goes while a connection to it lives. Why the connection table is asked, and not
the kernel's own time-outs: docs/datapath.md.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence

from ecluse.alerts import Alerts, error_text
from ecluse.asymmetric_flows import one_sided_services
from ecluse.controller.live_state import CompiledPolicy, LiveState, addresses_of
from ecluse.controller.table.manager import TableManager
from ecluse.controller.tasks.addresses_in_use import in_use, learned_in_use
from ecluse.errors import EcluseError
from ecluse.flow_judge import ConntrackEntry, FlowJudge
from ecluse.policy import CUT, Addresses, Levels
from ecluse.ports import Conntrack, Firewall, Resolver

_LOOK = 60.0
"""Seconds between two readings of the connection table."""
_SHARE = 1 / 200
"""As much of a processor as these readings may take, however large the table."""
_SAVE = 300.0
"""Seconds after which the names are saved although no address changed: when each was last seen and
used.
"""
_EXAMPLES = 10
"""Names that an event lists."""


class AddressChanges:
    """Brings changed addresses of host names into the kernel.

    Args:
        live, table, resolver: whose addresses, where to, and where from.
        run_aside: runs something beside everything else.
        keep_previous_ready: loads the policy again that a rollback would go back to.
        save_names: saves the addresses.
        renew_boot_soon: has the boot ruleset renewed.
        before_update: has the second lock let the new addresses through, and gives them.
        on_update: called when addresses were loaded.
        alerts, emit: take alerts and events.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        table: TableManager,
        resolver: Resolver,
        run_aside: Callable[[Coroutine[object, object, object]], object],
        keep_previous_ready: Callable[[], Coroutine[object, object, None]],
        save_names: Callable[[], Awaitable[None]],
        renew_boot_soon: Callable[[], None],
        before_update: Callable[[], Awaitable[Addresses]],
        on_update: Callable[[], None],
        alerts: Alerts,
        emit: Callable[[str, str], None],
    ) -> None:
        self._live = live
        self._table = table
        self._resolver = resolver
        self._run_aside = run_aside
        self._keep_previous_ready = keep_previous_ready
        self._save_names = save_names
        self._renew_boot_soon = renew_boot_soon
        self._before_update = before_update
        self._on_update = on_update
        self._alerts = alerts
        self._emit = emit
        self._changes: AsyncIterator[frozenset[str]] | None = None
        self._due = False

    def listen(self) -> None:
        """Hear of changed addresses from now on."""
        self._changes = self._resolver.changes()

    async def follow(self) -> None:
        """Load what changes, until cancelled."""
        if self._changes is None:
            return
        async for names in self._changes:
            try:
                await self._load()
            except Exception as error:  # noqa: BLE001 - told, and tried again at the regular look
                self._due = True
                self._alerts.raise_alert("addresses-not-loaded", error=error_text(error))
                continue
            self._alerts.clear("addresses-not-loaded")
            self._emit("address", "addresses changed: " + ", ".join(sorted(names)[:_EXAMPLES]))
            await self._save_names()

    async def retry(self) -> None:
        """Load addresses that could not be loaded before."""
        if self._due:
            await self._load()
            self._due = False
            self._alerts.clear("addresses-not-loaded")

    async def _load(self) -> None:
        table = self._table
        async with self._live.lock.hold():
            live = self._live.current
            addresses = await self._before_update()
            self._on_update()
            if not await table.update(addresses):
                # More than elements: a map that had none, or another structure.
                digest = live.loaded.digest
                self._live.replace_loaded(await table.bring_up(live.policy, digest, live.levels))
                self._run_aside(self._keep_previous_ready())
                return
            self._live.replace_loaded(table.loaded[live.loaded.digest])
            if self._live.current.loaded.ruleset != live.loaded.ruleset:
                self._renew_boot_soon()


class AddressUse:
    """Looks which addresses are in use, and lets those go that are due and unused.

    Args:
        live, table: whose policies count, and where learned addresses are.
        resolver, conntrack, firewall: names, connections, learned addresses.
        judge_for: makes a judge of connections for a compiled policy at some levels.
        save_names: saves the addresses, now and then.
        tick: seconds between two looks at the clock.
        alerts: take what is wrong.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        table: TableManager,
        resolver: Resolver,
        conntrack: Conntrack,
        firewall: Firewall,
        judge_for: Callable[[CompiledPolicy, Levels], Awaitable[FlowJudge]],
        save_names: Callable[[], Awaitable[None]],
        tick: float,
        alerts: Alerts,
    ) -> None:
        self._live = live
        self._table = table
        self._resolver = resolver
        self._conntrack = conntrack
        self._firewall = firewall
        self._judge_for = judge_for
        self._save_names = save_names
        self._tick = tick
        self._alerts = alerts
        self._next_look = 0.0
        # Not sooner, even where something is due: with rotating names something always is.
        self._soonest = 0.0
        self._next_save = time.monotonic() + _SAVE

    async def run(self) -> None:
        """Look until cancelled; at once, since nobody looked while the daemon was away."""
        while True:
            await self.look()
            await asyncio.sleep(self._tick)

    async def look(self) -> None:
        """See who uses what, and let go what is due and unused.

        Where the connections cannot be read nothing goes.
        """
        resolver = self._resolver
        due = resolver.due()
        if time.monotonic() < (self._soonest if due else self._next_look):
            return
        began = time.monotonic()
        try:
            used = await self._used()
        except EcluseError as error:
            self._alerts.raise_alert("address-use-unknown", error=error.message)
            return
        self._alerts.clear("address-use-unknown")
        resolver.used(used)
        # What became due while the table was read waits for the next look.
        resolver.let_go({name: those - used.get(name, frozenset()) for name, those in due.items()})
        took = time.monotonic() - began
        self._soonest = time.monotonic() + took / _SHARE
        self._next_look = max(time.monotonic() + _LOOK, self._soonest)
        if time.monotonic() >= self._next_save:
            self._next_save = time.monotonic() + _SAVE
            await self._save_names()

    async def _used(self) -> Mapping[str, frozenset[str]]:
        """Give the resolved addresses that are in use; renew the learned ones that are."""
        loaded = self._table.loaded.values()
        policies = [one.policy for one in loaded]
        resolved = addresses_of(self._resolver.known())
        has_learned_sets = any(one.program.learned for one in loaded)
        learned = await self._firewall.learned() if has_learned_sets else {}
        connections = await self._conntrack.connections()
        await self._find_asymmetric(connections)
        if not any(resolved.values()) and not any(learned.values()):
            return {}
        if any(learned.values()):
            # At `open` no packet comes by these sets, so that the kernel renews no element: what
            # lives there would end at the cut when its hour is over.
            used = await asyncio.to_thread(learned_in_use, policies, learned, connections)
            old = await self._firewall.half_expired(used)
            if old:
                async with self._live.lock.hold():
                    await self._table.renew_learned(old)
        return await asyncio.to_thread(in_use, policies, resolved, connections)

    async def _find_asymmetric(self, connections: Sequence[ConntrackEntry]) -> None:
        """Warn of kept services of which half goes another way, before a cut shows it."""
        live = self._live.current
        at_cut = dict.fromkeys(live.policy.zone_names(), CUT.name)
        judge = await self._judge_for(live.loaded, at_cut)
        found = await asyncio.to_thread(one_sided_services, judge, connections)
        for service, count in found.items():
            self._alerts.raise_alert("asymmetric-flows", key=service, service=service, count=count)
        self._alerts.clear_others("asymmetric-flows", found.keys())
