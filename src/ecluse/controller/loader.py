"""Policies into the kernel, beside what is live. A load gives way: a closing never waits for an allowlist, however large."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ecluse.controller import live as lv
from ecluse.controller.gate import GaveWayError
from ecluse.controller.live import Loaded
from ecluse.controller.shared import Shared
from ecluse.controller.writer import Urgent, never
from ecluse.policy import Addresses, Policy


class Loader:
    """Brings policies that are not live yet into the kernel; the caller does not hold the writer's lock."""

    def __init__(self, shared: Shared) -> None:
        self._s = shared

    @asynccontextmanager
    async def turn(self, policy: Policy, digest: str, urgent: Urgent = never) -> AsyncIterator[Loaded]:
        """Hold the writer's lock with this policy loaded. RulesetRejectedError, KernelError: nothing of it stands.

        urgent: of the lock alone; what has to be loaded first takes its time.
        """
        gate = self._s.gate
        gate.coming.add(digest)
        try:
            while True:
                await self.load(policy, digest)
                async with self._s.writer.turn(urgent):
                    if digest in gate.loaded:  # unless a healing came in between, which begins anew
                        yield gate.loaded[digest]
                        return
        finally:
            gate.coming.discard(digest)

    async def load(self, policy: Policy, digest: str) -> None:
        """Load a policy unless it stands already."""
        gate = self._s.gate
        while digest not in gate.loaded:
            # Compiled on a thread: at 100,000 entries the event loop, and so a cut, would wait a good while.
            compile_ = partial(gate.compile, policy, digest, self._addresses(), gate.new_slot())
            fresh = await asyncio.to_thread(compile_)
            async with self._s.writer.turn():
                try:
                    await gate.load(fresh, self._addresses(), self._s.writer.hurry.is_set)
                except GaveWayError:
                    continue

    def _addresses(self) -> Addresses:
        return lv.addresses_of(self._s.ports.resolver.known())
