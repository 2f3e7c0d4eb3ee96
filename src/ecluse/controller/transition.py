"""One change of state: applied, verified, recorded, answered.

A closing waits for nothing; an opening for its record.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ecluse.alerts import Alerts
from ecluse.controller import live_state as ls
from ecluse.controller.live_state import CompiledPolicy, CurrentState, LiveState
from ecluse.controller.persist.change_records import ChangeRecords, taken_back_error
from ecluse.controller.table.manager import TableManager
from ecluse.errors import KernelError, StateError
from ecluse.policy import OPEN, Levels, Policy, at_least_as_closed, levels_text
from ecluse.records import Action, Actor, Command, Generation
from ecluse.results import Change
from ecluse.zone_links import LinkReading


class Transition:
    """Makes changes; the caller holds the lock.

    Args:
        live, table, records: what is changed, where, and what is written.
        look_at_links: reads the machine's links.
        restore: puts the live state back into the kernel; takes what was found, in words.
        request_check: has the table compared soon; takes what happened, in words.
        after_change: begins the work after a change.
        before_opening: lets the second lock through what a policy will keep at these levels.
        itself: the daemon, as an actor.
        alerts, emit: take alerts and events.
        step: as for `TableManager`.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        table: TableManager,
        records: ChangeRecords,
        look_at_links: Callable[[], Awaitable[LinkReading]],
        restore: Callable[[str], Awaitable[None]],
        request_check: Callable[[str], None],
        after_change: Callable[[Generation], None],
        before_opening: Callable[[Policy, Levels], Awaitable[None]],
        itself: Actor,
        alerts: Alerts,
        emit: Callable[[str, str], None],
        step: Callable[[str], None],
    ) -> None:
        self._live = live
        self._table = table
        self._records = records
        self._look_at_links = look_at_links
        self._restore = restore
        self._request_check = request_check
        self._after_change = after_change
        self._before_opening = before_opening
        self._itself = itself
        self._alerts = alerts
        self._emit = emit
        self._step = step

    async def make(self, command: Command, loaded: CompiledPolicy, levels: Levels) -> Change:
        """Apply, verify, record, answer.

        A closing is applied first and recorded after: it waits for nothing. An opening (and a
        change of the allowlist) is announced on disk first, and without its record it is taken
        back.
        """
        before = self._live.current
        same_policy = loaded.digest == before.loaded.digest
        if same_policy and dict(levels) == dict(before.levels):
            return await self._repeat(command, before)
        closing = same_policy and at_least_as_closed(loaded.policy.site, levels, before.levels)
        generation = self._records.next_generation(command, loaded, levels)
        if closing:
            generation, loaded, verified, unrecorded, seen = await self._close(
                command, loaded, generation
            )
        else:
            verified, unrecorded = True, ()
            await self._open(command, loaded, generation)
            seen = await self._look_at_links()
        self._alerts.clear("opening-taken-back")
        self._emit(command.action.value, ls.change_text(generation))
        self._after_change(generation)
        return self._answer(
            command,
            before,
            CurrentState(loaded, generation),
            seen,
            changed=True,
            verified=verified,
            unrecorded=unrecorded,
        )

    def _answer(
        self,
        command: Command,
        before: CurrentState,
        after: CurrentState,
        seen: LinkReading,
        *,
        changed: bool,
        verified: bool,
        unrecorded: tuple[str, ...],
    ) -> Change:
        policy, levels = after.policy, after.levels
        effect = ls.effect(before, after.loaded, levels, seen.living_zones(policy))
        took_ms = (time.monotonic() - command.sender.since) * 1000
        warnings = (
            *self._alerts.texts(),
            *seen.machine_warnings(policy, cut=ls.closed_somewhere(policy, levels)),
            *ls.stale_caches(before.policy, before.levels, policy, levels),
        )
        return Change(
            generation=after.generation,
            changed=changed,
            verified=verified,
            kept=effect.kept,
            ended=effect.ended,
            unrecorded=unrecorded,
            took_ms=took_ms,
            warnings=warnings,
            no_link=effect.no_link,
            not_known=effect.not_known,
            opened=effect.opened,
        )

    async def _close(
        self, command: Command, loaded: CompiledPolicy, generation: Generation
    ) -> tuple[Generation, CompiledPolicy, bool, tuple[str, ...], LinkReading]:
        """Apply a closing, and record it while it is read back.

        Once the kernel has it, nothing takes it away again.

        Returns:
            The generation (more closed than asked for, where somebody closed by hand meanwhile),
            the policy as it is loaded, whether it was read back, what could not be recorded, and
            what was seen of the links meanwhile: the switch waited for no look.
        """
        recording: list[asyncio.Task[tuple[str, ...]]] = []
        looking: list[asyncio.Future[LinkReading]] = []

        def begin_record() -> None:
            recording.append(asyncio.create_task(self._records.closing(loaded, generation)))
            looking.append(asyncio.ensure_future(self._look_at_links()))

        try:
            now, levels, verified = await self._table.close(loaded, generation.levels, begin_record)
        except KernelError as error:
            await self._records.failed(command, generation, error.message)
            raise
        if not recording:
            if levels != generation.levels:
                self._emit("warning", "the gate was closed further by hand meanwhile, and stays so")
                generation = replace(generation, levels=levels)
            begin_record()
        self._step("verified")
        # It is the live state from here on, whatever its record meets: no restoration may put back
        # what was before.
        self._records.generations[generation.number] = generation
        self._live.set(now, generation)
        self._live.in_step = verified
        return generation, now, verified, await recording[0], await looking[0]

    async def _open(self, command: Command, loaded: CompiledPolicy, generation: Generation) -> None:
        """Announce, apply, record. KernelError, StateError: the state before stands."""
        before = self._live.current
        await self._records.announce(command, generation, loaded)
        self._alerts.raise_alert("change-pending", levels=levels_text(generation.levels))
        try:
            await self._before_opening(loaded.policy, generation.levels)
            await self._table.switch(loaded, generation.levels)
            self._step("applied")
            await self._table.verify(loaded, generation.levels, (before.loaded, before.levels))
            self._step("verified")
            await self._record_opening(loaded, generation, before)
        except Exception as error:
            # It may stand, or have stood for a moment: what is live is compared with the kernel,
            # and connections that began then are ended.
            self._request_check(f"{command.action.value} that failed")
            if isinstance(error, KernelError):
                await self._records.failed(command, generation, error.message)
            self._after_change(self._live.current.generation)
            raise
        finally:
            self._alerts.clear("change-pending")
        self._records.generations[generation.number] = generation
        self._live.set(loaded, generation)

    async def _record_opening(
        self, loaded: CompiledPolicy, generation: Generation, before: CurrentState
    ) -> None:
        try:
            await self._records.opening(loaded, generation)
        except StateError as problem:
            await self._take_back(generation, before, problem)
            raise taken_back_error(problem) from problem

    async def _take_back(
        self, generation: Generation, before: CurrentState, problem: StateError
    ) -> None:
        """Make the state before live again, as a generation of its own."""
        try:
            await self._table.switch(before.loaded, before.levels)
            await self._table.verify(before.loaded, before.levels, None)
        except KernelError:
            await self._restore("an opening could not be taken back")
            before = self._live.current
        reason = f"generation {generation.number} could not be recorded: {problem.message}"
        command = Command(Action.RECOVERY, self._itself, reason, "")
        again = self._records.next_generation(command, before.loaded, before.levels)
        # The number of the opening is used up: part of its record may be on disk.
        again = replace(again, number=generation.number + 1)
        self._live.set(before.loaded, again)
        self._alerts.raise_alert(
            "opening-taken-back", reason=reason, levels=levels_text(generation.levels)
        )
        self._after_change(again)
        await self._records.taken_back(before, generation, again)

    async def _repeat(self, command: Command, live: CurrentState) -> Change:
        """The state is already so: restore it if the kernel says otherwise.

        The command is put on record all the same.
        """
        if set(live.levels.values()) != {OPEN.name}:
            # What opens and was sent before this is overtaken by it all the same.
            self._live.closings += 1
        verified = True
        try:
            if not await self._table.in_step(live.loaded, live.levels):
                await self._restore("found out of step by a command")
        except Exception:  # noqa: BLE001 - the answer says that it was not verified
            verified = False
        line = self._records.change_line(
            live.generation, command.action.value, "already so", "done", command=command
        )
        writes = [self._records.audit_line(line)]
        unrecorded = await self._records.queue.write(writes, records_only=True)
        seen = await self._look_at_links()
        return self._answer(
            command, live, live, seen, changed=False, verified=verified, unrecorded=unrecorded
        )
