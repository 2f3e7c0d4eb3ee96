"""Keeps the second lock equal to what the live state wants: after a closing, before an opening.

The order is the promise. A closing switches table `inet ecluse`, is answered, and then this task
locks: nothing that a closing waits for can fail for want of a device. What opens or widens is let
through here first (`before_opening`), so that no kept packet meets a lock that is too narrow.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime

from ecluse.alerts import Alerts, error_text
from ecluse.controller.live_state import LiveState
from ecluse.errors import EcluseError
from ecluse.exit_devices import exit_devices
from ecluse.exit_ports import DroppedRow, ExitReading, ExitTable
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
_TOLD = 60.0
"""Seconds for which a way past the gate is told of once, whatever goes by it."""
_EXAMPLES = 3


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
        self._for_boot: str | None = None  # what `boot-lock.nft` is to hold; None: not known
        self._openings = 0  # counts what was let through before the gate
        self._may_stand = True  # one of a run before, until it was looked for
        self._since: datetime | None = None
        self._links_changed = False
        self._culprit = ""  # who changed it last, and how
        self._failure = ""
        self._reading = ExitReading(stands=False)
        self._told: dict[str, float] = {}

    def follow(self) -> None:
        """Have it brought to the live state soon: levels, policy, addresses or links changed."""
        self._wanted.set()

    def hear(self, change: KernelChange) -> None:
        """Have it compared soon: somebody changed its table, or announcements were lost."""
        if not change.lost:
            self._culprit = f"{change.process} (pid {change.pid}): {change.second_lock}"
        self._wanted.set()

    def follow_links(self) -> None:
        """Have it made again although it looks as meant.

        A chain of a device that was renamed, and renamed back, hangs nowhere and is listed as ever.
        """
        self._links_changed = True
        self._wanted.set()

    async def run(self) -> None:
        """Bring it to the live state after each change and regularly, until cancelled."""
        while True:
            await self._bring_or_alert()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick):
                    await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(_AFTER_ANSWER)

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
        if self._for_boot != "":
            self._for_boot = None
            await self._remove_for_boot()
            self._for_boot = ""
        wider = await self._meant(policy, levels)
        if wider is None or self._applied is None:
            await self._remove()
        else:
            await self._apply(union(self._applied, wider))

    async def before_update(self) -> None:
        """Let through the addresses that host names have now, before the gate does. KernelError."""
        if self._applied is not None and self._live.started:
            live = self._live.current
            wider = await self._meant(live.policy, live.levels)
            if wider is not None and union(self._applied, wider) != self._applied:
                await self._apply(union(self._applied, wider))

    def state(self) -> SecondLockState:
        """Give what is known of it, for `status`."""
        live = self._live.current
        setting = live.policy.site.second_lock
        reading = self._reading
        wanted = is_engaged(live.policy, live.levels)
        stands = reading.stands and not reading.faults and not self._failure
        return SecondLockState(
            setting=setting.value,
            wanted=wanted,
            stands=stands,
            why=self._failure or "; ".join(reading.faults) or _why_not(setting, wanted=wanted),
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
            dropped=tuple(_row(one) for one in reading.dropped),
            dropped_full=reading.full,
        )

    # -- the lock ----------------------------------------------------------------------------------

    async def _bring_or_alert(self) -> None:
        if not self._live.started:
            return
        try:
            await self._bring()
        except Exception as error:  # noqa: BLE001 - told, and tried again at the next look
            self._failure = error.message if isinstance(error, EcluseError) else error_text(error)
            self._alerts.raise_alert("second-lock-missing", error=self._failure)
            return
        self._failure = ""
        self._alerts.clear("second-lock-missing")
        await self._tell_of_lost()

    async def _bring(self) -> None:
        live = self._live.current
        meant = await self._meant(live.policy, live.levels)
        again, self._links_changed = self._links_changed, False
        if again or meant != self._applied or (meant is None and self._may_stand):
            meant = await self._change(again=again)
        if meant is None:
            self._store_for_boot("")
            return
        openings = self._openings
        reading = await self._table.read_table(meant)
        if not reading.stands or reading.faults:
            found = "; ".join(reading.faults) or "it was gone"
            found, self._culprit = self._culprit or found, ""
            meant, before = await self._change(again=True), meant
            if meant is None or meant != before:
                self.follow()  # it was changed while it was read
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
        self._store_for_boot(boot_text(meant))

    async def _change(self, *, again: bool = False) -> ExitLock | None:
        """Bring it to the live state under the lock; give what is meant. again: whatever stands."""
        async with self._live.lock.hold():
            live = self._live.current
            meant = await self._meant(live.policy, live.levels)
            if meant is None:
                await self._remove()
            elif again or meant != self._applied:
                await self._apply(meant)
            return meant

    async def _meant(self, policy: Policy, levels: Levels) -> ExitLock | None:
        if not is_engaged(policy, levels):
            return None
        seen = await self._look_at_links()
        if seen.host is None:
            raise EcluseError(seen.trouble)
        # What the DNS gate learned is the table's own affair (kernel/exit_learned.py).
        return exit_lock(policy, levels, self._addresses(), (), exit_devices(policy, seen.host))

    async def _apply(self, lock: ExitLock) -> None:
        await self._table.apply(lock)
        await self._count_commit()
        if self._applied is None:
            self._since = self._clock()
        self._applied, self._may_stand = lock, True

    async def _remove(self) -> None:
        if self._applied is not None or (
            self._may_stand and (await self._table.read_table(None)).stands
        ):
            await self._table.remove()
            await self._count_commit()
        self._may_stand, self._applied, self._since = False, None, None
        self._reading = ExitReading(stands=False)
        self._alerts.clear("way-past-gate")
        self._told.clear()

    def _store_for_boot(self, text: str) -> None:
        """Have the lock stored for the boot, soon: nothing here waits for a disk that hangs."""
        if text != self._for_boot:
            self._store_text(text)
            self._for_boot = text

    # -- the witness -------------------------------------------------------------------------------

    async def _tell_of_lost(self) -> None:
        """Tell what the lock dropped: the gate did not refuse it, so it went another way."""
        lost = sum(one.lost.packets for one in self._reading.counts)
        if not lost:
            return
        rows = sorted(self._reading.dropped, key=lambda one: -one.packets)
        some = "; ".join(_row_text(one) for one in rows[:_EXAMPLES]) or "not recorded"
        where = ", ".join(one.device for one in self._reading.counts if one.lost.packets)
        self._alerts.raise_alert("way-past-gate", packets=lost, devices=where, examples=some)
        now = asyncio.get_running_loop().time()
        self._told = {text: at for text, at in self._told.items() if now - at < _TOLD}
        new = [text for one in rows if (text := _way(one)) not in self._told]
        if new:
            self._told |= dict.fromkeys(new, now)
            what = f"the second lock dropped what went past the gate: {some}"
            line = AuditRecord("exit", self._itself, what, levels=self._live.current.levels)
            await self._append_line(line)


def _why_not(setting: SecondLock, *, wanted: bool) -> str:
    if wanted:
        return "not looked at yet"
    if setting is SecondLock.OFF:
        return "switched off in site.yaml"
    if setting is SecondLock.CUT:
        return "a zone is open"
    return "only while every zone is at a level that keeps nothing"


def _row(one: DroppedRow) -> DroppedOutside:
    return DroppedOutside(
        one.source, one.destination, one.protocol, one.port, one.ethertype, one.packets
    )


def _way(one: DroppedRow) -> str:
    return f"{one.source} {one.destination} {one.ethertype}"


def _row_text(one: DroppedRow) -> str:
    if one.ethertype:
        return f"frames of ethertype {one.ethertype:#06x} by {one.source} ({one.packets})"
    return f"{one.source} to {one.destination} ({one.packets} packets)"
