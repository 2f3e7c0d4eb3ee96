"""The controller: commands in, one at a time; each change applied whole, verified, recorded, then answered."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from ecluse.controller import live as lv
from ecluse.controller import report
from ecluse.controller.gate import Step
from ecluse.controller.keeper import Keeper
from ecluse.controller.ledger import Ledger, must_not_lack
from ecluse.controller.live import Live, Loaded
from ecluse.controller.planner import Planner
from ecluse.controller.recorder import Recorder
from ecluse.controller.shared import Options, Order, Ports, Shared
from ecluse.controller.start import carry_over, decide
from ecluse.errors import ConfigError, KernelError, StaleError, StateError
from ecluse.policy import Levels, Policy, at_least_as_closed
from ecluse.ports import Recovered
from ecluse.records import Action, Actor, AuditRecord, Generation
from ecluse.results import Change, Event, Plan, Purge, Refused, ServiceStatus, Status


class Controller:
    """See the module. Create, `await start()`, then command; `await stop()` leaves the kernel as it is."""

    def __init__(
        self,
        ports: Ports,
        options: Options,
        *,
        step: Step = lambda _name: None,
        tell: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self._s = Shared(ports, options, step)
        self._s.tell = tell
        self._ledger = Ledger(self._s, Recorder(options.seconds))
        self._keeper = Keeper(self._s, self._ledger)
        self._planner = Planner(self._s, self._ledger)

    # -- start and stop --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring up what was recorded, never less closed than anything that can still be read says.

        ConfigError on a first install with faults in the files; KernelError when the kernel refuses; StateError when
        the state directory can't be used. The kernel stays as it was then.
        """
        ports = self._s.ports
        self._keeper.listen()
        found = await asyncio.to_thread(ports.store.recover)
        self._ledger.generations.update(found.generations)
        policy, digest = await self._policy_at_start(found)
        kernel = await self._s.gate.kernel_levels(policy)
        decision = decide(policy.site, policy.zone_names(), found, kernel)
        if decision.generation and decision.generation.policy != digest:
            policy, digest = await self._stored_or(decision.generation.policy, (policy, digest))
        ports.resolver.watch(policy.host_names(), lv.servers_of(policy))
        if not await ports.conntrack.enable_accounting():
            self._s.notes.warnings["accounting"] = (
                "the kernel does not count packets per connection (net.netfilter.nf_conntrack_acct): "
                "a leak would be told in connections only"
            )
        addresses = lv.addresses_of(ports.resolver.known())
        levels = carry_over(policy.site, policy.zone_names(), decision.levels)
        loaded = await self._s.gate.bring_up(policy, digest, addresses, levels)
        await self._record_start(
            found, decision.generation if decision.recorded else None, loaded, levels, decision.why
        )
        for text in (*found.damage, *decision.why):
            self._s.say("warning", text)
        await self._compare_files(digest)
        self._keeper.begin()

    async def _policy_at_start(self, found: Recovered) -> tuple[Policy, str]:
        """Give the newest recorded policy that can be read; the files only when there is none.

        Files that were changed wait for an explicit reload.
        """
        problem = ""
        for generation in sorted(found.generations.values(), key=lambda g: -g.number):
            try:
                policy = await asyncio.to_thread(self._s.ports.store.read_policy, generation.policy)
            except StateError as error:
                problem = problem or error.message
                continue
            if problem:
                self._s.notes.warnings["policy"] = (
                    f"{problem}; the allowlist of generation {generation.number} is used instead"
                )
            return policy, generation.policy
        policy = await asyncio.to_thread(self._s.ports.source.load)
        if problem:
            self._s.notes.warnings["policy"] = f"{problem}; the allowlist was read from the files instead"
        return policy, self._s.ports.store.digest_policy(policy)

    async def _stored_or(self, digest: str, other: tuple[Policy, str]) -> tuple[Policy, str]:
        try:
            return await asyncio.to_thread(self._s.ports.store.read_policy, digest), digest
        except StateError:
            return other

    async def _compare_files(self, digest: str) -> None:
        try:
            files = await asyncio.to_thread(self._s.ports.source.load)
        except ConfigError as error:
            text = f"the site's files have {len(error.faults)} fault(s) and wait unused: run 'ecluse check'"
            self._s.notes.warnings["files"] = text
            return
        if self._s.ports.store.digest_policy(files) != digest:
            text = "the site's files differ from what is live: 'ecluse plan --reload' shows how"
            self._s.notes.warnings["files"] = text

    async def _record_start(
        self,
        found: Recovered,
        recorded: Generation | None,
        loaded: Loaded,
        levels: Levels,
        why: tuple[str, ...],
    ) -> None:
        generation = recorded
        if (
            generation is None
            or generation.policy != loaded.digest
            or dict(generation.levels) != dict(levels)
        ):
            action = Action.START if found.first_install else Action.RECOVERY
            reason = "; ".join(why) or "first start: everything passes until somebody cuts"
            generation = self._ledger.next(Order(action, self._s.itself, reason, ""), loaded, levels)
        line = self._ledger.line(generation, "start", "; ".join(why) or "brought up", "done")
        line = replace(line, actor=self._s.itself)
        # The boot ruleset comes first: a first start that dies here must not leave traces that say nothing of levels.
        jobs = [
            self._ledger.boot(loaded, levels),
            self._ledger.policy(loaded.policy),
            self._ledger.closed(loaded.policy),
        ]
        if generation.number not in self._ledger.generations:
            jobs.append(self._ledger.record(generation))
        jobs += [self._ledger.clear(), self._ledger.audit(line)]
        await self._ledger.recorder.should(jobs)
        self._ledger.generations[generation.number] = generation
        self._s.live = Live(loaded, generation)
        self._s.say("start", "armed; " + report.levels_text(levels))

    async def stop(self) -> None:
        """End tasks and subscriptions, and say so in the audit log. The kernel stays as it is."""
        self._s.hub.close()
        await self._keeper.end()
        if self._s.started:
            what = "the daemon stops; the gate stays as it is"
            line = AuditRecord("stop", self._s.itself, what, levels=self._s.live.levels)
            await self._ledger.recorder.should([self._ledger.audit(line)])
        self._ledger.recorder.close()

    # -- commands --------------------------------------------------------------------------------------------------

    async def set_level(
        self, level: str, zones: tuple[str, ...] | None, *, actor: Actor, reason: str, authorised_by: str
    ) -> Change:
        """Set the level of these zones (None: all). NotFoundError for an unknown level or zone."""
        async with self._s.writer:
            levels = self._planner.levels_with(level, zones)
            order = Order(Action.LEVEL, actor, reason, authorised_by)
            return await self._change(order, self._s.live.loaded, levels)

    async def rollback(self, number: int | None, *, actor: Actor, reason: str, authorised_by: str) -> Change:
        """Go back to the generation before (None) or to generation `number`: its levels and its allowlist, exactly."""
        async with self._s.writer:
            target = self._planner.rollback_target(number)
            if target.policy == self._s.live.loaded.digest:
                loaded = self._s.live.loaded
            else:
                loaded = await self._hold(target.policy)
            order = Order(Action.ROLLBACK, actor, reason, authorised_by, target.number)
            return await self._change(order, loaded, target.levels)

    async def reload(self, *, expect: str | None, actor: Actor, reason: str, authorised_by: str) -> Change:
        """Make the files' allowlist live. expect: digest of the plan that was shown; StaleError when it changed since."""
        async with self._s.writer:
            ports = self._s.ports
            policy = await asyncio.to_thread(ports.source.load)
            digest = ports.store.digest_policy(policy)
            if expect is not None and expect != digest:
                message = "the files changed after the difference was shown; nothing was changed"
                raise StaleError(message, hint="run 'ecluse reload' again")
            await asyncio.to_thread(ports.store.write_policy, policy)
            loaded = await self._hold(digest)
            levels = carry_over(policy.site, policy.zone_names(), self._s.live.levels)
            change = await self._change(Order(Action.RELOAD, actor, reason, authorised_by), loaded, levels)
            self._s.notes.warnings.pop("files", None)
            return change

    async def _hold(self, digest: str) -> Loaded:
        """Have a policy in the kernel beside the live one: at once when it is there, else from the store."""
        gate, ports = self._s.gate, self._s.ports
        if digest in gate.loaded:
            return gate.loaded[digest]
        policy = await asyncio.to_thread(ports.store.read_policy, digest)
        ports.resolver.watch({*policy.host_names(), *self._s.live.policy.host_names()}, lv.servers_of(policy))
        known = ports.resolver.known()
        missing = [name for name in policy.host_names() if name not in known or not known[name].addresses]
        if missing:
            known = await ports.resolver.refresh(missing, self._s.options.new_name_seconds)
        addresses = lv.addresses_of({**ports.resolver.known(), **known})
        await gate.check(policy, addresses)
        loaded = await gate.load(policy, digest, addresses)
        self._s.step("loaded")
        await gate.settle()
        return loaded

    async def _change(self, order: Order, loaded: Loaded, levels: Levels) -> Change:
        """Apply, verify, record, answer.

        A closing is applied first and recorded after: it waits for nothing. An opening (and a change of the
        allowlist) is announced on disk first, and without its record it is taken back.
        """
        began = time.monotonic()
        before = self._s.live
        effect = lv.effect(before, loaded, levels)
        same_policy = loaded.digest == before.loaded.digest
        if same_policy and dict(levels) == dict(before.levels):
            return await self._already(order, before, began)
        closing = same_policy and at_least_as_closed(loaded.policy.site, levels, before.levels)
        generation = self._ledger.next(order, loaded, levels)
        if not closing:
            await self._ledger.announce(order, generation, loaded)
        try:
            await self._s.gate.switch(loaded, levels)
            self._s.step("applied")
            await self._s.gate.verify(loaded, levels, (before.loaded, before.levels))
        except KernelError as error:
            await self._ledger.failed(order, generation, error.message)
            raise
        self._s.step("verified")
        unrecorded: tuple[str, ...] = ()
        if closing:
            unrecorded = await self._ledger.closing(loaded, generation)
        else:
            await self._record_opening(loaded, generation, before)
        self._ledger.generations[generation.number] = generation
        self._s.live = Live(loaded, generation)
        self._s.say(order.action.value, report.change_text(generation))
        self._keeper.after(generation)
        took = (time.monotonic() - began) * 1000
        warnings = tuple(self._s.notes.warnings.values())
        return Change(generation, True, True, effect.kept, effect.ended, unrecorded, took, warnings)

    async def _record_opening(self, loaded: Loaded, generation: Generation, before: Live) -> None:
        try:
            await self._ledger.opening(loaded, generation)
        except StateError as problem:
            await self._s.gate.switch(before.loaded, before.levels)
            await self._s.gate.verify(before.loaded, before.levels, None)
            reason = f"generation {generation.number} could not be recorded: {problem.message}"
            order = Order(Action.RECOVERY, self._s.itself, reason, "")
            again = replace(
                self._ledger.next(order, before.loaded, before.levels), number=generation.number + 1
            )
            await self._ledger.taken_back(before, generation, again)
            self._s.live = Live(before.loaded, again)
            raise must_not_lack(problem) from problem

    async def _already(self, order: Order, live: Live, began: float) -> Change:
        """The state is already so: heal it if the kernel says otherwise, and put the command on record all the same."""
        if not await self._s.gate.in_step(live.loaded, live.levels):
            await self._keeper.restore("", 0, "found out of step by a command")
        line = self._ledger.line(live.generation, order.action.value, "already so", "done", order=order)
        failed = await self._ledger.recorder.should([self._ledger.audit(line)])
        kept = lv.effect(live, live.loaded, live.levels).kept
        took = (time.monotonic() - began) * 1000
        return Change(
            live.generation, False, True, kept, (), failed, took, tuple(self._s.notes.warnings.values())
        )

    async def forbidden(self, actor: Actor, what: str) -> None:
        """Record that somebody who may not command tried to."""
        line = AuditRecord("forbidden", actor, what, result="refused")
        await self._ledger.recorder.should([self._ledger.audit(line)])
        self._s.say("forbidden", f"{actor.user} (uid {actor.uid}, {actor.command}) may not: {what}")

    # -- questions -------------------------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Say where we are, with the kernel asked now."""
        await self._keeper.look()
        return report.status(
            self._s.live,
            self._s.notes,
            self._s.ports.resolver.known(),
            self._s.ports.clock(),
            self._s.options.version,
            waiting=self._ledger.recorder.waiting,
            notices=tuple(str(fault) for fault in self._s.ports.source.warnings()),
        )

    async def services(self) -> tuple[ServiceStatus, ...]:
        """Give every service's state, counters and addresses."""
        return (await self.status()).services

    def generations(self) -> tuple[Generation, ...]:
        """Give the recorded generations, newest first."""
        return tuple(sorted(self._ledger.generations.values(), key=lambda g: -g.number))

    def generation(self, number: int) -> Generation:
        """Give one generation. NotFoundError when it is not (or no longer) recorded."""
        return self._ledger.generation(number)

    def purge(self, number: int) -> Purge | None:
        """Give what became of connections after a generation, None when nothing is known of it (any more)."""
        return self._s.notes.purges.get(number)

    async def plan(
        self, *, level: str | None, zones: tuple[str, ...] | None, rollback: int | None, reload: bool
    ) -> Plan:
        """Say what a change would do; nothing is changed."""
        return await self._planner.plan(level=level, zones=zones, rollback=rollback, reload=reload)

    async def refused(self, limit: int) -> Refused:
        """Say who keeps trying to get out, most packets first."""
        elements, full = await self._s.ports.firewall.refused()
        return report.refused(elements, self._s.live.policy, limit, full=full)

    def events(self) -> AsyncIterator[Event]:
        """Give every event from now on."""
        return self._s.hub.subscribe()

    @property
    def alive(self) -> bool:
        """Say whether every inner task is still at work (for the watchdog)."""
        return self._keeper.alive

    async def prove_alive(self) -> None:
        """Ask the kernel something through the whole path; raises when that does not work (for the watchdog)."""
        await self._keeper.look()
