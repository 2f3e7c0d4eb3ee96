"""Lets addresses of names go when their time is over, never while a connection to them lives; and
saves what is known.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from ecluse.asymmetric_flows import one_sided_services
from ecluse.controller import live_state as lv
from ecluse.controller.context import Context
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.tasks.addresses_in_use import in_use, learned_in_use
from ecluse.errors import EcluseError
from ecluse.flow_judge import ConntrackEntry
from ecluse.policy import CUT

_LOOK = 60.0
"""Seconds between two looks at who uses which address, and no more than so much of a processor,
however large the table.
"""
_SHARE = 1 / 200
_SAVE = 300.0
"""Seconds after which what is known is saved anew although no address changed: when each was last
seen and used.
"""


class HostNameTask:
    """See the module.

    Why the connection table is asked, and not the kernel's own time-outs: docs/datapath.md.
    """

    def __init__(self, shared: Context, ledger: ChangeRecords) -> None:
        self._s = shared
        self._ledger = ledger
        self._next_look = 0.0
        self._soonest = 0.0  # also where something is due: with rotating names something always is
        self._next_save = time.monotonic() + _SAVE

    async def run(self) -> None:
        """Watch until cancelled; at once, since nobody looked while the daemon was away."""
        while True:
            await self.look()
            await asyncio.sleep(self._s.options.tick)

    async def look(self) -> None:
        """Note who uses what, and let go what is due and unused.

        Without a sound look at the connections nothing leaves.
        """
        resolver = self._s.ports.resolver
        due = resolver.due()
        if time.monotonic() < (self._soonest if due else self._next_look):
            return
        began = time.monotonic()
        try:
            used = await self._used()
        except EcluseError as error:
            text = f"addresses that left their name stay kept: nobody can say who uses them ({error.message})"
            self._s.notes.warnings["names"] = text
            return
        self._s.notes.warnings.pop("names", None)
        resolver.used(used)
        # What became due while the table was read waits for the next look.
        resolver.let_go({name: those - used.get(name, frozenset()) for name, those in due.items()})
        took = time.monotonic() - began
        self._soonest = time.monotonic() + took / _SHARE
        self._next_look = max(time.monotonic() + _LOOK, self._soonest)
        if time.monotonic() >= self._next_save:
            self._next_save = time.monotonic() + _SAVE
            await self._ledger.recorder.should([self._ledger.names()])

    async def _see_halves(self, connections: Sequence[ConntrackEntry]) -> None:
        """Warn of kept services of which half goes another way, before a cut shows it.

        It is over when the next look sees none.
        """
        live = self._s.live
        judge = await self._s.judge_of(
            live.loaded, dict.fromkeys(live.policy.zone_names(), CUT.name)
        )
        found = await asyncio.to_thread(one_sided_services, judge, connections)
        self._s.notes.warnings.pop("halves", None)
        if found:
            self._s.notes.warnings["halves"] = "; ".join(found)

    async def _used(self) -> Mapping[str, frozenset[str]]:
        """Give the resolved addresses that are in use, and hold on to the learned ones that are."""
        policies = [one.policy for one in self._s.gate.loaded.values()]
        resolved = lv.addresses_of(self._s.ports.resolver.known())
        firewall = self._s.ports.firewall
        gated = any(one.program.learned for one in self._s.gate.loaded.values())
        learned = await firewall.learned() if gated else {}
        connections = await self._s.ports.conntrack.connections()
        await self._see_halves(connections)
        if not any(resolved.values()) and not any(learned.values()):
            return {}
        if any(learned.values()):
            # At `open` no packet comes by these sets: what lives there would end at the cut when
            # its hour is over.
            held = await asyncio.to_thread(learned_in_use, policies, learned, connections)
            old = await firewall.half_expired(held)
            if old:
                async with self._s.writer.hold():
                    await self._s.gate.hold_learned(old)
        return await asyncio.to_thread(in_use, policies, resolved, connections)
