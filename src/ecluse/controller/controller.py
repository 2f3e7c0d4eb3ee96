"""The controller: commands in, one at a time; each is applied whole, verified, recorded, answered.

What it is made of: `parts`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ecluse.controller.context import Options, Ports
from ecluse.controller.parts import Parts
from ecluse.errors import EcluseError, GivenUpError, StaleError, StateError
from ecluse.policy import Policy, at_least_as_closed, levels_text, most_closed
from ecluse.records import Actor, AuditRecord, Command, Generation, Sender
from ecluse.results import (
    Change,
    Event,
    Plan,
    Purge,
    Refused,
    SecondLockState,
    ServiceStatus,
    Status,
)


class Controller:
    """See the module.

    Create, `await start()`, then command; `await stop()` leaves the kernel as it is.

    Args:
        ports: the outside.
        options: the daemon's settings.
        step: called with the name of each step of a change; tests end the process there.
        log: takes every event.
        troubles: gives what the process itself suffers from, for `status`.
    """

    def __init__(
        self,
        ports: Ports,
        options: Options,
        *,
        step: Callable[[str], None] = lambda _name: None,
        log: Callable[[Event], None] = lambda _event: None,
        troubles: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._ports = ports
        self._options = options
        self.parts = parts = Parts(ports, options, step, log, troubles)
        self._live = parts.live
        self._alerts = parts.alerts
        self._records = parts.records
        self._table = parts.table
        self._preloader = parts.preloader
        self._planner = parts.planner
        self._transition = parts.transition
        self._preparing = asyncio.Lock()

    # -- start and stop ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring up what was recorded, never less closed than anything that can still be read says.

        ConfigError, KernelError, StateError: see `Startup.bring_up`.
        """
        # From here on no announcement is missed, although the tasks that take them begin later.
        self.parts.listen()
        await self.parts.startup.bring_up()
        await self.parts.extensions.load_for(self._live.current.policy)
        self.parts.begin_tasks()
        # A daemon that was killed just after a switch has ended no connections.
        self.parts.after_change.begin(self._live.current.generation)

    async def stop(self) -> None:
        """End tasks and subscriptions, and say so in the audit log. The kernel stays as it is."""
        self.parts.events.close()
        # No change is left halfway, and none begins any more: the lock is not given back.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.seconds):
                await self._live.lock.acquire()
        await self.parts.supervisor.end()
        if self._live.started:
            what = "the daemon stops; the gate stays as it is"
            line = AuditRecord("stop", self.parts.itself, what, levels=self._live.current.levels)
            writes = [self._records.audit_line(line), self._records.known_names()]
            await self._records.queue.write(writes)
        self._records.close()
        self._table.close_thread()

    # -- commands ----------------------------------------------------------------------------------

    def closes(self, level: str, zones: tuple[str, ...] | None) -> bool:
        """Say whether a level would close something that passes now, or repeat what stands."""
        return self._planner.urgency(partial(self._planner.levels_with, level, zones)) > 0

    async def set_level(
        self,
        level: str,
        zones: tuple[str, ...] | None,
        command: Command,
        *,
        expect: int | None = None,
    ) -> Change:
        """Set the level of these zones (None: all).

        What closes is done whatever came since, what opens is not.

        Args:
            level: its name.
            zones: their names.
            command: who commands it, and why.
            expect: the generation that was shown; None: the newest that the sender can have known.

        Raises:
            NotFoundError: there is no such level or zone.
            StaleError, GivenUpError: nothing was opened; what was to close is closed.
        """
        closings = self._closings_known_to(command.sender)
        asked = partial(self._planner.levels_with, level, zones)
        asked()
        async with self._live.lock.hold(partial(self._planner.urgency, asked)):
            live, levels = self._live.current, asked()
            closed = most_closed(live.policy.site, live.levels, levels)
            if closed == levels:
                return await self._transition.make(command, live.loaded, levels)
            objection: EcluseError | None = self._why_not_open(
                f"the level {level}", command.sender, closings, expect
            )
            if closed == dict(live.levels):
                if objection is not None:
                    await self._refuse(command, f"{levels_text(levels)}: {objection.message}")
                    raise objection
                return await self._transition.make(command, live.loaded, levels)
            # What closes does not wait for the record that what opens must have: two changes, one
            # after the other.
            first = await self._transition.make(command, live.loaded, closed)
            if first.generation.levels != closed:
                objection = StaleError("somebody closed more by hand just now")
            change = None
            if objection is None:
                try:
                    loaded = self._live.current.loaded
                    change = await self._transition.make(command, loaded, levels)
                except StateError as error:
                    objection = error
            if change is None:
                raise _only_closed(first, objection or StateError("it failed", retry=True))
            ended = tuple(name for name in first.ended if name not in change.kept)
            return replace(change, ended=ended, unrecorded=(*first.unrecorded, *change.unrecorded))

    def _closings_known_to(self, sender: Sender) -> int:
        """Give how many closings a sender can have known of: none before this run."""
        return 0 if sender.early else self._live.closings

    def _why_not_open(
        self, what: str, sender: Sender, closings: int, expect: int | None = None
    ) -> StaleError | GivenUpError | None:
        """Say why something that opens is not done any more.

        None when it still means what it did when it was sent.
        """
        if sender.gone():
            return GivenUpError(f"nobody waits for {what} any more; nothing was opened")
        now = self._live.current.generation.number
        if expect in {None, now} and self._live.closings == closings:
            return None
        return _stale(now, "opened", "repeat the command if it is still what you want")

    async def _refuse(self, command: Command, what: str) -> None:
        """Put on record that a command was not begun."""
        line = AuditRecord(
            command.action.value,
            command.actor,
            what,
            command.reason,
            command.authorised_by,
            result="left out",
        )
        self.parts.events.emit("warning", f"{command.actor.user}: {what}")
        await self._records.append_lines(line)

    async def rollback(
        self,
        number: int | None,
        command: Command,
        *,
        expect: int | None = None,
    ) -> Change:
        """Go back to a generation: its levels and its allowlist, exactly.

        Args:
            number: of the generation, None: the one before.
            command: who commands it, and why.
            expect: the generation that was shown.

        Raises:
            StaleError: another command came first.
            GivenUpError: nobody waits any more, and it does more than close.
        """
        closings = self._closings_known_to(command.sender)
        began_at = self._live.current.generation.number if expect is None else expect
        target = self._planner.rollback_target(number)
        policy = await self._policy_with_names(target.policy)
        if target.policy != self._live.current.loaded.digest:  # or it may be a closing
            await self.parts.extensions.load_for(policy)
        command = replace(command, back_to=target.number)

        def urgency() -> int:
            same = target.policy == self._live.current.loaded.digest
            return self._planner.urgency(lambda: dict(target.levels)) if same else 0

        async with self._preloader.hold_lock_with(policy, target.policy, urgency) as loaded:
            live = self._live.current
            objection: EcluseError | None = None
            if live.generation.number != began_at or self._live.closings != closings:
                advice = "repeat the command"
                objection = _stale(live.generation.number, "rolled back", advice)
            elif command.sender.gone() and not (
                loaded.digest == live.loaded.digest
                and at_least_as_closed(live.policy.site, target.levels, live.levels)
            ):
                objection = GivenUpError(
                    "nobody waits for the rollback any more; nothing was changed"
                )
            if objection is not None:
                await self._refuse(command, objection.message)
                raise objection
            return await self._transition.make(command, loaded, target.levels)

    async def reload(self, command: Command, *, expect: str | None = None) -> Change:
        """Make the files' allowlist live.

        Args:
            command: who commands it, and why.
            expect: digest of the plan that was shown, None: whatever the files say.

        Raises:
            ConfigError: faults in the files.
            StaleError: the files changed since the plan.
            GivenUpError: nobody waits any more by the time it could begin.
        """
        async with self._preparing:
            policy = await self._records.on_disk(self._ports.source.load)
            self.parts.supervisor.run_aside(self.parts.startup.find_file_warnings())
            digest = await self._records.digest_policy(policy)
            if expect is not None and expect != digest:
                message = "the files changed after the difference was shown; nothing was changed"
                raise StaleError(message, hint="run 'ecluse reload' again")
            await self._resolve_names(policy)
            await self.parts.extensions.load_for(policy)
            self._planner.levels_for(policy)
            async with self._preloader.hold_lock_with(policy, digest) as loaded:
                levels = self._planner.levels_for(policy)
                if command.sender.gone():
                    objection = GivenUpError(
                        "nobody waits for the reload any more; nothing was changed"
                    )
                    await self._refuse(command, objection.message)
                    raise objection
                change = await self._transition.make(command, loaded, levels)
                self._alerts.clear("files-differ")
                self._alerts.clear("files-faulty")
                return change

    async def _policy_with_names(self, digest: str) -> Policy:
        """Give a recorded policy, its names resolved.

        The lock is not held: disk and DNS may take their time.
        """
        loaded = self._table.loaded.get(digest)
        if loaded is not None:
            return loaded.policy
        async with self._preparing:
            policy = await self._records.read_policy(digest)
            await self._resolve_names(policy)
            return policy

    async def _resolve_names(self, policy: Policy) -> None:
        """Ask for the names that were never resolved, and follow them from now on.

        The lock is not held.
        """
        resolver = self._ports.resolver
        self._preloader.follow_names(policy)
        known = resolver.known()
        missing = [
            name for name in policy.host_names() if name not in known or not known[name].addresses
        ]
        if missing:
            await resolver.refresh(missing, self._options.new_name_seconds)

    async def forbidden(self, actor: Actor, what: str) -> None:
        """Record that somebody who may not command tried to."""
        await self._records.append_lines(AuditRecord("forbidden", actor, what, result="refused"))
        text = f"{actor.user} (uid {actor.uid}, {actor.command}) may not: {what}"
        self.parts.events.emit("forbidden", text)

    # -- questions ---------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Say where we are, with the kernel asked now."""
        return await self.parts.status_reader.read_status()

    async def services(self) -> tuple[ServiceStatus, ...]:
        """Give every service's state, counters and addresses."""
        return (await self.status()).services

    def generations(self) -> tuple[Generation, ...]:
        """Give the recorded generations, newest first."""
        return tuple(self._records.newest_first())

    def generation(self, number: int) -> Generation:
        """Give one generation. NotFoundError when it is not (or no longer) recorded."""
        return self._records.generation(number)

    def purge(self, number: int) -> Purge | None:
        """Give what became of connections after a generation, None when nothing is known of it."""
        return self.parts.flows.purges.get(number)

    async def second_lock(self, number: int) -> SecondLockState | None:
        """Give the second lock as it is now, if this generation is live."""
        if self.parts.live.current.generation.number != number:
            return None
        await self.parts.second_lock.count()
        return self.parts.second_lock.state()

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
        answer = await self.parts.status_reader.refused(limit)
        names, unread = await self.parts.extensions.refused_names()
        return replace(answer, names=names[:limit], unread=answer.unread + unread)

    def extension_routes(self) -> tuple[Any, ...]:
        """Give the routes of extensions (`api.routes.Route`) that the live policy uses."""
        return self.parts.extensions.routes()

    def events(self) -> AsyncIterator[Event]:
        """Give every event from now on."""
        return self.parts.events.subscribe()

    @property
    def alive(self) -> bool:
        """Say whether every inner task is still at work (for the watchdog)."""
        return self.parts.supervisor.alive

    async def prove_alive(self) -> None:
        """Ask the kernel something through the whole path; raises when that does not work."""
        await self.parts.regular_look.look()


def _stale(now: int, what: str, advice: str) -> StaleError:
    return StaleError(
        f"another command came first (generation {now} stands); nothing was {what}",
        hint=f"look at 'ecluse status', then {advice}",
    )


def _only_closed(first: Change, why: EcluseError) -> EcluseError:
    done = f"generation {first.generation.number} closed what was to close; the rest was not opened"
    return type(why)(f"{done}: {why.message}", retry=why.retry, hint=why.hint)
