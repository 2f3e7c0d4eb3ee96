"""The records of a change: generations, boot ruleset, journal, audit lines."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import ParamSpec, TypeVar

from ecluse.controller.live_state import CompiledPolicy, CurrentState, LiveState
from ecluse.controller.persist.writer_thread import Write, WriteQueue
from ecluse.errors import NotFoundError, StateError
from ecluse.policy import Levels, Policy
from ecluse.ports import AuditLog, Clock, StateStore
from ecluse.records import Actor, AuditRecord, Command, Generation, KnownName
from ecluse.ruleset import switch

P = ParamSpec("P")
T = TypeVar("T")

MOST_LINES = 1000
"""Audit lines that wait for a disk which takes nothing; lines of commands may be twice as many."""

_READING_THREADS = 4
"""A disk that hangs takes these threads and no others: computing and the kernel go on."""

_FROM_ANYBODY = frozenset({"forbidden", "tamper", "leak"})
"""Events that others than the operators cause, as often as they like."""


class ChangeRecords:
    """Makes the records of a change, and writes them in the right order.

    generations: those that are recorded, by number. queue: what is being written.

    seconds: how long an answer waits for the disk. itself: the daemon, as an actor. uids, step: as
    for `TableManager`. keep_generations: how many records to keep. known_names: gives what is known
    of host names now.
    """

    def __init__(
        self,
        *,
        store: StateStore,
        audit: AuditLog,
        live: LiveState,
        seconds: float,
        clock: Clock,
        itself: Actor,
        uids: tuple[int, ...],
        keep_generations: int,
        known_names: Callable[[], Mapping[str, KnownName]],
        step: Callable[[str], None],
    ) -> None:
        self.generations: dict[int, Generation] = {}
        self.queue = WriteQueue(seconds, live.lock.urgent_waiting)
        self._store = store
        self._audit = audit
        self._live = live
        self._clock = clock
        self._itself = itself
        self._uids = uids
        self._keep_generations = keep_generations
        self._known_names = known_names
        self._step = step
        self._readers = ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="disk")
        # Program files on disk: the ruleset that the newest is of, and the newest by policy.
        self._prepared_ruleset = ""
        self._newest_program: dict[str, str] = {}
        self._closed_text = ""
        self._closed_policy: Policy | None = None
        # Audit lines: how many so far, the newest that used the reserved space, and those that were
        # left out, by event.
        self._lines = 0
        self._newest_from_reserve = 0
        self._left_out: Counter[str] = Counter()
        self._counting = threading.Lock()

    def close(self) -> None:
        """Let the threads end once they have done what is begun."""
        self.queue.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    # -- reading -----------------------------------------------------------------------------------

    async def on_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what may wait for the disk, on a thread that only such work has.

        The lock is not to be held meanwhile.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, partial(work, *args, **kwargs)
        )

    async def read_policy(self, digest: str) -> Policy:
        """Read a stored policy. StateError when it is missing or damaged."""
        return await self.on_disk(self._store.read_policy, digest)

    async def digest_policy(self, policy: Policy) -> str:
        """Give the digest under which a policy would be stored."""
        return await self.on_disk(self._store.digest_policy, policy)

    def generation(self, number: int) -> Generation:
        """Give a recorded generation. NotFoundError when it is not (or no longer) recorded."""
        if number not in self.generations:
            raise NotFoundError(
                f"there is no generation {number}", hint="'ecluse history' lists them"
            )
        return self.generations[number]

    def newest_first(self) -> list[Generation]:
        """Give the recorded generations, newest first."""
        return sorted(self.generations.values(), key=lambda g: -g.number)

    def next_generation(
        self, command: Command, loaded: CompiledPolicy, levels: Levels
    ) -> Generation:
        """Make the record of a state that is about to be applied."""
        newest = max(self.generations, default=0)
        return Generation(
            number=newest + 1,
            at=self._clock(),
            action=command.action,
            levels=dict(levels),
            policy=loaded.digest,
            ruleset=loaded.ruleset,
            actor=command.actor,
            reason=command.reason,
            authorised_by=command.authorised_by,
            previous=self._live.current.generation.number if self._live.started else newest,
            back_to=command.back_to,
        )

    # -- single writes -----------------------------------------------------------------------------

    def _stepped(self, label: str, step: str, run: Callable[[], object]) -> Write:
        def run_and_step() -> None:
            run()
            self._step(step)

        return Write(label, run_and_step)

    def program_files(self, loaded: CompiledPolicy) -> Write:
        """Store the compiled ruleset and the small files for every level, unless they are there."""

        def run() -> None:
            stored = self._is_stored(self._newest_program.get(loaded.digest))
            if self._prepared_ruleset == loaded.ruleset and stored:
                return
            zones = loaded.policy.zone_names()
            gates = {
                level.name: switch.by_hand_text(loaded.policy, dict.fromkeys(zones, level.name))
                for level in loaded.policy.site.levels
            }
            text = loaded.seal.text(loaded.program)
            name = self._store.write_program(text, gates)
            self._prepared_ruleset = loaded.ruleset
            self._newest_program[loaded.digest] = name

        return self._stepped(f"program {loaded.ruleset}", "program", run)

    def _is_stored(self, name: str | None) -> bool:
        """Say whether a program file is (still) there: old ones are tidied away."""
        return name is not None and self._store.has_program(name)

    def boot_ruleset(
        self, loaded: CompiledPolicy, generation: Generation, *, use_reserve: bool = False
    ) -> Write:
        """Point the boot ruleset at a state, which records it: `boot.nft` has the whole generation.

        A program file of this policy that is there already serves, even if an address has changed
        since: a closing never waits for a file of the allowlist's size, and the file is renewed
        soon after (`RecordUpkeep`). use_reserve: use the disk space that is reserved for closings.
        """
        gate = switch.switch_text(loaded.policy, switch.BOOT_SLOT, generation.levels)
        program = self.program_files(loaded)

        def run() -> None:
            try:
                if not self._is_stored(self._newest_program.get(loaded.digest)):
                    program.run()
                name = self._newest_program[loaded.digest]
            except StateError:
                name = self._older_program(loaded.digest) if use_reserve else ""
                if not name:
                    raise
            self._store.point_boot(name, gate, generation, use_reserve=use_reserve)

        return self._stepped("boot ruleset", "boot", run)

    def _older_program(self, policy: str) -> str:
        """Name a program of this policy that a generation left on disk, empty when there is none.

        Its host names may have other addresses by now. It is for a daemon that was started on a
        full disk: a boot that is cut matters more than the newest address.
        """
        rulesets = (g.ruleset for g in self.newest_first() if g.policy == policy)
        names = (f"program-{ruleset.removeprefix('sha256:')}.nft" for ruleset in rulesets)
        return next(filter(self._is_stored, names), "")

    def policy_file(self, policy: Policy) -> Write:
        """Store a policy under its digest; nothing to do when it is there."""
        return self._stepped("allowlist", "policy", lambda: self._store.write_policy(policy))

    def _boot_lock(self, text: str) -> Write:
        what = "second lock for the boot"
        return Write(what, lambda: self._store.write_boot_lock(text), housekeeping=True)

    def store_boot_lock(self, text: str) -> None:
        """Store the second lock for the boot, soon; an empty text removes it."""
        self.queue.write_later([self._boot_lock(text)])

    async def remove_boot_lock(self) -> None:
        """Remove the second lock for the boot now. StateError: it may still be there."""
        await self.queue.write_or_fail([self._boot_lock("")])

    def closed_ruleset(self, policy: Policy) -> Write:
        """Store the ruleset of last resort; made and compared only for another policy."""

        def run() -> None:
            if policy is self._closed_policy:
                return
            text = switch.closed_text(policy, self._uids)
            if text != self._closed_text:
                self._store.write_closed(text)
            self._closed_text, self._closed_policy = text, policy

        return Write("closed ruleset", run)

    def disk_reserve(self) -> Write:
        """Reserve disk space for closings, so that they are recorded when the disk is full."""
        return Write("room for a full disk", self._store.fill_disk_reserve, housekeeping=True)

    def known_names(self) -> Write:
        """Store the addresses that names have now, for a start without DNS."""
        known = self._known_names()
        return Write("addresses", lambda: self._store.write_names(known), housekeeping=True)

    def generation_file(self, generation: Generation) -> Write:
        """File a generation by its number.

        Once `boot.nft` has it, that may come after the answer.
        """
        return self._stepped(
            f"generation {generation.number}",
            "generation",
            lambda: self._store.write_generation(generation),
        )

    def intent(self, generation: Generation) -> Write:
        """Store a change that is about to be made."""
        return self._stepped("journal", "intent", lambda: self._store.write_intent(generation))

    def cleared_intent(self) -> Write:
        """Take the intent away again."""
        return self._stepped("journal", "cleared", self._store.clear_intent)

    def audit_line(self, record: AuditRecord, *, use_reserve: bool = False) -> Write:
        """Append a line to the audit log; beyond what may wait, count it.

        use_reserve: as for `boot_ruleset`.

        On a full disk the line of a closing passes those that wait. These give no levels then: the
        newest levels in the log are to be those that are applied.
        """
        most = MOST_LINES if record.event in _FROM_ANYBODY else 2 * MOST_LINES
        if self.queue.lines >= most:
            return self._count_left_out(record)
        self._lines += 1
        number = self._lines

        def run() -> None:
            passed = number < self._newest_from_reserve
            self._audit.append(
                replace(record, levels=None) if passed else record, use_reserve=use_reserve
            )
            self._newest_from_reserve = max(self._newest_from_reserve, number if use_reserve else 0)

        label = f"audit line '{record.event}' (number {number} since the start)"
        return replace(self._stepped(label, "audit", run), in_order=True, ahead=use_reserve)

    def _count_left_out(self, record: AuditRecord) -> Write:
        """Count a line that cannot be kept, so that a flood does not eat the memory."""
        with self._counting:
            self._left_out[record.event] += 1

        def run() -> None:
            with self._counting:
                counts = self._left_out.copy()
            if not counts:
                return  # an earlier pass has written it, and no more came
            each = ", ".join(f"{count} of '{event}'" for event, count in sorted(counts.items()))
            what = (
                f"the disk took nothing for long: {counts.total()} lines could not be kept ({each})"
            )
            self._audit.append(AuditRecord("left-out", self._itself, what))
            with self._counting:
                self._left_out -= counts

        return Write("audit lines that were too many to keep, as a number", run, in_order=True)

    async def append_lines(self, *records: AuditRecord) -> tuple[str, ...]:
        """Append lines to the audit log; give what could not be written (`WriteQueue.write`)."""
        return await self.queue.write([self.audit_line(one) for one in records])

    def offline_closings(self, records: Sequence[AuditRecord]) -> list[Write]:
        """Take closings without the daemon into the audit log, and only then forget their notes."""
        lines = [self.audit_line(record) for record in records]

        def run() -> None:
            if not all(line.written for line in lines):
                raise StateError("the audit log has not taken it yet")
            self._store.remove_offline_closings()

        notes = Write("notes of what was closed by hand", run, housekeeping=True)
        return [*lines, notes] if lines else []

    def change_line(
        self,
        generation: Generation,
        event: str,
        what: str,
        result: str,
        *,
        command: Command | None = None,
    ) -> AuditRecord:
        """Make the audit line of a change; it gives the levels only when they were applied."""
        source = command or generation
        return AuditRecord(
            event=event,
            actor=source.actor,
            what=what,
            reason=source.reason,
            authorised_by=source.authorised_by,
            from_generation=generation.previous,
            to_generation=generation.number,
            ruleset=generation.ruleset,
            result=result,
            levels=generation.levels if result == "done" else None,
        )

    # -- a change's records, in order --------------------------------------------------------------

    async def announce(
        self, command: Command, generation: Generation, loaded: CompiledPolicy
    ) -> None:
        """Put an opening or a reload on disk before anything happens.

        StateError: nothing happened.
        """
        begun = self.change_line(
            generation, "intent", command.action.value, "begun", command=command
        )
        writes = [self.intent(generation)]
        # The policy after the intent that names it: what nothing names may be tidied away.
        if self._live.current.loaded.digest != loaded.digest:
            writes.append(self.policy_file(loaded.policy))
        writes += [self.audit_line(begun), self.program_files(loaded)]
        try:
            await self.queue.write_or_fail(writes)
        except StateError as problem:
            await self.failed(command, generation, problem.message)
            raise

    async def failed(self, command: Command, generation: Generation, why: str) -> None:
        """Record that a change did not happen."""
        line = self.change_line(generation, command.action.value, why, "failed", command=command)
        prepared = self.program_files(self._live.current.loaded)
        await self.queue.write([self.cleared_intent(), self.audit_line(line), prepared])

    async def closing(self, loaded: CompiledPolicy, generation: Generation) -> tuple[str, ...]:
        """Record a closing that is applied already; give what could not be recorded, in words."""
        failed = await self.queue.write(
            self._answered_writes(loaded, generation, use_reserve=True), records_only=True
        )
        record = replace(self.generation_file(generation), housekeeping=True)
        self.queue.write_later([record, self.disk_reserve()])
        return failed

    async def opening(self, loaded: CompiledPolicy, generation: Generation) -> None:
        """Record an opening. StateError: part of it may be on disk, and is to be taken back."""
        await self.queue.write_or_fail(self._answered_writes(loaded, generation, use_reserve=False))
        writes = self.generation_file(generation), self.cleared_intent(), self.disk_reserve()
        self.queue.write_later([replace(one, housekeeping=True) for one in writes])

    def _answered_writes(
        self, loaded: CompiledPolicy, generation: Generation, *, use_reserve: bool
    ) -> list[Write]:
        """Make all that an answer waits for: the boot ruleset with the record, and the audit line.

        use_reserve: a closing may use the reserved disk space. An opening may not: it can wait.
        """
        line = self.change_line(generation, generation.action.value, "applied", "done")
        boot = self.boot_ruleset(loaded, generation, use_reserve=use_reserve)
        return [boot, self.audit_line(line, use_reserve=use_reserve)]

    async def taken_back(
        self, before: CurrentState, lost: Generation, again: Generation
    ) -> tuple[str, ...]:
        """Record that a state stands again after an opening that could not be recorded.

        Part of the opening's record may be on disk.
        """
        self.generations[lost.number] = lost
        self.generations[again.number] = again
        line = self.change_line(again, "recovery", again.reason, "done")
        writes = [
            self.boot_ruleset(before.loaded, again, use_reserve=True),
            self.generation_file(again),
            self.audit_line(line),
            self.cleared_intent(),
            self.program_files(before.loaded),
        ]
        return await self.queue.write(writes)

    def forget_old(self) -> Write:
        """Delete records beyond the number that is kept."""
        keep = self._keep_generations
        for number in sorted(self.generations)[:-keep]:
            del self.generations[number]
        return Write("tidying", lambda: self._store.forget(keep), housekeeping=True)


def taken_back_error(problem: StateError) -> StateError:
    """Say that an opening that could not be recorded was taken back."""
    return StateError(
        f"{problem.message}; an opening that is not on disk does not count: "
        "the state before it stands",
        retry=True,
        hint="look at the state directory's disk; closing still works",
    )
