"""Policies into the kernel, beside what is live.

A load gives way: a closing never waits for an allowlist, however large.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ecluse.controller import live_state as lv
from ecluse.controller.context import Context
from ecluse.controller.live_state import CompiledPolicy
from ecluse.controller.lock import Urgent, never
from ecluse.controller.table.manager import PreemptedError
from ecluse.policy import Addresses, Policy

_GIVES_WAY = 10
"""How often a load begins again for a closing; under closings without end it then goes through, and
one of them waits.
"""


class Preloader:
    """Brings policies that are not live yet into the kernel; the caller does not hold the writer's
    lock.
    """

    def __init__(self, shared: Context) -> None:
        self._s = shared

    @asynccontextmanager
    async def turn(
        self, policy: Policy, digest: str, urgent: Urgent = never
    ) -> AsyncIterator[CompiledPolicy]:
        """Hold the writer's lock with this policy loaded.

        RulesetRejectedError, KernelError: nothing of it stands.

        urgent: of the lock alone; what has to be loaded first takes its time.
        """
        gate = self._s.gate
        gate.coming.add(digest)
        try:
            while True:
                await self.load(policy, digest)
                async with self._s.writer.hold(urgent):
                    if digest in gate.loaded:  # unless a healing came in between, which begins anew
                        yield gate.loaded[digest]
                        return
        finally:
            gate.coming.discard(digest)

    async def load(self, policy: Policy, digest: str) -> None:
        """Load a policy unless it stands already."""
        gate, hurry, tries = self._s.gate, self._s.writer.urgent_waiting, 0
        while digest not in gate.loaded:
            tries += 1
            # Compiled on a thread: at 100,000 entries the event loop, and so a cut, would wait a
            # good while.
            compile_ = partial(gate.compile, policy, digest, self._addresses(), gate.new_slot())
            fresh = await asyncio.to_thread(compile_)
            async with self._s.writer.hold():
                try:
                    give_way = hurry.is_set if tries <= _GIVES_WAY else lambda: False
                    await gate.load(fresh, self._addresses(), give_way)
                except PreemptedError:
                    continue

    def _addresses(self) -> Addresses:
        return lv.addresses_of(self._s.ports.resolver.known())
