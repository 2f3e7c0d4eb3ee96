"""One change of state: applied, verified, recorded, answered.

A closing waits for nothing; an opening for its record.
"""

import asyncio
import time
from dataclasses import replace

from ecluse.controller import live_state as lv
from ecluse.controller import status
from ecluse.controller.context import Command, Context
from ecluse.controller.live_state import CompiledPolicy, CurrentState
from ecluse.controller.persist.change_records import ChangeRecords, must_not_lack
from ecluse.controller.tasks.keeper import Keeper
from ecluse.errors import KernelError, StateError
from ecluse.policy import OPEN, Levels, at_least_as_closed
from ecluse.records import Action, Generation
from ecluse.results import Change
from ecluse.zone_links import LinkReading


class Transition:
    """Makes changes; the caller holds the writer's lock."""

    def __init__(self, shared: Context, ledger: ChangeRecords, keeper: Keeper) -> None:
        self._s = shared
        self._ledger = ledger
        self._keeper = keeper

    async def change(self, order: Command, loaded: CompiledPolicy, levels: Levels) -> Change:
        """Apply, verify, record, answer.

        A closing is applied first and recorded after: it waits for nothing. An opening (and a
        change of the allowlist) is announced on disk first, and without its record it is taken
        back.
        """
        before = self._s.live
        same_policy = loaded.digest == before.loaded.digest
        if same_policy and dict(levels) == dict(before.levels):
            return await self._already(order, before)
        closing = same_policy and at_least_as_closed(loaded.policy.site, levels, before.levels)
        generation = self._ledger.next(order, loaded, levels)
        if closing:
            generation, loaded, verified, unrecorded, seen = await self._close(
                order, loaded, generation
            )
        else:
            verified, unrecorded = True, ()
            await self._open(order, loaded, generation)
            seen = await self._s.see_links()
        # In words, for the answer: no closing waits for it.
        levels = generation.levels
        effect = lv.effect(before, loaded, levels, seen.living_zones(loaded.policy))
        self._s.notes.warnings.pop("taken-back", None)
        self._s.say(order.action.value, status.change_text(generation))
        self._keeper.after(generation)
        warnings = (
            *status.machine_warnings(self._s.notes, seen, loaded.policy, levels),
            *status.stale_caches(before.policy, before.levels, loaded.policy, levels),
        )
        return Change(
            generation,
            True,
            verified,
            effect.kept,
            effect.ended,
            unrecorded,
            (time.monotonic() - order.since) * 1000,
            warnings,
            effect.no_link,
            effect.not_known,
            effect.opened,
        )

    async def _close(
        self, order: Command, loaded: CompiledPolicy, generation: Generation
    ) -> tuple[Generation, CompiledPolicy, bool, tuple[str, ...], LinkReading]:
        """Apply a closing, and record it while it is read back: once the kernel has it, nothing
        takes it away again.

        Gives the generation (more closed than wanted, where somebody closed by hand meanwhile),
        what is loaded, whether it was read back, what could not be recorded, and what was seen of
        the links meanwhile: the switch waited for no look.
        """
        known = self._s.ports.resolver.known
        recording: list[asyncio.Task[tuple[str, ...]]] = []
        looking: list[asyncio.Task[LinkReading]] = []

        def record() -> None:
            recording.append(asyncio.create_task(self._ledger.closing(loaded, generation)))
            looking.append(asyncio.create_task(self._s.see_links()))

        try:
            now, levels, verified = await self._s.gate.close(
                loaded, generation.levels, lambda: lv.addresses_of(known()), record
            )
        except KernelError as error:
            await self._ledger.failed(order, generation, error.message)
            raise
        if not recording:
            if levels != generation.levels:
                self._s.say(
                    "warning", "the gate was closed further by hand meanwhile, and stays so"
                )
                generation = replace(generation, levels=levels)
            record()
        self._s.step("verified")
        # It stands from here on, whatever its record meets: nothing may heal the table back to what
        # was before.
        self._ledger.generations[generation.number] = generation
        self._s.live = CurrentState(now, generation)
        self._s.notes.in_step = verified
        return generation, now, verified, await recording[0], await looking[0]

    async def _open(self, order: Command, loaded: CompiledPolicy, generation: Generation) -> None:
        """Announce, apply, record. KernelError, StateError: the state before stands."""
        before = self._s.live
        await self._ledger.announce(order, generation, loaded)
        text = f"{status.levels_text(generation.levels)}: this is being applied, and counts once it is on disk"
        self._s.notes.warnings["change"] = text
        try:
            await self._s.gate.switch(loaded, generation.levels)
            self._s.step("applied")
            await self._s.gate.verify(loaded, generation.levels, (before.loaded, before.levels))
            self._s.step("verified")
            await self._record_opening(loaded, generation, before)
        except Exception as error:
            # It may stand, or have stood for a moment: what is live is compared with the kernel,
            # and what began then ends.
            self._keeper.compare(f"{order.action.value} that failed")
            if isinstance(error, KernelError):
                await self._ledger.failed(order, generation, error.message)
            self._keeper.after(self._s.live.generation)
            raise
        finally:
            del self._s.notes.warnings["change"]
        self._ledger.generations[generation.number] = generation
        self._s.live = CurrentState(loaded, generation)

    async def _record_opening(
        self, loaded: CompiledPolicy, generation: Generation, before: CurrentState
    ) -> None:
        try:
            await self._ledger.opening(loaded, generation)
        except StateError as problem:
            try:
                await self._s.gate.switch(before.loaded, before.levels)
                await self._s.gate.verify(before.loaded, before.levels, None)
            except KernelError:
                await self._keeper.restore("", 0, "an opening could not be taken back")
                before = self._s.live
            reason = f"generation {generation.number} could not be recorded: {problem.message}"
            order = Command(Action.RECOVERY, self._s.itself, reason, "")
            again = replace(
                self._ledger.next(order, before.loaded, before.levels), number=generation.number + 1
            )
            self._s.live = CurrentState(before.loaded, again)
            stood = status.levels_text(generation.levels)
            text = f"taken back: {reason}; for a moment {stood}, and what began then is ended"
            self._s.notes.warnings["taken-back"] = text
            self._s.say("warning", text)
            self._keeper.after(again)
            await self._ledger.taken_back(before, generation, again)
            raise must_not_lack(problem) from problem

    async def _already(self, order: Command, live: CurrentState) -> Change:
        """The state is already so: heal it if the kernel says otherwise, and put the command on
        record all the same.
        """
        if set(live.levels.values()) != {OPEN.name}:
            self._s.closings += (
                1  # what opens and was sent before this is overtaken by it all the same
            )
        verified = True
        try:
            if not await self._s.gate.in_step(live.loaded, live.levels):
                await self._keeper.restore("", 0, "found out of step by a command")
        except Exception:  # noqa: BLE001 - somebody else is at the table, no thread, no memory: it is said that nobody saw it
            verified = False
        line = self._ledger.line(
            live.generation, order.action.value, "already so", "done", order=order
        )
        failed = await self._ledger.recorder.should([self._ledger.audit(line)], records_only=True)
        seen = await self._s.see_links()
        effect = lv.effect(live, live.loaded, live.levels, seen.living_zones(live.policy))
        warnings = status.machine_warnings(self._s.notes, seen, live.policy, live.levels)
        took = (time.monotonic() - order.since) * 1000
        return Change(
            live.generation,
            False,
            verified,
            effect.kept,
            (),
            failed,
            took,
            warnings,
            effect.no_link,
            effect.not_known,
            effect.opened,
        )
