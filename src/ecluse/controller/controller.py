"""The controller: commands in, one at a time; each change applied whole, verified, recorded, then
answered.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

from ecluse.controller import live_state as lv
from ecluse.controller import status
from ecluse.controller.context import Command, Context, Notes, Options, Ports
from ecluse.controller.live_state import CompiledPolicy, CurrentState
from ecluse.controller.lock import Urgent, never
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.persist.writer_thread import WriteQueue
from ecluse.controller.plan import Planner
from ecluse.controller.startup_decision import carry_over, decide
from ecluse.controller.table.manager import Step
from ecluse.controller.tasks.keeper import Keeper
from ecluse.controller.tasks.preload import Preloader
from ecluse.controller.transition import Transition
from ecluse.errors import (
    ConfigError,
    EcluseError,
    GivenUpError,
    KernelError,
    StaleError,
    StateError,
)
from ecluse.policy import CUT, ISOLATE, Levels, Policy, at_least_as_closed, most_closed
from ecluse.ports import Recovered
from ecluse.records import Action, Actor, AuditRecord, Generation, Sender
from ecluse.results import Change, Event, Plan, Purge, Refused, ServiceStatus, Status
from ecluse.ruleset.dns_redirect import is_on
from ecluse.zone_links import LinkReading


class Controller:
    """See the module.

    Create, `await start()`, then command; `await stop()` leaves the kernel as it is.

    tell: takes every event. troubles: gives what the process itself suffers from, for `status`.
    """

    def __init__(
        self,
        ports: Ports,
        options: Options,
        *,
        step: Step = lambda _name: None,
        tell: Callable[[Event], None] = lambda _event: None,
        troubles: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._s = Context(ports, options, step)
        self._s.tell, self._s.troubles = tell, troubles
        self._ledger = ChangeRecords(
            self._s, WriteQueue(options.seconds, self._s.writer.urgent_waiting)
        )
        self._loader = Preloader(self._s)
        self._keeper = Keeper(self._s, self._ledger, self._loader)
        self._planner = Planner(self._s, self._ledger)
        self._changer = Transition(self._s, self._ledger, self._keeper)
        self._preparing = asyncio.Lock()

    # -- start and stop ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring up what was recorded, never less closed than anything that can still be read says.

        ConfigError on a first install with faults in the files; KernelError when the kernel
        refuses; StateError when the state directory can't be used. The kernel stays as it was then.
        """
        ports = self._s.ports
        self._keeper.listen()
        found = await self._s.on_disk(ports.store.recover)
        self._ledger.generations.update(found.generations)
        policy, digest = await self._policy_at_start(found)
        kernel = await self._levels_in_kernel(policy, found)
        decision = decide(policy.site, policy.zone_names(), found, kernel)
        if decision.generation and decision.generation.policy != digest:
            policy, digest = await self._stored_or(decision.generation.policy, (policy, digest))
        ports.resolver.watch(policy.host_names(), lv.servers_of(policy), policy.private_names())
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
        by_hand = (f"{one.actor.user} closed by hand: {one.what}" for one in found.by_hand)
        precaution = filter(None, (self._s.notes.warnings.get("boot"),))
        for text in (*precaution, *found.damage, *by_hand, *decision.why):
            self._s.say("warning", text)
        self._keeper.begin()
        self._keeper.aside(
            self._compare_files(digest) if found.generations else self._find_remarks()
        )
        # A daemon that was killed just after a switch has ended no connections.
        self._keeper.after(self._s.live.generation)

    async def _levels_in_kernel(self, policy: Policy, found: Recovered) -> Levels | None:
        """Say what the kernel's gates tell of the state before; None when that is nothing."""
        precaution = self._s.options.closed_at_boot
        levels = await self._s.gate.kernel_levels(policy)
        if precaution:
            self._s.notes.warnings["boot"] = f"closed at boot as a precaution: {precaution}"
            if levels and set(levels.values()) == {ISOLATE.name}:
                levels = None  # that is the boot unit's; anything else somebody loaded since
        if levels is None and found.first_install and await self._s.gate.is_shut():
            # The records are gone, and the table speaks of other zones or is the boot unit's:
            # nobody commanded an opening.
            return dict.fromkeys(policy.zone_names(), CUT.name)
        return levels

    async def _policy_at_start(self, found: Recovered) -> tuple[Policy, str]:
        """Give the newest recorded policy that can be read; the files only when there is none.

        Files that were changed wait for an explicit reload.
        """
        problem = ""
        for generation in sorted(found.generations.values(), key=lambda g: -g.number):
            try:
                policy = await self._s.on_disk(self._s.ports.store.read_policy, generation.policy)
            except StateError as error:
                problem = problem or error.message
                continue
            if problem:
                self._s.notes.warnings["policy"] = (
                    f"{problem}; the allowlist of generation {generation.number} is used instead"
                )
            return policy, generation.policy
        policy = await self._s.on_disk(self._s.ports.source.load)
        if problem:
            self._s.notes.warnings["policy"] = (
                f"{problem}; the allowlist was read from the files instead"
            )
        return policy, await self._s.on_disk(self._s.ports.store.digest_policy, policy)

    async def _stored_or(self, digest: str, other: tuple[Policy, str]) -> tuple[Policy, str]:
        try:
            return await self._s.on_disk(self._s.ports.store.read_policy, digest), digest
        except StateError:
            return other

    async def _find_remarks(self) -> None:
        """Look for what is odd in the files that were just loaded, before anybody asks: it takes
        its time, and memory until then.
        """
        await self._s.on_disk(self._s.ports.source.warnings)

    async def _compare_files(self, digest: str) -> None:
        """Say in `status` whether the files are other than what is recorded and live."""
        try:
            files = await self._s.on_disk(self._s.ports.source.load)
        except ConfigError as error:
            text = f"the site's files have {len(error.faults)} fault(s) and wait unused: run 'ecluse check'"
            self._s.notes.warnings["files"] = text
            return
        if await self._s.on_disk(self._s.ports.store.digest_policy, files) != digest:
            text = "the site's files differ from what is live: 'ecluse plan --reload' shows how"
            self._s.notes.warnings["files"] = text
        await self._find_remarks()

    async def _record_start(
        self,
        found: Recovered,
        recorded: Generation | None,
        loaded: CompiledPolicy,
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
            generation = self._ledger.next(
                Command(action, self._s.itself, reason, ""), loaded, levels
            )
        line = self._ledger.line(generation, "start", "; ".join(why) or "brought up", "done")
        line = replace(line, actor=self._s.itself)
        # The boot ruleset comes first: a first start that dies here must not leave traces that say
        # nothing of levels.
        jobs = [
            self._ledger.boot(loaded, generation),
            self._ledger.policy(loaded.policy),
            self._ledger.closed(loaded.policy),
        ]
        if generation.number not in self._ledger.generations:
            jobs.append(self._ledger.record(generation))
        jobs += [
            self._ledger.clear(),
            *self._ledger.by_hand(found.by_hand),
            self._ledger.audit(line),
        ]
        jobs.append(self._ledger.names())
        await self._ledger.recorder.should(jobs)
        self._ledger.recorder.later([self._ledger.room()])
        self._ledger.generations[generation.number] = generation
        self._s.live = CurrentState(loaded, generation)
        if generation is not recorded and not found.first_install:
            self._s.closings += 1
        self._s.say("start", "armed; " + status.levels_text(levels))

    async def stop(self) -> None:
        """End tasks and subscriptions, and say so in the audit log. The kernel stays as it is."""
        self._s.hub.close()
        # No change is left halfway, and none begins any more: the lock is not given back.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._s.options.seconds):
                await self._s.writer.acquire()
        await self._keeper.end()
        if self._s.started:
            what = "the daemon stops; the gate stays as it is"
            line = AuditRecord("stop", self._s.itself, what, levels=self._s.live.levels)
            await self._ledger.recorder.should([self._ledger.audit(line), self._ledger.names()])
        self._ledger.recorder.close()
        self._s.close()

    # -- commands ----------------------------------------------------------------------------------

    def closes(self, level: str, zones: tuple[str, ...] | None) -> bool:
        """Say whether a level would close something that passes now, or repeat what stands."""
        return self._planner.urgent(partial(self._planner.levels_with, level, zones)) > 0

    async def set_level(
        self,
        level: str,
        zones: tuple[str, ...] | None,
        *,
        actor: Actor,
        reason: str,
        authorised_by: str,
        expect: int | None = None,
        sender: Sender | None = None,
    ) -> Change:
        """Set the level of these zones (None: all). NotFoundError for an unknown level or zone.

        expect: the generation that was shown; None: the newest that `sender` can have known. What
        closes is done whatever came since, what opens is not: StaleError, GivenUpError, and what
        was to close is closed.
        """
        sender = sender or Sender()
        seen = self._seen(sender)
        wanted = partial(self._planner.levels_with, level, zones)
        wanted()
        async with self._s.writer.hold(partial(self._planner.urgent, wanted)):
            live, levels = self._s.live, wanted()
            order = Command(Action.LEVEL, actor, reason, authorised_by, since=sender.since)
            shut = most_closed(live.policy.site, live.levels, levels)
            if shut == levels:
                return await self._changer.change(order, live.loaded, levels)
            nothing: EcluseError | None = self._why_not(f"the level {level}", sender, seen, expect)
            if shut == dict(live.levels):
                if nothing is not None:
                    await self._left_out(order, f"{status.levels_text(levels)}: {nothing.message}")
                    raise nothing
                return await self._changer.change(order, live.loaded, levels)
            # What closes does not wait for the record that what opens must have: two changes, one
            # after the other.
            first = await self._changer.change(order, live.loaded, shut)
            if first.generation.levels != shut:
                nothing = StaleError("somebody closed more by hand just now")
            change = None
            if nothing is None:
                try:
                    change = await self._changer.change(order, self._s.live.loaded, levels)
                except StateError as error:
                    nothing = error
            if change is None:
                raise _the_rest_was_not_opened(
                    first, nothing or StateError("it failed", retry=True)
                )
            ended = tuple(name for name in first.ended if name not in change.kept)
            return replace(change, ended=ended, unrecorded=(*first.unrecorded, *change.unrecorded))

    def _seen(self, sender: Sender) -> int:
        """Give how many closings (`Shared`) a sender can have known of: none where he sent it
        before this run.
        """
        return 0 if sender.early else self._s.closings

    def _why_not(
        self, what: str, sender: Sender, seen: int, expect: int | None = None
    ) -> StaleError | GivenUpError | None:
        """Say why something that opens is not done any more, None when it still means what it did
        when it was sent.
        """
        if sender.gone():
            return GivenUpError(f"nobody waits for {what} any more; nothing was opened")
        now = self._s.live.generation.number
        if expect in {None, now} and self._s.closings == seen:
            return None
        return StaleError(
            f"another command came first (generation {now} stands); nothing was opened",
            hint="look at 'ecluse status', then repeat the command if it is still what you want",
        )

    async def _left_out(self, order: Command, what: str) -> None:
        """Put on record that a command was not begun."""
        line = AuditRecord(
            order.action.value,
            order.actor,
            what,
            order.reason,
            order.authorised_by,
            result="left out",
        )
        self._s.say("warning", f"{order.actor.user}: {what}")
        await self._ledger.recorder.should([self._ledger.audit(line)])

    async def rollback(
        self,
        number: int | None,
        *,
        actor: Actor,
        reason: str,
        authorised_by: str,
        expect: int | None = None,
        sender: Sender | None = None,
    ) -> Change:
        """Go back to the generation before (None) or to generation `number`: its levels and its
        allowlist, exactly.

        expect: the generation that was shown; None: the newest that `sender` can have known.
        StaleError when another came first, GivenUpError when nobody waits any more and it does more
        than close.
        """
        sender = sender or Sender()
        seen = self._seen(sender)
        began_at = self._s.live.generation.number if expect is None else expect
        target = self._planner.rollback_target(number)
        policy = await self._prepared(target.policy)
        order = Command(Action.ROLLBACK, actor, reason, authorised_by, target.number, sender.since)

        def urgent() -> int:
            same = target.policy == self._s.live.loaded.digest
            return self._planner.urgent(lambda: dict(target.levels)) if same else 0

        async with self._turn_with(policy, target.policy, urgent) as loaded:
            live = self._s.live
            nothing: EcluseError | None = None
            if live.generation.number != began_at or self._s.closings != seen:
                now = live.generation.number
                message = (
                    f"another command came first (generation {now} stands); nothing was rolled back"
                )
                nothing = StaleError(
                    message, hint="look at 'ecluse status', then repeat the command"
                )
            elif sender.gone() and not (
                loaded.digest == live.loaded.digest
                and at_least_as_closed(live.policy.site, target.levels, live.levels)
            ):
                nothing = GivenUpError(
                    "nobody waits for the rollback any more; nothing was changed"
                )
            if nothing is not None:
                await self._left_out(order, nothing.message)
                raise nothing
            return await self._changer.change(order, loaded, target.levels)

    async def reload(
        self,
        *,
        expect: str | None,
        actor: Actor,
        reason: str,
        authorised_by: str,
        sender: Sender | None = None,
    ) -> Change:
        """Make the files' allowlist live.

        expect: digest of the plan that was shown; StaleError when it changed since.

        GivenUpError when nobody waits any more by the time it could begin.
        """
        sender = sender or Sender()
        order = Command(Action.RELOAD, actor, reason, authorised_by, since=sender.since)
        async with self._preparing:
            ports = self._s.ports
            policy = await self._s.on_disk(ports.source.load)
            self._keeper.aside(self._find_remarks())
            digest = await self._s.on_disk(ports.store.digest_policy, policy)
            if expect is not None and expect != digest:
                message = "the files changed after the difference was shown; nothing was changed"
                raise StaleError(message, hint="run 'ecluse reload' again")
            await self._learn_names(policy)
            self._planner.must_let_nobody_out(self._carried_over(policy))
            async with self._turn_with(policy, digest) as loaded:
                levels = self._carried_over(policy)
                self._planner.must_let_nobody_out(levels)
                if sender.gone():
                    nothing = GivenUpError(
                        "nobody waits for the reload any more; nothing was changed"
                    )
                    await self._left_out(order, nothing.message)
                    raise nothing
                change = await self._changer.change(order, loaded, levels)
                self._s.notes.warnings.pop("files", None)
                return change

    async def _prepared(self, digest: str) -> Policy:
        """Give a recorded policy, its names learnt.

        The writer's lock is not held: disk and DNS may take their time.
        """
        held = self._s.gate.loaded.get(digest)
        if held is not None:
            return held.policy
        async with self._preparing:
            policy = await self._s.on_disk(self._s.ports.store.read_policy, digest)
            await self._learn_names(policy)
            return policy

    async def _learn_names(self, policy: Policy) -> None:
        """Ask for the names that were never resolved, and follow them from now on.

        The writer's lock is not held.
        """
        resolver = self._s.ports.resolver
        self._keeper.follow_names(policy)
        known = resolver.known()
        missing = [
            name for name in policy.host_names() if name not in known or not known[name].addresses
        ]
        if missing:
            await resolver.refresh(missing, self._s.options.new_name_seconds)

    def _carried_over(self, policy: Policy) -> Levels:
        return carry_over(policy.site, policy.zone_names(), self._s.live.levels)

    @contextlib.asynccontextmanager
    async def _turn_with(
        self, policy: Policy, digest: str, urgent: Urgent = never
    ) -> AsyncIterator[CompiledPolicy]:
        """Hold the writer's lock with a policy loaded beside the live one; its names are followed,
        unless it all fails.
        """
        try:
            async with self._loader.turn(policy, digest, urgent) as loaded:
                self._s.step("loaded")
                yield loaded
        except EcluseError:
            self._keeper.follow_names()
            raise

    async def forbidden(self, actor: Actor, what: str) -> None:
        """Record that somebody who may not command tried to."""
        line = AuditRecord("forbidden", actor, what, result="refused")
        await self._ledger.recorder.should([self._ledger.audit(line)])
        self._s.say("forbidden", f"{actor.user} (uid {actor.uid}, {actor.command}) may not: {what}")

    # -- questions ---------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Say where we are, with the kernel asked now."""
        try:
            await self._keeper.look()
        except KernelError as error:
            # Whoever asks at night wants what is known all the same; `checked` says how old it is.
            self._s.notes.warnings["kernel"] = (
                f"the kernel could not be compared just now: {error.message}"
            )
        else:
            self._s.notes.warnings.pop("kernel", None)
        seen = await self._s.see_links()
        live, notes, waiting = self._s.live, self._s.notes.copy(), self._ledger.recorder.waiting
        return await asyncio.to_thread(self._told, live, notes, seen, waiting)

    def _told(
        self, live: CurrentState, notes: Notes, seen: LinkReading, waiting: tuple[str, ...]
    ) -> Status:
        """Word the status, on a thread: a large allowlist takes its time."""
        notices = (*self._s.troubles(), *map(str, self._s.ports.source.warnings()))
        return status.status(
            live,
            notes,
            self._s.knowledge(),
            self._s.options.version,
            seen=seen,
            waiting=waiting,
            notices=notices,
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
        """Give what became of connections after a generation, None when nothing is known of it (any
        more).
        """
        return self._s.notes.purges.get(number)

    async def plan(
        self,
        *,
        level: str | None,
        zones: tuple[str, ...] | None,
        rollback: int | None,
        reload: bool,
    ) -> Plan:
        """Say what a change would do; nothing is changed."""
        return await self._planner.plan(level=level, zones=zones, rollback=rollback, reload=reload)

    async def refused(self, limit: int) -> Refused:
        """Say who keeps trying to get out, most packets first."""
        evidence = await self._s.ports.firewall.refused()
        local = await self._s.ports.links.local_addresses()
        policy = self._s.live.policy
        answer = await asyncio.to_thread(status.refused, evidence, policy, local, limit)
        told = await self._s.ports.dns.report() if is_on(policy) else None
        if told is None:
            return answer
        names = status.refused_names(told.questions, policy, self._s.ports.clock())
        return replace(answer, names=tuple(names)[:limit], unread=answer.unread + told.unread)

    def events(self) -> AsyncIterator[Event]:
        """Give every event from now on."""
        return self._s.hub.subscribe()

    @property
    def alive(self) -> bool:
        """Say whether every inner task is still at work (for the watchdog)."""
        return self._keeper.alive

    async def prove_alive(self) -> None:
        """Ask the kernel something through the whole path; raises when that does not work (for the
        watchdog).
        """
        await self._keeper.look()


def _the_rest_was_not_opened(first: Change, why: EcluseError) -> EcluseError:
    done = f"generation {first.generation.number} closed what was to close; the rest was not opened"
    return type(why)(f"{done}: {why.message}", retry=why.retry, hint=why.hint)
