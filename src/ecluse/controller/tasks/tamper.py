"""Heals the gate's table: hears the kernel's announcements, puts back what others changed, says who
and what got through.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace

from ecluse.controller import live_state as lv
from ecluse.controller import status
from ecluse.controller.context import Command, Context
from ecluse.controller.live_state import CurrentState
from ecluse.controller.lock import always
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.tasks.alarm_throttle import AlarmThrottle
from ecluse.controller.tasks.supervisor import Supervisor, in_words
from ecluse.errors import EcluseError
from ecluse.flow_judge import describe_connection
from ecluse.policy import most_closed
from ecluse.ports import KernelChange
from ecluse.records import Action, AuditRecord, Generation
from ecluse.results import Leak, Tamper

DNS_GATE = "ecluse-dns"
"""What the process of the DNS gate calls itself; nobody else has to touch its sets."""
EXAMPLES = 10
"""How many connections are named where a list is cut short."""
_TRY_AGAIN = 0.03
"""Seconds without news of others after which the table is put back once more, where the kernel
refused.
"""
_PATIENCE = 1.0
"""Seconds after which it is tried again although they go on."""
_BREATH = 1.0
"""Seconds of a fight that what follows a healing (counting leaks, holding the generation before
ready) waits for quiet.
"""


class Reconciler:
    """See the module.

    watches: does something beside. afterwards: ends what is no longer kept, after a change of
    state.

    arm: holds the generation before ready again.
    """

    def __init__(
        self,
        shared: Context,
        ledger: ChangeRecords,
        watches: Supervisor,
        afterwards: Callable[[Generation], None],
        arm: Callable[[], Coroutine[object, object, object]],
    ) -> None:
        self._s = shared
        self._ledger = ledger
        self._watches = watches
        self._afterwards = afterwards
        self._arm = arm
        self._kernel: AsyncIterator[KernelChange] | None = None
        self._first: KernelChange | None = None
        self._more = self._before = 0
        self._heard = 0.0
        self._news = asyncio.Event()
        self._fight = AlarmThrottle()
        self._restored = 0.0
        self._following: object | None = None

    @property
    def pending(self) -> bool:
        """Say whether a change is still to be compared, or to be put back in another try."""
        return self._first is not None

    def listen(self) -> None:
        """Hear the kernel's announcements from now on."""
        self._kernel = self._s.ports.firewall.changes()

    async def hear(self) -> None:
        """Take note of what others did, until cancelled."""
        if self._kernel is not None:
            async for change in self._kernel:
                try:
                    self._take(change)
                except Exception as error:  # noqa: BLE001 - what could not be understood is compared
                    self._watches.fault(
                        "hearing of a change of the table", error, "all of it is compared"
                    )
                    self._note(change)
        self.listen()  # it came to an end: what happened until now may be missed
        self._note(
            KernelChange("", 0, ours=False, touched=True, what="events came to an end", lost=True)
        )

    def _take(self, change: KernelChange) -> None:
        """Note one change.

        Where the table is gone, the smallest one shuts the gate before anything is asked.
        """
        if not change.lost and (change.ours or not change.touched):
            if not change.ours:
                self._s.gate.left_alone(change.generation)
            if change.filled and change.process != DNS_GATE:
                who = f"{change.process} (pid {change.pid})"
                self._s.say(
                    "warning", f"{who} changed addresses of the DNS gate: set {change.filled}"
                )
            return
        if (change.gone or change.lost) and self._s.started:
            live = self._s.live
            with contextlib.suppress(EcluseError):  # the healing comes right after it, and tells
                self._s.gate.guard(live.policy, live.levels)
        self._note(change)

    def compare(self, what: str) -> None:
        """Compare as after a change of others: our own transaction may have left what is not live.

        what: after what.
        """
        itself = self._s.itself
        self._note(KernelChange(itself.user, itself.pid, ours=True, touched=True, what=what))

    def _note(self, change: KernelChange) -> None:
        self._more += 1
        if self._first is None:
            self._first, self._heard = change, time.monotonic()
        self._news.set()

    async def heal(self) -> None:
        """Compare and put back after each change, several in one where they come faster than that,
        until cancelled.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            if self._first is None:
                continue
            change, heard = self._first, self._heard
            fresh, self._first, self._more = self._more, None, 0
            try:
                await self._check_after(change, fresh, heard)
            except Exception as error:  # noqa: BLE001 - whatever it is, the table is not whole: it is tried again
                self._failed(in_words(error), change)
                # Nothing is forgotten: who began it is told once it is put back.
                self._first, self._heard = change, heard
                self._before += fresh
                await self._quiet()
                self._news.set()
            else:
                self._before = 0

    async def _quiet(self) -> None:
        """Wait until others leave the table alone for a moment, but not for ever.

        Whoever deletes it faster than it can be loaded meets the smallest table instead (`_hear`):
        that costs little and is there at once, while a load that is bound to fail would keep us
        from it.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while True:
                    self._news.clear()
                    try:
                        async with asyncio.timeout(_TRY_AGAIN):
                            await self._news.wait()
                    except TimeoutError:
                        return

    def _failed(self, why: str, change: KernelChange) -> None:
        text = f"our table was changed and could not be restored: {why}"
        warnings = self._s.notes.warnings
        if warnings.get("tamper") != text and not self._fight.lasting:
            self._s.say("tamper", text)
        warnings["tamper"] = text
        self._s.notes.in_step = False
        if self._fight.lasting:
            who = f"{change.process or 'somebody'} (pid {change.pid})"
            self._tell(f"{who} began, and the table is not whole since")

    async def _check_after(self, change: KernelChange, times: int, heard: float) -> None:
        async with self._s.writer.hold(always):
            live = self._s.live
            if await self._s.gate.in_step(live.loaded, live.levels):
                self._s.notes.warnings.pop("tamper", None)
                return
            what = (
                change.what
                if not change.lost
                else "kernel events were lost, and the table is not what it was"
            )
            if times + self._before > 1:
                what += f"; and {times + self._before - 1} more of others' changes before it was whole again"
            await self.restore(change.process, change.pid, what, times=times, heard=heard)

    async def restore(
        self, process: str, pid: int, what: str, *, times: int = 1, heard: float | None = None
    ) -> None:
        """Put the live state back into the kernel, say who changed it, and count what got through
        meanwhile.

        The caller holds the writer's lock. Other policies that were held ready are loaded again
        later.
        """
        began = time.monotonic() if heard is None else heard
        # Nobody is accused where we only lost count: others committed between our own transactions.
        accused = bool(process or pid) or not self._s.gate.unsure
        who = f"{process or 'somebody'} (pid {pid})" if pid else process or "somebody"
        now = self._s.ports.clock()
        if accused:
            self._fight.note(now, process, pid, times)
        live, followed = await self._as_closed_by_hand(who)
        loaded = await self._s.gate.bring_up(
            live.policy,
            live.loaded.digest,
            lv.addresses_of(self._s.ports.resolver.known()),
            live.levels,
        )
        self._restored = time.monotonic()
        took = (self._restored - began) * 1000
        self._s.live = replace(live, loaded=loaded)
        self._s.notes.in_step = True
        self._s.notes.warnings.pop("tamper", None)
        if self._following is None:
            self._following = self._watches.aside(self._follow_up())
        if not accused:
            self._s.say(
                "warning", "others changed rules at the same time as we did: ours were put in anew"
            )
            return
        self._s.notes.tamper = Tamper(self._s.ports.clock(), process, pid, what, round(took, 1))
        done = (
            f"followed: {status.levels_text(live.levels)}"
            if followed
            else f"put back in {took:.0f} ms"
        )
        self._tell(f"{who} changed the gate's table ({what}); {done}", followed=followed)
        if followed:
            self._ledger.generations[live.generation.number] = live.generation
            self._watches.aside(self._ledger.closing(loaded, live.generation))
            self._afterwards(live.generation)

    def _tell(self, text: str, *, followed: bool = False) -> None:
        """Say and record one change; in a fight now and then how it goes, whatever the number of
        rounds.
        """
        if self._fight.lasting:
            self._s.notes.warnings["fight"] = (
                f"{self._fight.words()}; it is put back each time, but packets get through in between and kept "
                "services stall: find what runs it and stop it ('ecluse events' tells who)"
            )
            if not self._fight.due() and not followed:
                return
            self._record("fight", f"{self._fight.words()}; the newest: {text}")
            return
        self._record("tamper", text)

    def _record(self, event: str, text: str) -> None:
        self._s.say(event, text)
        line = AuditRecord(event, self._s.itself, text, levels=self._s.live.levels)
        self._watches.aside(self._ledger.recorder.should([self._ledger.audit(line)]))

    def rest(self) -> None:
        """Look now and then whether a fight is over, and say so."""
        words = self._fight.over()
        if words:
            self._s.notes.warnings.pop("fight", None)
            self._record("fight", f"{words}; it is over")

    async def _as_closed_by_hand(self, who: str) -> tuple[CurrentState, bool]:
        """Give the state to put back: the live one, more closed where somebody loaded such by hand;
        and whether that is so.

        'nft -f ruleset/cut.nft' is what we tell people to type when the daemon does not answer:
        only a command opens.
        """
        live = self._s.live
        found = await self._s.gate.kernel_levels(live.policy)
        closed = most_closed(live.policy.site, live.levels, found or {})
        if closed == dict(live.levels):
            return live, False
        order = Command(Action.RECOVERY, self._s.itself, f"{who} closed the gate by hand", "")
        return CurrentState(live.loaded, self._ledger.next(order, live.loaded, closed)), True

    async def _follow_up(self) -> None:
        """Do what follows a healing: at once after a single one, in a fight once there is quiet, or
        now and then.
        """
        try:
            if self._fight.lasting:
                await asyncio.sleep(_BREATH)
            seen = -1.0
            while seen != self._restored:  # healed again meanwhile: there may be more to end
                seen = self._restored
                await self._count_leak()
                if self._fight.lasting:
                    await asyncio.sleep(_BREATH)
        finally:
            self._following = None
        await self._arm()

    async def _count_leak(self) -> None:
        """Find connections that are not kept and yet were let through: while the table stood none
        could come to be.
        """
        try:
            judge = await self._s.judge()
            found = await self._s.not_kept(judge, await self._s.ports.conntrack.connections())
            if not found:
                return
            leak = Leak(
                at=self._s.ports.clock(),
                connections=len(found),
                packets=sum(one.packets for one in found),
                bytes=sum(one.bytes for one in found),
                examples=tuple(describe_connection(one) for one in found[:EXAMPLES]),
            )
            self._s.notes.leak = leak
            text = (
                f"while the table was away about {leak.packets} packets of {leak.connections} connections that "
                f"are not kept were let through: {'; '.join(leak.examples[:3])}"
            )
            await self._s.ports.conntrack.end(found)
            if self._fight.lasting:
                self._fight.leaked(leak.packets)
                return
            self._s.say("leak", text)
            line = AuditRecord("leak", self._s.itself, text, levels=self._s.live.levels)
            await self._ledger.recorder.should([self._ledger.audit(line)])
        except EcluseError as error:
            self._s.say("warning", f"what got through could not be counted: {error.message}")
