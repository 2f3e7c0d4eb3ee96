"""Keeps the promises between commands: heals the table, ends what is no longer kept, follows
addresses, looks at counters.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace

from ecluse.controller import live_state as lv
from ecluse.controller import status
from ecluse.controller.context import Context
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.persist.writer_thread import Write
from ecluse.controller.tasks.dns_proxy import DnsProxyTask
from ecluse.controller.tasks.host_names import HostNameTask
from ecluse.controller.tasks.kernel_limits import KernelLimitsTask
from ecluse.controller.tasks.links import LinkTask
from ecluse.controller.tasks.preload import Preloader
from ecluse.controller.tasks.supervisor import Supervisor, in_words
from ecluse.controller.tasks.tamper import EXAMPLES, Reconciler
from ecluse.errors import EcluseError
from ecluse.flow_judge import describe
from ecluse.gc_pause import collect_if_small
from ecluse.policy import Policy
from ecluse.records import AuditRecord, Generation
from ecluse.results import Purge
from ecluse.ruleset.table_names import DNS_LIMITED

PURGES_REMEMBERED = 100
_TRY_AGAIN = 0.05
"""Seconds between two tries to put the table back, while the kernel refuses."""
_AFTER_ANSWER = 0.003
"""Seconds that the work after a change leaves to its answer: both want the same processor."""
_UNTIDIED = 20
"""Records beyond the number that is kept, with which they are tidied away although somebody
commands just then.
"""
_UNSWEPT = 6
"""Regular looks after which garbage is collected although somebody commands just then."""
_BOOT_DELAY = 30.0
"""Changed addresses reach the boot ruleset after so many seconds at the latest: it is a whole file
each time.
"""


class Keeper:
    """The background work of the controller."""

    def __init__(self, shared: Context, ledger: ChangeRecords, loader: Preloader) -> None:
        self._s = shared
        self._ledger = ledger
        self._loader = loader
        self._watches = Supervisor(shared)
        self._links = LinkTask(shared, self._audit)
        self._healer = Reconciler(shared, ledger, self._watches, self.after, self._arm_previous)
        self._names: AsyncIterator[frozenset[str]] | None = None
        self._boot_due: float | None = None
        self._addresses_due = False
        self._tidying_due = True
        self._unswept = 0
        self._purge_due: Generation | None = None
        self._dns = DnsProxyTask(shared)

    # -- tasks -------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear the kernel's and the resolver's announcements from now on: none between here and
        `begin` is missed.
        """
        self._healer.listen()
        self._names = self._s.ports.resolver.changes()

    def begin(self) -> None:
        """Start the background work."""
        keep = self._watches.keep
        keep("hearing of changes of the table", self._healer.hear)
        keep("healing the table", self._healer.heal)
        keep("reading back what was loaded", self._read_back)
        keep("following addresses of host names", self._watch_names)
        keep("hearing of changes of links", self._links.hear)
        keep("looking at the links", self._links.look)
        keep("looking who uses which address", HostNameTask(self._s, self._ledger).run)
        keep("looking after the DNS gate", self._dns.run)
        keep("looking how full the kernel's tables are", KernelLimitsTask(self._s).run)
        keep("the regular look", self._ticks)

    async def _audit(self, line: AuditRecord) -> None:
        await self._ledger.recorder.should([self._ledger.audit(line)])

    def aside(self, work: Coroutine[object, object, object]) -> None:
        """Do something beside everything else."""
        self._watches.aside(work)

    @property
    def alive(self) -> bool:
        """Say whether the tasks that watch are all at work."""
        return self._watches.alive

    async def end(self) -> None:
        """End all tasks."""
        await self._watches.end()

    # -- the kernel's table ------------------------------------------------------------------------

    async def _read_back(self) -> None:
        """Learn what the table looks like whenever we made it another, beside everything else."""
        while True:
            await self._s.gate.unread.wait()
            with contextlib.suppress(EcluseError):
                if await self._s.gate.read_back():
                    continue
            self._s.gate.unread.set()
            await asyncio.sleep(_TRY_AGAIN)

    async def restore(self, process: str, pid: int, what: str) -> None:
        """Put the live state back into the kernel (`Healer.restore`).

        The caller holds the writer's lock.
        """
        await self._healer.restore(process, pid, what)

    def compare(self, what: str) -> None:
        """Have the table compared with the live state, and put back, as soon as the writer's lock
        is free. what: after what.
        """
        self._healer.compare(what)

    async def look(self) -> None:
        """Compare the kernel with what it should be, and read its counters."""
        live = self._s.live
        if not self._s.writer.locked():
            async with self._s.writer.hold():
                live = self._s.live
                await self._s.gate.hear_others()
                self._s.notes.in_step = await self._s.gate.in_step(live.loaded, live.levels)
                self._s.notes.checked = self._s.ports.clock()
        counters = await self._s.ports.firewall.counters()
        status.note_counters(self._s.notes, counters, self._s.ports.clock())
        dropped = counters.get(DNS_LIMITED)
        self._s.notes.limited = (
            (await self._s.ports.firewall.limited()).rows if dropped and dropped.packets else ()
        )

    # -- after a change ----------------------------------------------------------------------------

    def after(self, generation: Generation) -> None:
        """Do what may wait until a change was answered."""
        self._dns.soon()
        self._s.notes.purges[generation.number] = Purge(generation.number, "running")
        while len(self._s.notes.purges) > PURGES_REMEMBERED:
            del self._s.notes.purges[min(self._s.notes.purges)]
        self._watches.aside(self._after(generation))

    async def _after(self, generation: Generation) -> None:
        self._purge_due = generation
        await asyncio.sleep(_AFTER_ANSWER)
        await self._purge(generation)
        async with self._s.writer.hold():
            try:
                await self._prune()
            except EcluseError as error:
                self._s.say(
                    "warning",
                    f"old allowlists could not be taken out of the kernel yet: {error.message}",
                )
            jobs = self._prepared_files()
        self._tidying_due = True
        await self._ledger.recorder.should(jobs)
        await self._arm_previous()

    async def _purge(self, generation: Generation) -> None:
        """End the connections that are no longer kept: the chains refuse them already, this ends
        offloaded ones too.
        """
        purges = self._s.notes.purges
        try:
            judged_at = self._s.live.generation.number
            judge, every = await asyncio.gather(
                self._s.judge(), self._s.ports.conntrack.connections()
            )
            ended = await self._s.not_kept(judge, every)
            if self._s.live.generation.number != judged_at:
                # what was opened again meanwhile is not ended; the newer change ends its own
                ended = []
            gone = await self._s.ports.conntrack.end(ended) if ended else 0
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again at the regular look
            why = in_words(error)
            purges[generation.number] = Purge(generation.number, "failed", error=why)
            text = f"old connections could not be ended ({why}); they are refused, and it is tried again"
            if self._s.notes.warnings.get("purge") != text:
                self._s.say("purge", text)
            self._s.notes.warnings["purge"] = text
            return
        if self._purge_due is generation:
            self._purge_due = None
        self._s.notes.warnings.pop("purge", None)
        if unread := self._s.ports.conntrack.unread:
            self._s.notes.warnings["purge"] = (
                f"{unread} entries of the connection table are of no kind that this version knows: they were neither ended nor "
                "counted, and the chains judge their packets all the same"
            )
        examples = tuple(describe(one) for one in ended[:EXAMPLES])
        purges[generation.number] = Purge(
            generation.number, "done", gone, len(every) - len(ended), examples
        )
        self._s.say("purge", f"{gone} connections were ended, {len(every) - len(ended)} go on")

    async def _prune(self) -> None:
        """Keep the newest few policies in the kernel."""
        live = self._s.live
        wanted: list[str] = [live.loaded.digest]
        for generation in sorted(self._ledger.generations.values(), key=lambda g: -g.number):
            if generation.policy not in wanted:
                wanted.append(generation.policy)
        keep = set(wanted[: self._s.options.keep_in_kernel])
        if not set(self._s.gate.loaded) <= keep:
            await self._s.gate.prune(keep)
        self.follow_names()

    def _prepared_files(self) -> list[Write]:
        """Give the jobs that bring the prepared files to the live state."""
        live = self._s.live
        jobs = self._ledger.program(live.loaded), self._ledger.closed(live.policy)
        return [replace(job, housekeeping=True) for job in jobs]

    def follow_names(self, coming: Policy | None = None) -> None:
        """Have the names of every policy in the kernel kept fresh, and of one that is to come, by
        the newest one's servers.
        """
        policies = [one.policy for one in self._s.gate.loaded.values()] + (
            [coming] if coming else []
        )
        names = {name for policy in policies for name in policy.host_names()}
        private = frozenset[str]().union(*(policy.private_names() for policy in policies))
        self._s.ports.resolver.watch(names, lv.servers_of(coming or self._s.live.policy), private)

    async def _arm_previous(self) -> None:
        """Hold the policy that a rollback would go back to in the kernel, so that it is as quick as
        any switch.
        """
        previous = self._ledger.generations.get(self._s.live.generation.previous)
        if previous is None or previous.policy in self._s.gate.loaded:
            return
        try:
            # Before the lock is taken: the disk may hang.
            policy = await self._s.on_disk(self._s.ports.store.read_policy, previous.policy)
            await self._loader.load(policy, previous.policy)
            self.follow_names()
        except EcluseError as error:
            text = f"the generation before can't be held ready ({error.message}); a rollback takes longer"
            self._s.notes.warnings["previous"] = text
        else:
            self._s.notes.warnings.pop("previous", None)

    # -- addresses, links, time --------------------------------------------------------------------

    async def _watch_names(self) -> None:
        if self._names is None:
            return
        async for names in self._names:
            try:
                async with self._s.writer.hold():
                    await self._follow_addresses()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again at the regular look
                self._addresses_due = True
                self._s.notes.warnings["addresses"] = (
                    f"new addresses could not be loaded: {in_words(error)}"
                )
                continue
            self._s.notes.warnings.pop("addresses", None)
            self._s.say("address", "addresses changed: " + ", ".join(sorted(names)[:EXAMPLES]))
            await self._ledger.recorder.should([self._ledger.names()])

    async def _follow_addresses(self) -> None:
        gate, live = self._s.gate, self._s.live
        addresses = lv.addresses_of(self._s.ports.resolver.known())
        if not await gate.update(addresses):
            fresh = await gate.bring_up(live.policy, live.loaded.digest, addresses, live.levels)
            self._s.live = replace(live, loaded=fresh)
            self._watches.aside(self._arm_previous())
            return
        self._s.live = replace(live, loaded=gate.loaded[live.loaded.digest])
        if self._boot_due is None and self._s.live.loaded.ruleset != live.loaded.ruleset:
            self._boot_due = time.monotonic() + _BOOT_DELAY

    async def _ticks(self) -> None:
        """Look and catch up now and then; each step whatever became of the others."""
        steps = (
            ("comparing with the kernel", self._compare),
            ("putting the table back", self._recheck),
            ("telling that a fight is over", self._rest),
            ("loading new addresses", self._late_addresses),
            ("ending old connections", self._late_purge),
            ("recording what waits", self._record_what_waits),
            ("tidying old records", self._tidy),
            ("renewing the boot ruleset", self._late_boot),
            ("giving memory back", self._sweep),
        )
        while True:
            await asyncio.sleep(self._s.options.tick)
            for name, step in steps:
                await self._watches.contained(name, step)

    async def _compare(self) -> None:
        warnings = self._s.notes.warnings
        try:
            await self.look()
        except EcluseError as error:
            self._s.notes.in_step = False
            warnings["kernel"] = f"the kernel could not be compared: {error.message}"
        else:
            warnings.pop("kernel", None)

    async def _recheck(self) -> None:
        if self._s.notes.in_step:
            return
        async with self._s.writer.hold():
            live = self._s.live
            if not await self._s.gate.in_step(live.loaded, live.levels):
                await self.restore("", 0, "found out of step by the regular look")

    async def _rest(self) -> None:
        self._healer.rest()

    async def _late_addresses(self) -> None:
        if self._addresses_due:
            async with self._s.writer.hold():
                await self._follow_addresses()
            self._addresses_due = False
            self._s.notes.warnings.pop("addresses", None)

    async def _late_purge(self) -> None:
        due = self._purge_due
        if due is not None and "purge" in self._s.notes.warnings:
            await self._purge(due)

    async def _tidy(self) -> None:
        # Not right after a change: it reads every record, and the next command's record would wait
        # for it. But not never: where somebody commands all the time, they would fill the disk.
        many = len(self._ledger.generations) > self._s.options.keep_generations + _UNTIDIED
        if self._tidying_due and (many or not self._s.writer.locked()):
            self._tidying_due = False
            await self._ledger.recorder.should([self._ledger.forget_old()])

    async def _sweep(self) -> None:
        # While somebody commands it can wait, but not for ever: it holds everything up for some
        # milliseconds.
        self._unswept += 1
        if self._unswept >= _UNSWEPT or not self._s.writer.locked():
            self._unswept = 0
            collect_if_small()

    async def _record_what_waits(self) -> None:
        waiting = self._ledger.recorder.waiting
        if waiting and not await self._ledger.recorder.should([]):
            self._s.say("warning", "what could not be recorded before is on disk now")

    async def _late_boot(self) -> None:
        if self._boot_due is not None and time.monotonic() >= self._boot_due:
            await self._renew_boot()

    async def _renew_boot(self) -> None:
        self._boot_due = None
        async with self._s.writer.hold():
            live = self._s.live
            jobs = [
                self._ledger.program(live.loaded),
                self._ledger.boot(live.loaded, live.generation),
            ]
        await self._ledger.recorder.should(jobs)
