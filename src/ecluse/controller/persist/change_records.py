"""Everything that is put on disk for a change: generations, boot ruleset, journal, audit lines."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ecluse.controller.context import Command, Context
from ecluse.controller.live_state import CompiledPolicy, CurrentState
from ecluse.controller.persist.writer_thread import Write, WriteQueue
from ecluse.errors import NotFoundError, StateError
from ecluse.policy import Levels, Policy
from ecluse.records import AuditRecord, Generation
from ecluse.ruleset import switch

MOST_LINES = 1000
"""Audit lines that wait for a disk which takes nothing; the lines of commands may be twice as many.
"""

_FROM_ANYBODY = frozenset({"forbidden", "tamper", "leak"})
"""Events that others than the operators cause, as often as they like."""


@dataclass
class ChangeRecords:
    """Makes the records of a change and hands them to the recorder in the right order."""

    shared: Context
    recorder: WriteQueue
    generations: dict[int, Generation] = field(default_factory=dict)
    _newest: dict[str, str] = field(default_factory=dict)
    _prepared: str = ""
    _closed: str = ""
    _closed_of: Policy | None = None
    _lines: int = 0
    _newest_spare: int = 0
    _left_out: Counter[str] = field(default_factory=Counter)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def generation(self, number: int) -> Generation:
        """Give a recorded generation.

        NotFoundError when there is none of that number (any more).
        """
        if number not in self.generations:
            raise NotFoundError(
                f"there is no generation {number}", hint="'ecluse history' lists them"
            )
        return self.generations[number]

    def next(self, order: Command, loaded: CompiledPolicy, levels: Levels) -> Generation:
        """Make the record of a state that is about to be applied."""
        newest = max(self.generations, default=0)
        return Generation(
            number=newest + 1,
            at=self.shared.ports.clock(),
            action=order.action,
            levels=dict(levels),
            policy=loaded.digest,
            ruleset=loaded.ruleset,
            actor=order.actor,
            reason=order.reason,
            authorised_by=order.authorised_by,
            previous=self.shared.live.generation.number if self.shared.started else newest,
            back_to=order.back_to,
        )

    # -- jobs --------------------------------------------------------------------------------------

    def _job(self, label: str, step: str, write: Callable[[], object]) -> Write:
        def run() -> None:
            write()
            self.shared.step(step)

        return Write(label, run)

    def program(self, loaded: CompiledPolicy) -> Write:
        """Store the compiled ruleset and the small files for every level; nothing to do when these
        are of it already.
        """

        def write() -> None:
            if self._prepared == loaded.ruleset and self._stored(self._newest.get(loaded.digest)):
                return
            zones = loaded.policy.zone_names()
            gates = {
                level.name: switch.gate_text(
                    loaded.policy, switch.BOOT_SLOT, dict.fromkeys(zones, level.name)
                )
                for level in loaded.policy.site.levels
            }
            text = loaded.seal.text(loaded.program)
            name = self.shared.ports.store.write_program(text, gates)
            self._prepared, self._newest[loaded.digest] = loaded.ruleset, name

        return self._job(f"program {loaded.ruleset}", "program", write)

    def _stored(self, name: str | None) -> bool:
        """Say whether a program file is (still) there: old ones are tidied away."""
        return name is not None and self.shared.ports.store.has_program(name)

    def boot(self, loaded: CompiledPolicy, generation: Generation, *, spare: bool = False) -> Write:
        """Point the boot ruleset at a state, which records it: `boot.nft` holds the whole
        generation.

        spare: use the room that is kept for a full disk (`StateStore.fill_disk_reserve`).

        A program file of this policy that is there already serves, even if an address has changed
        since: a trigger never waits for a file of the allowlist's size, and the file is renewed
        soon after (Keeper).
        """
        gate = switch.gate_text(loaded.policy, switch.BOOT_SLOT, generation.levels)
        program = self.program(loaded)

        def write() -> None:
            try:
                if not self._stored(self._newest.get(loaded.digest)):
                    program.write()
                name = self._newest[loaded.digest]
            except StateError:
                name = self._older_program(loaded.digest) if spare else ""
                if not name:
                    raise
            self.shared.ports.store.point_boot(name, gate, generation, use_reserve=spare)

        return self._job("boot ruleset", "boot", write)

    def _older_program(self, policy: str) -> str:
        """Name a program of this policy that a generation left on disk; its host names may have
        other addresses by now.

        Empty when there is none. For a daemon that was started on a full disk: a boot that is cut
        beats the newest address.
        """
        rulesets = (
            g.ruleset
            for g in sorted(self.generations.values(), key=lambda g: -g.number)
            if g.policy == policy
        )
        names = (f"program-{ruleset.removeprefix('sha256:')}.nft" for ruleset in rulesets)
        return next(filter(self._stored, names), "")

    def policy(self, policy: Policy) -> Write:
        """Store a policy under its digest; nothing to do when it is there."""
        return self._job(
            "allowlist", "policy", lambda: self.shared.ports.store.write_policy(policy)
        )

    def closed(self, policy: Policy) -> Write:
        """Store the ruleset of last resort; made and compared only when the allowlist is another
        than last time.
        """

        def write() -> None:
            if policy is self._closed_of:
                return
            text = switch.closed_text(policy, self.shared.options.uids)
            if text != self._closed:
                self.shared.ports.store.write_closed(text)
            self._closed, self._closed_of = text, policy

        return Write("closed ruleset", write)

    def room(self) -> Write:
        """Keep room on the disk for closings, so that they are recorded when it is full."""
        return Write(
            "room for a full disk", self.shared.ports.store.fill_disk_reserve, housekeeping=True
        )

    def names(self) -> Write:
        """Store the addresses that names have now, for a start without DNS."""
        known = self.shared.ports.resolver.known()
        return Write(
            "addresses", lambda: self.shared.ports.store.write_names(known), housekeeping=True
        )

    def record(self, generation: Generation) -> Write:
        """File a generation by its number: once `boot.nft` holds it, that may come after the
        answer.
        """
        store = self.shared.ports.store
        return self._job(
            f"generation {generation.number}",
            "generation",
            lambda: store.write_generation(generation),
        )

    def intent(self, generation: Generation) -> Write:
        """Store what is about to be done."""
        return self._job(
            "journal", "intent", lambda: self.shared.ports.store.write_intent(generation)
        )

    def clear(self) -> Write:
        """Take the intent away again."""
        return self._job("journal", "cleared", self.shared.ports.store.clear_intent)

    def audit(self, record: AuditRecord, *, spare: bool = False) -> Write:
        """Append a line to the audit log; beyond what may wait, count it. spare: as for `boot`.

        On a full disk the line of a closing passes those that wait. They tell no levels then: the
        newest that the log tells are to be those that stand.
        """
        most = MOST_LINES if record.event in _FROM_ANYBODY else 2 * MOST_LINES
        if self.recorder.lines >= most:
            return self._counted(record)
        self._lines += 1
        number = self._lines

        def write() -> None:
            passed = number < self._newest_spare
            self.shared.ports.audit.append(
                replace(record, levels=None) if passed else record, use_reserve=spare
            )
            self._newest_spare = max(self._newest_spare, number if spare else 0)

        label = f"audit line '{record.event}' (number {number} since the start)"
        return replace(self._job(label, "audit", write), in_order=True, ahead=spare)

    def _counted(self, record: AuditRecord) -> Write:
        """Count a line that cannot be kept: a flood must not eat the memory while the disk takes
        nothing.
        """
        with self._counting:
            self._left_out[record.event] += 1

        def write() -> None:
            with self._counting:
                counts = self._left_out.copy()
            if not counts:
                return  # an earlier round has written it, and no more came
            each = ", ".join(f"{count} of '{event}'" for event, count in sorted(counts.items()))
            what = (
                f"the disk took nothing for long: {counts.total()} lines could not be kept ({each})"
            )
            self.shared.ports.audit.append(AuditRecord("left-out", self.shared.itself, what))
            with self._counting:
                self._left_out -= counts

        return Write("audit lines that were too many to keep, as a number", write, in_order=True)

    def by_hand(self, records: Sequence[AuditRecord]) -> list[Write]:
        """Take what was closed without the daemon into the audit log, and only then forget the
        notes of it.
        """
        lines = [self.audit(record) for record in records]

        def write() -> None:
            if not all(job.written for job in lines):
                raise StateError("the audit log has not taken it yet")
            self.shared.ports.store.remove_offline_closings()

        return (
            [*lines, Write("notes of what was closed by hand", write, housekeeping=True)]
            if lines
            else []
        )

    def line(
        self,
        generation: Generation,
        event: str,
        what: str,
        result: str,
        *,
        order: Command | None = None,
    ) -> AuditRecord:
        """Make the audit line of a change; the levels stand in it only when they were applied."""
        applied = result == "done"
        return AuditRecord(
            event=event,
            actor=order.actor if order else generation.actor,
            what=what,
            reason=order.reason if order else generation.reason,
            authorised_by=order.authorised_by if order else generation.authorised_by,
            from_generation=generation.previous,
            to_generation=generation.number,
            ruleset=generation.ruleset,
            result=result,
            levels=generation.levels if applied else None,
        )

    # -- a change's records, in order --------------------------------------------------------------

    async def announce(
        self, order: Command, generation: Generation, loaded: CompiledPolicy
    ) -> None:
        """Put an opening or a reload on disk before anything happens.

        StateError: nothing happened.
        """
        begun = self.line(generation, "intent", order.action.value, "begun", order=order)
        # The policy after the intent that names it: what nothing names may be tidied away
        # meanwhile.
        policy = (
            [] if self.shared.live.loaded.digest == loaded.digest else [self.policy(loaded.policy)]
        )
        jobs = [self.intent(generation), *policy, self.audit(begun), self.program(loaded)]
        try:
            await self.recorder.must(jobs)
        except StateError as problem:
            await self.failed(order, generation, problem.message)
            raise

    async def failed(self, order: Command, generation: Generation, why: str) -> None:
        """Record that a change did not happen."""
        line = self.line(generation, order.action.value, why, "failed", order=order)
        prepared = self.program(self.shared.live.loaded)
        await self.recorder.should([self.clear(), self.audit(line), prepared])

    async def closing(self, loaded: CompiledPolicy, generation: Generation) -> tuple[str, ...]:
        """Record a closing that is applied already; give what could not be recorded, in words."""
        failed = await self.recorder.should(
            self._done(loaded, generation, spare=True), records_only=True
        )
        self.recorder.later([replace(self.record(generation), housekeeping=True), self.room()])
        return failed

    async def opening(self, loaded: CompiledPolicy, generation: Generation) -> None:
        """Record an opening. StateError: part of it may be on disk, and is to be taken back."""
        await self.recorder.must(self._done(loaded, generation, spare=False))
        jobs = self.record(generation), self.clear(), self.room()
        self.recorder.later([replace(job, housekeeping=True) for job in jobs])

    def _done(self, loaded: CompiledPolicy, generation: Generation, *, spare: bool) -> list[Write]:
        """Make all that an answer waits for: the boot ruleset with the record in it, and who
        commanded it.

        spare: a closing may use the room that is kept for a full disk. An opening may not: there is
        no hurry.
        """
        line = self.line(generation, generation.action.value, "applied", "done")
        return [self.boot(loaded, generation, spare=spare), self.audit(line, spare=spare)]

    async def taken_back(
        self, before: CurrentState, lost: Generation, again: Generation
    ) -> tuple[str, ...]:
        """Record that a state stands again after an opening that could not be recorded, part of
        which may be on disk.
        """
        self.generations[lost.number] = lost
        self.generations[again.number] = again
        line = self.line(again, "recovery", again.reason, "done")
        jobs = [
            self.boot(before.loaded, again, spare=True),
            self.record(again),
            self.audit(line),
            self.clear(),
        ]
        return await self.recorder.should([*jobs, self.program(before.loaded)])

    def forget_old(self) -> Write:
        """Delete records beyond the number that is kept."""
        keep = self.shared.options.keep_generations
        for number in sorted(self.generations)[:-keep]:
            del self.generations[number]
        return Write("tidying", lambda: self.shared.ports.store.forget(keep), housekeeping=True)


def must_not_lack(problem: StateError) -> StateError:
    """Say that what could not be recorded was taken back."""
    return StateError(
        f"{problem.message}; an opening that is not on disk does not count: the state before it stands",
        retry=True,
        hint="look at the state directory's disk; closing still works",
    )
