"""Reconciliation after tampering: hears the kernel's announcements, and restores our table.

It says who changed the table, and what leaked meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

from ecluse.alerts import Alerts, error_text
from ecluse.controller.live_state import LiveState
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.table.manager import TableManager
from ecluse.controller.tasks.alarm_throttle import AlarmThrottle
from ecluse.errors import EcluseError
from ecluse.policy import levels_text, most_closed
from ecluse.ports import Clock, Firewall, KernelChange
from ecluse.records import Action, Actor, AuditRecord, Command, Generation
from ecluse.results import Leak, Tamper

DNS_PROCESS = "ecluse-dns"
"""What the process of the DNS proxy calls itself; nobody else has to touch its sets."""
_TRY_AGAIN = 0.03
"""Seconds without foreign changes after which the kernel is asked once more, where it refused."""
_PATIENCE = 1.0
"""Seconds after which it is tried again although they go on."""
_PAUSE = 1.0
"""Seconds that the work after a restoration waits for quiet, in a series of changes."""


class Reconciler:
    """Compares the table with the live state after each foreign change, and restores it.

    last_tamper: the newest, for `status`.

    Args:
        live, table, records: what is compared, restored and written.
        firewall: announces changes.
        clock: gives the time now.
        itself: the daemon, as an actor.
        run_aside: runs something beside everything else.
        report_fault: takes the name of a piece of work that failed, and its error.
        after_change: begins the work after a change of the live state.
        end_leaked: ends connections that leaked, and counts them.
        keep_previous_ready: loads the policy again that a rollback would go back to.
        hear_second_lock: takes a change of the second lock's table by others.
        alerts, emit: take alerts and events.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        table: TableManager,
        records: ChangeRecords,
        firewall: Firewall,
        clock: Clock,
        itself: Actor,
        run_aside: Callable[[Coroutine[object, object, object]], object],
        report_fault: Callable[[str, BaseException], None],
        after_change: Callable[[Generation], None],
        end_leaked: Callable[[], Awaitable[Leak | None]],
        keep_previous_ready: Callable[[], Coroutine[object, object, None]],
        hear_second_lock: Callable[[KernelChange], None],
        alerts: Alerts,
        emit: Callable[[str, str], None],
    ) -> None:
        self._live = live
        self._table = table
        self._records = records
        self._firewall = firewall
        self._clock = clock
        self._itself = itself
        self._run_aside = run_aside
        self._report_fault = report_fault
        self._after_change = after_change
        self._end_leaked = end_leaked
        self._keep_previous_ready = keep_previous_ready
        self._hear_second_lock = hear_second_lock
        self._alerts = alerts
        self._emit = emit
        self.last_tamper: Tamper | None = None
        self._announcements: AsyncIterator[KernelChange] | None = None
        # The first change that is not compared yet, when it was heard, how many came since it, and
        # how many were part of tries that failed.
        self._first: KernelChange | None = None
        self._heard_at = 0.0
        self._changes = self._changes_before = 0
        self._heard = asyncio.Event()
        self._throttle = AlarmThrottle()
        self._restored_at = 0.0
        self._following: object | None = None

    @property
    def pending(self) -> bool:
        """Say whether a change is still to be compared, or to be put back in another try."""
        return self._first is not None

    # -- hearing -----------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear the kernel's announcements from now on."""
        self._announcements = self._firewall.changes()

    async def hear(self) -> None:
        """Take what the kernel announces, until cancelled."""
        if self._announcements is not None:
            async for change in self._announcements:
                try:
                    self._take(change)
                except Exception as error:  # noqa: BLE001 - what could not be understood is compared
                    self._report_fault("hearing of a change of the table", error)
                    self._request_check(change)
        self.listen()  # it came to an end: what happened until now may be missed
        self._request_check(
            KernelChange("", 0, ours=False, touched=True, what="events came to an end", lost=True)
        )

    def _take(self, change: KernelChange) -> None:
        """Take one change. Where the table is gone, the smallest one shuts the gate at once."""
        if change.lost or (change.second_lock and not change.ours):
            self._hear_second_lock(change)
        if not change.lost and (change.ours or not change.touched):
            if not change.ours:
                self._table.tracker.ignore_foreign(change.generation)
            if change.filled and change.process != DNS_PROCESS:
                who = f"{change.process} (pid {change.pid})"
                self._emit(
                    "warning", f"{who} changed addresses of the DNS gate: set {change.filled}"
                )
            return
        if (change.gone or change.lost) and self._live.started:
            live = self._live.current
            # The restoration comes right after it, and tells what fails.
            with contextlib.suppress(EcluseError):
                self._table.guard(live.policy, live.levels)
        self._request_check(change)

    def request_check(self, after: str) -> None:
        """Have the table compared soon, as after a foreign change.

        Our own transaction may have left what is not live. after: what happened, in words.
        """
        itself = self._itself
        self._request_check(
            KernelChange(itself.user, itself.pid, ours=True, touched=True, what=after)
        )

    def _request_check(self, change: KernelChange) -> None:
        self._changes += 1
        if self._first is None:
            self._first, self._heard_at = change, time.monotonic()
        self._heard.set()

    # -- restoring ---------------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Compare and restore after each change, until cancelled.

        Several changes are one comparison where they come faster than that.
        """
        while True:
            await self._heard.wait()
            self._heard.clear()
            if self._first is None:
                continue
            change, heard_at = self._first, self._heard_at
            fresh, self._first, self._changes = self._changes, None, 0
            try:
                await self._check_after(change, fresh, heard_at)
            except Exception as error:  # noqa: BLE001 - the table is not whole: tried again
                self._report_failure(error_text(error), change)
                # Nothing is forgotten: who began it is told once it is put back.
                self._first, self._heard_at = change, heard_at
                self._changes_before += fresh
                await self._wait_for_quiet()
                self._heard.set()
            else:
                self._changes_before = 0

    async def _wait_for_quiet(self) -> None:
        """Wait until others leave the table alone for a moment, but not for ever.

        Who deletes it faster than it can be loaded meets the smallest table instead (`_take`):
        that costs little and is there at once, while a load that is bound to fail would keep us
        from it.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while True:
                    self._heard.clear()
                    try:
                        async with asyncio.timeout(_TRY_AGAIN):
                            await self._heard.wait()
                    except TimeoutError:
                        return

    def _report_failure(self, why: str, change: KernelChange) -> None:
        self._alerts.raise_alert("table-not-restored", quiet=self._throttle.lasting, error=why)
        self._live.in_step = False
        if self._throttle.lasting:
            who = f"{change.process or 'somebody'} (pid {change.pid})"
            self._report_change(f"{who} began, and the table is not whole since")

    async def _check_after(self, change: KernelChange, times: int, heard_at: float) -> None:
        async with self._live.lock.hold_urgently():
            live = self._live.current
            if await self._table.in_step(live.loaded, live.levels):
                self._alerts.clear("table-not-restored")
                return
            what = (
                change.what
                if not change.lost
                else "kernel events were lost, and the table is not what it was"
            )
            more = times + self._changes_before - 1
            if more:
                what += f"; and {more} more of others' changes before it was whole again"
            await self.restore(
                what, process=change.process, pid=change.pid, times=times, heard_at=heard_at
            )

    async def restore(
        self,
        what: str,
        *,
        process: str = "",
        pid: int = 0,
        times: int = 1,
        heard_at: float | None = None,
    ) -> None:
        """Put the live state back into the kernel, say who changed it, and count what leaked.

        The caller holds the lock. Other policies that were loaded are loaded again later.

        Args:
            what: what was done to the table, in words.
            process: who did it, as the kernel says; empty when that is not known.
            pid: its process id, or 0.
            times: how many changes this makes good.
            heard_at: when the first of them was heard (seconds of time.monotonic), None: now.
        """
        began = time.monotonic() if heard_at is None else heard_at
        # Nobody is accused where we only lost count: others committed between our own transactions.
        accused = bool(process or pid) or not self._table.tracker.unsure
        who = f"{process or 'somebody'} (pid {pid})" if pid else process or "somebody"
        now = self._clock()
        if accused:
            self._throttle.count_change(now, process, pid, times)
        live = self._live.current
        by_hand = await self._closed_by_hand(who)
        generation = by_hand or live.generation
        loaded = await self._table.bring_up(live.policy, live.loaded.digest, generation.levels)
        self._restored_at = time.monotonic()
        took = (self._restored_at - began) * 1000
        self._live.set(loaded, generation)
        self._live.in_step = True
        self._alerts.clear("table-not-restored")
        if self._following is None:
            self._following = self._run_aside(self._follow_up())
        if not accused:
            self._emit(
                "warning", "others changed rules at the same time as we did: ours were put in again"
            )
            return
        self.last_tamper = Tamper(self._clock(), process, pid, what, round(took, 1))
        done = f"put back in {took:.0f} ms"
        if by_hand:
            done = f"followed: {levels_text(generation.levels)}"
        text = f"{who} changed the gate's table ({what}); {done}"
        self._report_change(text, followed=by_hand is not None)
        if by_hand:
            self._records.generations[generation.number] = generation
            self._run_aside(self._records.closing(loaded, generation))
            self._after_change(generation)

    async def recheck(self) -> None:
        """Restore the table if the last look found it out of step."""
        if self._live.in_step:
            return
        async with self._live.lock.hold():
            live = self._live.current
            if not await self._table.in_step(live.loaded, live.levels):
                await self.restore("found out of step by the regular look")

    async def _closed_by_hand(self, who: str) -> Generation | None:
        """Give the record of a state that somebody loaded by hand, if it is more closed.

        'nft -f ruleset/cut.nft' is what we tell people to type when the daemon does not answer:
        only a command opens.
        """
        live = self._live.current
        found = await self._table.kernel_levels(live.policy)
        closed = most_closed(live.policy.site, live.levels, found or {})
        if closed == dict(live.levels):
            return None
        command = Command(Action.RECOVERY, self._itself, f"{who} closed the gate by hand", "")
        return self._records.next_generation(command, live.loaded, closed)

    # -- telling -----------------------------------------------------------------------------------

    def _report_change(self, text: str, *, followed: bool = False) -> None:
        """Tell and record one change; in a series, now and then how it goes."""
        throttle = self._throttle
        if not throttle.lasting:
            self._tell_and_record("tamper", text)
            return
        self._alerts.raise_alert(
            "table-changed-repeatedly",
            processes=throttle.processes(),
            times=throttle.times,
            began=throttle.began,
        )
        if throttle.take_alarm() or followed:
            self._tell_and_record("fight", f"{throttle.text()}; the newest: {text}")

    def _tell_and_record(self, event: str, text: str) -> None:
        self._emit(event, text)
        line = AuditRecord(event, self._itself, text, levels=self._live.current.levels)
        self._run_aside(self._records.append_lines(line))

    async def end_series(self) -> None:
        """Look whether a series of changes is over, and say so."""
        text = self._throttle.take_end()
        if text:
            self._alerts.clear("table-changed-repeatedly")
            self._tell_and_record("fight", f"{text}; it is over")

    async def _follow_up(self) -> None:
        """Do the work after a restoration: at once, or in a series once there is quiet."""
        try:
            if self._throttle.lasting:
                await asyncio.sleep(_PAUSE)
            seen = -1.0
            while seen != self._restored_at:  # restored again meanwhile: there may be more to end
                seen = self._restored_at
                await self._count_leak()
                if self._throttle.lasting:
                    await asyncio.sleep(_PAUSE)
        finally:
            self._following = None
        await self._keep_previous_ready()

    async def _count_leak(self) -> None:
        leak = await self._end_leaked()
        if leak is None:
            return
        if self._throttle.lasting:
            self._throttle.add_leaked(leak.packets)
            return
        text = (
            f"while the table was away about {leak.packets} packets of {leak.connections} "
            f"connections that are not kept were let through: {'; '.join(leak.examples[:3])}"
        )
        self._emit("leak", text)
        line = AuditRecord("leak", self._itself, text, levels=self._live.current.levels)
        await self._records.append_lines(line)
