"""The start: brings up what was recorded, never less closed than anything readable says."""

from collections.abc import Callable, Coroutine
from dataclasses import replace

from ecluse.alerts import Alerts
from ecluse.controller.live_state import CompiledPolicy, LiveState, servers_of
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.startup_decision import decide
from ecluse.controller.table.manager import TableManager
from ecluse.errors import ConfigError, StateError
from ecluse.policy import CUT, ISOLATE, Levels, Policy, carry_over, levels_text
from ecluse.ports import Conntrack, PolicySource, Recovered, Resolver, StateStore
from ecluse.records import Action, Actor, Command, Generation


class Startup:
    """Brings up the state at start.

    Args:
        live, table, records: what is set, loaded and written.
        store: the state directory.
        source: the site's files.
        resolver: follows the policy's host names.
        conntrack: is to count packets.
        closed_at_boot: why the boot unit closed the gate as a precaution, or empty.
        itself: the daemon, as an actor.
        run_aside: runs something beside everything else.
        alerts, emit: take alerts and events.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        table: TableManager,
        records: ChangeRecords,
        store: StateStore,
        source: PolicySource,
        resolver: Resolver,
        conntrack: Conntrack,
        closed_at_boot: str,
        itself: Actor,
        run_aside: Callable[[Coroutine[object, object, object]], object],
        alerts: Alerts,
        emit: Callable[[str, str], None],
    ) -> None:
        self._live = live
        self._table = table
        self._records = records
        self._store = store
        self._source = source
        self._resolver = resolver
        self._conntrack = conntrack
        self._closed_at_boot = closed_at_boot
        self._itself = itself
        self._run_aside = run_aside
        self._alerts = alerts
        self._emit = emit

    async def bring_up(self) -> None:
        """Bring up the state.

        Raises:
            ConfigError: faults in the files, on a first install.
            KernelError: the kernel refuses.
            StateError: the state directory can't be used.
            The kernel stays as it was then.
        """
        found = await self._records.on_disk(self._store.recover)
        self._records.generations.update(found.generations)
        policy, digest = await self._recorded_policy()
        kernel = await self._levels_in_kernel(policy, found)
        decision = decide(policy.site, policy.zone_names(), found, kernel)
        if decision.generation and decision.generation.policy != digest:
            policy, digest = await self._stored_or(decision.generation.policy, (policy, digest))
        names = policy.host_names()
        self._resolver.watch(names, servers_of(policy), policy.private_names())
        if not await self._conntrack.enable_accounting():
            self._alerts.raise_alert("accounting-off")
        levels = carry_over(policy.site, policy.zone_names(), decision.levels)
        loaded = await self._table.bring_up(policy, digest, levels)
        recorded = decision.generation if decision.recorded else None
        await self._record(found, recorded, loaded, levels, decision.why)
        by_hand = (f"{one.actor.user} closed by hand: {one.what}" for one in found.by_hand)
        for text in (*found.damage, *by_hand, *decision.why):
            self._emit("warning", text)
        self._run_aside(
            self._compare_files(digest) if found.generations else self.find_file_warnings()
        )

    async def _levels_in_kernel(self, policy: Policy, found: Recovered) -> Levels | None:
        """Read the levels that the kernel's switch has from before; None when it says nothing."""
        levels = await self._table.kernel_levels(policy)
        if self._closed_at_boot:
            self._alerts.raise_alert("boot-precaution", reason=self._closed_at_boot)
            if levels and set(levels.values()) == {ISOLATE.name}:
                levels = None  # that is the boot unit's; anything else somebody loaded since
        if levels is None and found.first_install and await self._table.is_shut():
            # The records are gone, and the table speaks of other zones or is the boot unit's:
            # nobody commanded an opening.
            return dict.fromkeys(policy.zone_names(), CUT.name)
        return levels

    async def _recorded_policy(self) -> tuple[Policy, str]:
        """Give the newest recorded policy that can be read; the files only when there is none.

        Files that were changed wait for an explicit reload.
        """
        problem = ""
        for generation in self._records.newest_first():
            try:
                policy = await self._records.read_policy(generation.policy)
            except StateError as error:
                problem = problem or error.message
                continue
            if problem:
                self._alerts.raise_alert(
                    "policy-older", problem=problem, generation=generation.number
                )
            return policy, generation.policy
        policy = await self._records.on_disk(self._source.load)
        if problem:
            self._alerts.raise_alert("policy-from-files", problem=problem)
        return policy, await self._records.digest_policy(policy)

    async def _stored_or(self, digest: str, other: tuple[Policy, str]) -> tuple[Policy, str]:
        try:
            return await self._records.read_policy(digest), digest
        except StateError:
            return other

    async def find_file_warnings(self) -> None:
        """Look for what is odd in the files that were just loaded, before anybody asks.

        It takes its time, and memory until then.
        """
        await self._records.on_disk(self._source.warnings)

    async def _compare_files(self, digest: str) -> None:
        """Say in `status` whether the files are other than what is recorded and live."""
        try:
            files = await self._records.on_disk(self._source.load)
        except ConfigError as error:
            self._alerts.raise_alert("files-faulty", count=len(error.faults))
            return
        if await self._records.digest_policy(files) != digest:
            self._alerts.raise_alert("files-differ")
        await self.find_file_warnings()

    async def _record(
        self,
        found: Recovered,
        recorded: Generation | None,
        loaded: CompiledPolicy,
        levels: Levels,
        why: tuple[str, ...],
    ) -> None:
        """Make the state live, and record it. recorded: its record, where it has one already."""
        records, generation = self._records, recorded
        if (
            generation is None
            or generation.policy != loaded.digest
            or dict(generation.levels) != dict(levels)
        ):
            action = Action.START if found.first_install else Action.RECOVERY
            reason = "; ".join(why) or "first start: everything passes until somebody cuts"
            command = Command(action, self._itself, reason, "")
            generation = records.next_generation(command, loaded, levels)
        line = records.change_line(generation, "start", "; ".join(why) or "brought up", "done")
        # The boot ruleset comes first: a first start that dies here must not leave traces that say
        # nothing of levels.
        writes = [
            records.boot_ruleset(loaded, generation),
            records.policy_file(loaded.policy),
            records.closed_ruleset(loaded.policy),
        ]
        if generation.number not in records.generations:
            writes.append(records.generation_file(generation))
        writes += [
            records.cleared_intent(),
            *records.offline_closings(found.by_hand),
            records.audit_line(replace(line, actor=self._itself)),
            records.known_names(),
        ]
        await records.queue.write(writes)
        records.queue.write_later([records.disk_reserve()])
        records.generations[generation.number] = generation
        self._live.set(loaded, generation)
        if generation is not recorded and not found.first_install:
            self._live.closings += 1
        self._emit("start", "armed; " + levels_text(levels))
