"""Keeps the second lock equal to what the live state wants: after a closing, before an opening.

The order is the promise. A closing switches table `inet ecluse`, is answered, and then this task
locks: nothing that a closing waits for can fail for want of a device. What opens or widens is let
through here first (`before_opening`), so that no kept packet meets a lock that is too narrow.

A large lock takes a second. A closing that comes meanwhile does not wait: the work goes on without
the lock of the live state. That is safe, for what a closing leaves is never wider.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, replace
from datetime import datetime
from secrets import randbits
from typing import Any

from ecluse.alerts import Alerts, error_text
from ecluse.controller.live_state import CurrentState, LiveState
from ecluse.errors import EcluseError, KernelError
from ecluse.exit_devices import exit_devices, unwritable_devices
from ecluse.exit_ports import ExitReading, ExitTable
from ecluse.policy import Addresses, Levels, Policy, SecondLock
from ecluse.ports import Clock, KernelChange
from ecluse.records import Actor, AuditRecord
from ecluse.results import DroppedOutside, ExitDeviceState, SecondLockState
from ecluse.ruleset.exit_lock import exit_lock, is_engaged, union
from ecluse.ruleset.exit_text import boot_text
from ecluse.ruleset.exit_values import ExitLock
from ecluse.zone_links import LinkReading

_AFTER_ANSWER = 0.004
"""Seconds that a new lock leaves to the answer of its closing: both want the same processor."""
_PATIENCE = 0.1
"""Seconds that a closing waits for a transaction under way: most take 0.04 s."""
_COUNTED = 0.1
"""Seconds that an answer waits for the counters."""
_BEING_SET = 10.0
"""Seconds after which one that does not stand yet is missing; 100,000 addresses take one."""
_TOLD = 60.0
"""Seconds for which a way past the gate is told of once, whatever goes by it."""
_EXAMPLES = 3
_MOST_DEVICES = 50
"""Devices that one line of the audit log names."""


class SecondLockTask:
    """Makes, restates, reads and removes the second lock.

    Args:
        live: the live state; its lock is held for each transaction.
        table: table `netdev ecluse_exit`.
        count_commit: counts a transaction of ours that changed nothing of table `inet ecluse`.
        look_at_links: reads the machine's interfaces.
        addresses: gives the addresses that host names have now.
        store_for_boot: stores the lock for the boot, soon; an empty text removes it.
        remove_for_boot: removes it now, within the time that a record has. StateError.
        append_line: appends a line to the audit log.
        itself: the daemon, as an actor.
        tick: seconds between two regular readings.
        clock, alerts, emit: time, alerts, events.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        table: ExitTable,
        count_commit: Callable[[], Awaitable[None]],
        look_at_links: Callable[[], Awaitable[LinkReading]],
        addresses: Callable[[], Addresses],
        store_for_boot: Callable[[str], None],
        remove_for_boot: Callable[[], Awaitable[None]],
        append_line: Callable[[AuditRecord], Awaitable[object]],
        itself: Actor,
        tick: float,
        clock: Clock,
        alerts: Alerts,
        emit: Callable[[str, str], None],
    ) -> None:
        self._live = live
        self._table = table
        self._count_commit = count_commit
        self._look_at_links = look_at_links
        self._addresses = addresses
        self._store_text = store_for_boot
        self._remove_for_boot = remove_for_boot
        self._append_line = append_line
        self._itself = itself
        self._tick = tick
        self._clock = clock
        self._alerts = alerts
        self._emit = emit
        self._wanted = asyncio.Event()
        self._applied: ExitLock | None = None
        self._for_boot: ExitLock | None = None  # what `boot-lock.nft` is to hold, where known
        self._for_boot_known = False
        self._openings = 0  # counts what was let through before the gate
        self._may_stand = True  # one of a run before, until it was looked for
        self._work: asyncio.Future[None] | None = None
        self._asked: float | None = None  # since when one is to stand and does not
        self._unlocked: tuple[str, ...] = ()
        self._since: datetime | None = None
        self._series = randbits(32)  # what a run before made is not known to be as it should
        self._renames = self._made_for = 0  # those heard of, and those that it was made again for
        self._culprit = ""  # who changed it last, and how
        self._failure = ""
        self._reading = ExitReading(stands=False)
        self._told: dict[str, float] = {}
        self._levels: Levels | None = None  # for which what left was counted up to now
        self._to_record: list[str] = []

    def follow(self) -> None:
        """Have it brought to the live state soon: levels, policy, addresses or links changed."""
        self._asked = self._asked or time.monotonic()
        self._wanted.set()

    def hear(self, change: KernelChange) -> None:
        """Have it compared soon: somebody changed its table, or announcements were lost."""
        if not change.lost:
            self._culprit = f"{change.process} (pid {change.pid}): {change.second_lock}"
        self._wanted.set()

    def follow_renamed(self) -> None:
        """Have it made again although it looks as meant: a device may have been renamed.

        The chain of one that was renamed hangs nowhere and is listed as ever (seen on 6.18).
        """
        self._renames += 1
        self._wanted.set()

    async def run(self) -> None:
        """Bring it to the live state after each change and regularly, until cancelled."""
        self._asked = time.monotonic()
        while True:
            await self._bring_or_alert()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick):
                    await self._wanted.wait()
            await asyncio.sleep(_AFTER_ANSWER)
            self._wanted.clear()

    async def before_opening(self, policy: Policy, levels: Levels) -> None:
        """Let through what these levels of a policy will keep, before the gate does.

        The caller holds the lock of the live state.

        Raises:
            KernelError, StateError: the lock stands as before, and the gate is not to be opened.
        """
        self._openings += 1
        if not self._may_stand:
            return
        # On disk first: no boot may meet a lock that is narrower than its gate.
        if not self._for_boot_known or self._for_boot is not None:
            self._for_boot_known = False
            await self._remove_for_boot()
            self._for_boot, self._for_boot_known = None, True
        await self._transact(lambda: self._widen(policy, levels))

    async def before_update(self) -> Addresses:
        """Let through the addresses that names have now; the gate gets these alone. KernelError."""
        addresses = self._addresses()
        if self._may_stand and self._live.started:
            await self._transact(lambda: self._widen_for_names(addresses))
        return addresses

    def stands(self) -> bool:
        """Say whether it was as it should be when it was last looked at."""
        return self._reading.stands and not self._wrong()

    def _wrong(self) -> str:
        return self._failure or "; ".join(self._reading.faults)

    def state(self) -> SecondLockState:
        """Give what is known of it, for `status`."""
        live = self._live.current
        setting = live.policy.site.second_lock
        reading = self._reading
        wanted = is_engaged(live.policy, live.levels)
        stands = self.stands()
        soon = self._asked is not None and time.monotonic() - self._asked < _BEING_SET
        being_set = soon and wanted and not stands and not self._wrong()
        why = "" if stands else _why_not(setting, wanted=wanted, being_set=being_set)
        return SecondLockState(
            setting=setting.value,
            wanted=wanted,
            stands=stands,
            why=self._wrong() or why,
            since=self._since if stands else None,
            devices=tuple(
                ExitDeviceState(
                    one.device,
                    one.kept4.packets + one.kept6.packets,
                    one.link.packets,
                    one.lost.packets,
                )
                for one in reading.counts
            ),
            dropped=tuple(DroppedOutside(**asdict(one)) for one in reading.dropped),
            dropped_full=reading.full,
            being_set=being_set,
        )

    async def count(self) -> None:
        """Bring the counts of `state` to this moment, if that is quick. It never raises."""
        lock, before = self._applied, self._reading
        if lock is None or not before.stands or (self._work and not self._work.done()):
            return
        with contextlib.suppress(EcluseError, TimeoutError):
            async with asyncio.timeout(_COUNTED):
                now = await self._table.read_counts(lock)
            if now.stands and self._reading is before:
                self._reading = replace(now, faults=before.faults, hooks_read=before.hooks_read)
                if self._alert_of_lost() and _lost(now) > _lost(before):
                    self._wanted.set()  # recorded soon, too

    # -- the lock ----------------------------------------------------------------------------------

    async def _bring_or_alert(self) -> None:
        if not self._live.started:
            return
        try:
            await self._bring()
        except _OvertakenError:
            return  # nothing is wrong: it goes on as soon as what was more urgent is done
        except Exception as error:  # noqa: BLE001 - told, and tried again at the next look
            self._failure = error.message if isinstance(error, EcluseError) else error_text(error)
            self._alerts.raise_alert("second-lock-missing", error=self._failure)
            return
        self._failure = ""
        if self._reading.stands or not self.state().wanted:
            self._asked = None
        if self._applied and self._unlocked:
            self._failure = f"not locked, for no rule can name them: {', '.join(self._unlocked)}"
        if wrong := self._wrong():
            self._alerts.raise_alert("second-lock-missing", error=wrong)
        else:
            self._alerts.clear("second-lock-missing")
        await self._tell_of_lost()
        while self._to_record:
            await self._append(self._to_record.pop(0))

    async def _bring(self) -> None:
        live = self._live.current
        meant = await self._meant(live.policy, live.levels)
        renames, renamed = self._renames, self._renames != self._made_for
        if meant is None and not self._may_stand:
            # One that somebody loaded by hand would drop what is open, in silence.
            self._may_stand = (await self._table.read_table(None)).stands
        stale = meant != self._applied or (meant is None and self._may_stand)
        if (renamed or stale) and not await self._change(live, meant, whole=renamed):
            return
        self._made_for = renames
        if meant is None:
            await self._store_for_boot(None)
            return
        openings = self._openings
        reading = await self._table.read_table(meant)
        if not reading.stands or reading.faults:
            found = self._culprit or "; ".join(reading.faults) or "it was gone"
            if meant != self._applied:
                self.follow()
                return
            self._series = randbits(32)
            meant = await self._meant(live.policy, live.levels)
            if not await self._change(live, meant, whole=True):
                return
            what = f"the second lock was put back: {found}"
            self._emit("tamper", what)
            line = AuditRecord("tamper", self._itself, what, levels=self._live.current.levels)
            await self._append_line(line)
            reading = await self._table.read_table(meant)
        if openings != self._openings:
            self.follow()  # the gate opens meanwhile: what was read is of before
            return
        self._reading, self._culprit = reading, ""
        if self._levels is not None and dict(self._levels) != dict(live.levels):
            self._count_up("the levels changed under the second lock", reading)
        self._levels = live.levels
        await self._store_for_boot(meant)

    async def _change(self, live: CurrentState, meant: ExitLock | None, *, whole: bool) -> bool:
        """Bring it to what a live state wants; False: that is not live any more.

        whole: every device's chains (`ExitTable.apply`).
        """
        async with self._live.lock.hold():
            if self._live.current is not live:
                self.follow()
                return False
            await self._transact(
                lambda: self._apply(meant, whole=whole) if meant else self._remove()
            )
        return True

    async def _transact(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Carry it out, after what is under way. The caller holds the lock of the live state.

        Raises:
            KernelError: it failed, or something urgent wants that lock; what began goes on then.
        """
        if self._work is not None:
            with contextlib.suppress(EcluseError):
                await self._wait(self._work)
            if not self._work.done():
                raise _OvertakenError
        self._work = asyncio.ensure_future(work())
        await self._wait(self._work)

    async def _wait(self, work: asyncio.Future[None]) -> None:
        await asyncio.wait({work}, timeout=_PATIENCE)
        urgent = asyncio.ensure_future(self._live.lock.urgent_waiting.wait())
        try:
            either: set[asyncio.Future[Any]] = {work, urgent}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            urgent.cancel()
        if not work.done():
            self.follow()
            raise _OvertakenError
        work.result()

    async def _meant(
        self, policy: Policy, levels: Levels, addresses: Addresses | None = None
    ) -> ExitLock | None:
        if not is_engaged(policy, levels):
            return None
        seen = await self._look_at_links()
        if seen.host is None:
            raise EcluseError(seen.trouble)
        self._unlocked = unwritable_devices(policy, seen.host)
        devices = exit_devices(policy, seen.host)
        # What the DNS gate learned is the table's own affair (kernel/exit_learned.py). A large
        # list takes its time: not on the event loop.
        now = self._addresses() if addresses is None else addresses
        return await asyncio.to_thread(exit_lock, policy, levels, now, (), devices, self._series)

    async def _widen(self, policy: Policy, levels: Levels) -> None:
        wider = await self._meant(policy, levels)
        if wider is None or self._applied is None:
            await self._remove()
        else:
            await self._apply(union(self._applied, wider))

    async def _widen_for_names(self, addresses: Addresses) -> None:
        live = self._live.current
        wider = await self._meant(live.policy, live.levels, addresses)
        if wider is not None:
            lock = union(self._applied, wider) if self._applied else wider
            if lock != self._applied:
                await self._apply(lock)

    async def _apply(self, lock: ExitLock, *, whole: bool = False) -> None:
        self._may_stand = True  # whatever fails after the kernel took it
        await self._table.apply(lock, whole=whole)
        await self._count_commit()
        if self._applied is None:
            self._since = self._clock()
        self._applied = lock

    async def _remove(self) -> None:
        if self._applied is not None:
            last = self._reading
            with contextlib.suppress(EcluseError):
                last = await self._table.read_table(self._applied)
            self._count_up("the second lock goes", last)
        if self._applied is not None or (
            self._may_stand and (await self._table.read_table(None)).stands
        ):
            await self._table.remove()
            await self._count_commit()
        self._may_stand, self._applied, self._since = False, None, None
        self._reading, self._levels = ExitReading(stands=False), None
        self._alerts.clear("way-past-gate")
        self._told.clear()

    async def _store_for_boot(self, lock: ExitLock | None) -> None:
        """Have the lock stored for the boot, soon: nothing here waits for a disk that hangs."""
        if self._for_boot_known and lock == self._for_boot:
            return
        openings = self._openings
        text = await asyncio.to_thread(boot_text, lock) if lock else ""
        if openings == self._openings:
            self._store_text(text)
            self._for_boot, self._for_boot_known = lock, True

    # -- the witness -------------------------------------------------------------------------------

    def _alert_of_lost(self) -> str:
        """Tell what the lock dropped: the gate did not refuse it, so it went another way."""
        lost = _lost(self._reading)
        if not lost:
            return ""
        rows = sorted(self._reading.dropped, key=lambda one: -one.packets)
        some = "; ".join(str(one) for one in rows[:_EXAMPLES]) or "not recorded"
        where = ", ".join(one.device for one in self._reading.counts if one.lost.packets)
        self._alerts.raise_alert("way-past-gate", packets=lost, devices=where, examples=some)
        return some

    async def _tell_of_lost(self) -> None:
        some = self._alert_of_lost()
        now = asyncio.get_running_loop().time()
        self._told = {text: at for text, at in self._told.items() if now - at < _TOLD}
        new = [one.way for one in self._reading.dropped if one.way not in self._told]
        if some and new:
            self._told |= dict.fromkeys(new, now)
            what = f"the second lock dropped what went past the gate: {some}"
            await self._append(what)

    def _count_up(self, why: str, reading: ExitReading) -> None:
        """Have put on record what left since it stands, once nobody waits."""
        left = [
            f"{one.device} {one.kept4.packets + one.kept6.packets} to what is kept, "
            f"{one.link.packets} of the link itself, {one.lost.packets} dropped"
            for one in reading.counts
            if one.kept4.packets or one.kept6.packets or one.link.packets or one.lost.packets
        ]
        since = f"{self._since:%Y-%m-%dT%H:%M:%SZ}" if self._since else "an earlier run"
        what = "; ".join(left[:_MOST_DEVICES]) or "nothing"
        self._to_record.append(f"{why}; packets that left since {since}: {what}")

    async def _append(self, what: str) -> None:
        levels = self._live.current.levels
        await self._append_line(AuditRecord("exit", self._itself, what, levels=levels))


class _OvertakenError(KernelError):
    """A closing wants the lock of the live state."""

    def __init__(self) -> None:
        super().__init__("something more urgent came first", hint="repeat it", retry=True)


def _lost(reading: ExitReading) -> int:
    return sum(one.lost.packets for one in reading.counts)


def _why_not(setting: SecondLock, *, wanted: bool, being_set: bool) -> str:
    if wanted:
        return "it is being set" if being_set else f"not set within {_BEING_SET:.0f} s"
    if setting is SecondLock.OFF:
        return "switched off in site.yaml"
    if setting is SecondLock.CUT:
        return "a zone is open"
    return "only while every zone is at a level that keeps nothing"
