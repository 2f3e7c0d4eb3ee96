"""Policies that are not live: loaded beside the live one, kept ready, taken out again.

A load gives way: a closing never waits for an allowlist, however large.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from ecluse.alerts import Alerts
from ecluse.controller.live_state import CompiledPolicy, LiveState, servers_of
from ecluse.controller.table.manager import PreemptedError, TableManager
from ecluse.errors import EcluseError
from ecluse.policy import Policy
from ecluse.ports import Resolver
from ecluse.records import Generation

_GIVES_WAY = 10
"""How often a load begins again for a closing; under closings without end it then goes through, and
one of them waits.
"""


class Preloader:
    """Decides which policies stand in the kernel beside the live one.

    generations: those that are recorded, by number. read_policy: reads a stored one (StateError).
    keep_in_kernel: how many policies to keep loaded. step: as for `TableManager`.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        table: TableManager,
        resolver: Resolver,
        generations: Mapping[int, Generation],
        read_policy: Callable[[str], Awaitable[Policy]],
        keep_in_kernel: int,
        alerts: Alerts,
        step: Callable[[str], None],
    ) -> None:
        self._live = live
        self._table = table
        self._resolver = resolver
        self._generations = generations
        self._read_policy = read_policy
        self._keep_in_kernel = keep_in_kernel
        self._alerts = alerts
        self._step = step

    @asynccontextmanager
    async def hold_lock_with(
        self, policy: Policy, digest: str, urgency: Callable[[], int] | None = None
    ) -> AsyncIterator[CompiledPolicy]:
        """Hold the lock with this policy loaded; the caller does not hold it yet.

        Its names are followed, unless it all fails. urgency: of the lock alone; loading takes its
        time. RulesetRejectedError, KernelError: nothing of the policy stands.
        """
        table = self._table
        table.coming.add(digest)
        failed = False
        try:
            while True:
                await self.load(policy, digest)
                async with self._live.lock.hold(*([urgency] if urgency else [])):
                    # Not there: the table was restored in between, with the live policy alone.
                    if digest in table.loaded:
                        self._step("loaded")
                        yield table.loaded[digest]
                        return
        except EcluseError:
            failed = True
            raise
        finally:
            table.coming.discard(digest)
            if failed:
                self.follow_names()

    async def load(self, policy: Policy, digest: str) -> None:
        """Load a policy unless it stands already; the caller does not hold the lock."""
        table, lock, tries = self._table, self._live.lock, 0
        while digest not in table.loaded:
            tries += 1
            # Compiled on a thread: at 100,000 entries the event loop, and so a cut, would wait a
            # good while.
            work = partial(table.compile, policy, digest, table.new_slot())
            fresh = await asyncio.to_thread(work)
            async with lock.hold():
                try:
                    give_way = lock.urgent_waiting.is_set if tries <= _GIVES_WAY else lambda: False
                    await table.load(fresh, give_way)
                except PreemptedError:
                    continue

    async def keep_previous_ready(self) -> None:
        """Load the policy that a rollback would go back to: it is then as quick as any switch."""
        previous = self._generations.get(self._live.current.generation.previous)
        if previous is None or previous.policy in self._table.loaded:
            return
        try:
            # Before the lock is taken: the disk may hang.
            policy = await self._read_policy(previous.policy)
            await self.load(policy, previous.policy)
            self.follow_names()
        except EcluseError as error:
            self._alerts.raise_alert("generation-not-ready", error=error.message)
        else:
            self._alerts.clear("generation-not-ready")

    async def prune(self) -> None:
        """Leave the newest few policies in the kernel; the caller holds the lock. KernelError."""
        newest = [self._live.current.loaded.digest]
        for generation in sorted(self._generations.values(), key=lambda g: -g.number):
            if generation.policy not in newest:
                newest.append(generation.policy)
        keep = set(newest[: self._keep_in_kernel])
        if not set(self._table.loaded) <= keep:
            await self._table.prune(keep)
        self.follow_names()

    def follow_names(self, coming: Policy | None = None) -> None:
        """Have the names of every policy in the kernel kept fresh, and those of a coming one.

        The servers are those of the newest of them.
        """
        policies = [one.policy for one in self._table.loaded.values()]
        policies += [coming] if coming else []
        names = {name for policy in policies for name in policy.host_names()}
        private = frozenset[str]().union(*(policy.private_names() for policy in policies))
        self._resolver.watch(names, servers_of(coming or self._live.current.policy), private)
