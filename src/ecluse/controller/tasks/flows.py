"""Connections that are not kept: ended after a change, counted after the table was away."""

import asyncio
from collections.abc import Callable, Sequence

from ecluse.alerts import Alerts, error_text
from ecluse.controller.live_state import CompiledPolicy, LiveState
from ecluse.errors import EcluseError
from ecluse.flow_judge import ConntrackEntry, FlowJudge, describe_connection
from ecluse.gateway_flows import MOST_PEERS
from ecluse.interface_zones import InterfaceZones
from ecluse.policy import IPAddress, Levels
from ecluse.ports import Clock, Conntrack, Firewall, Links
from ecluse.records import Generation
from ecluse.results import Leak, Purge

PURGES_REMEMBERED = 100
EXAMPLES = 10
"""How many connections are named where a list is cut short."""


class FlowJudges:
    """Makes judges of connections, which decide as the program in the kernel does."""

    def __init__(self, live: LiveState, firewall: Firewall, links: Links, daemon_uid: int) -> None:
        self._live = live
        self._firewall = firewall
        self._links = links
        self._daemon_uid = daemon_uid
        self._judging = asyncio.Lock()

    async def judge_now(self) -> FlowJudge:
        """Make a judge for the live state."""
        live = self._live.current
        return await self.judge_for(live.loaded, live.levels)

    async def judge_for(self, loaded: CompiledPolicy, levels: Levels) -> FlowJudge:
        """Make a judge for a compiled policy at some levels, with what is learned until now."""
        local = await self._links.local_addresses()
        learned = await self._firewall.learned() if loaded.program.learned else {}
        return loaded.judge(levels, local, self._daemon_uid, learned)

    async def refused(
        self, judge: FlowJudge, connections: Sequence[ConntrackEntry]
    ) -> list[ConntrackEntry]:
        """Give the connections that a judge refuses; on a thread, one such work at a time.

        What goes from inside to inside is none of them, though an end may be in no zone's subnets:
        routes tell. KernelError.
        """

        def judged(those: Sequence[ConntrackEntry]) -> tuple[list[ConntrackEntry], set[IPAddress]]:
            found = [one for one in those if judge.judge(one).verdict == "refused"]
            return found, judge.unplaced_ends(found)

        async with self._judging:
            found, strange = await asyncio.to_thread(judged, connections)
            ways = await self._links.reached_by(strange)
            zones = InterfaceZones(judge.policy)
            inside = [address for address, name in ways.items() if zones.zones_of(name)]
            if not inside:
                return found
            judge.mark_inside(inside)
            return (await asyncio.to_thread(judged, found))[0]

    async def place_near_peers(
        self, judges: Sequence[FlowJudge], connections: Sequence[ConntrackEntry]
    ) -> None:
        """Tell judges which private addresses outside the gateway itself talks to, by its routes.

        For what is only said: nothing is ended on this account. KernelError.
        """
        near = await asyncio.to_thread(judges[0].near_peers, connections)
        ways = await self._links.reached_by(sorted(near, key=str)[:MOST_PEERS])
        zones = InterfaceZones(judges[0].policy)
        outside = [a for a, name in ways.items() if name != "lo" and not zones.zones_of(name)]
        for judge in judges:
            judge.mark_outside(outside)


class FlowTask:
    """Ends connections that are not kept.

    purges: what became of them, by the number of the generation.
    last_leak: the newest, for `status`.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        judges: FlowJudges,
        conntrack: Conntrack,
        clock: Clock,
        alerts: Alerts,
        emit: Callable[[str, str], None],
    ) -> None:
        self._live = live
        self._judges = judges
        self._conntrack = conntrack
        self._clock = clock
        self._alerts = alerts
        self._emit = emit
        self._due: Generation | None = None
        self.purges: dict[int, Purge] = {}
        self.last_leak: Leak | None = None

    def announce_purge(self, generation: Generation) -> None:
        """Say that a purge after this change is under way."""
        self.purges[generation.number] = Purge(generation.number, "running")
        while len(self.purges) > PURGES_REMEMBERED:
            del self.purges[min(self.purges)]

    async def purge(self, generation: Generation) -> None:
        """End the connections that are no longer kept.

        The chains refuse their packets already; this ends offloaded ones too.
        """
        try:
            judged_at = self._live.current.generation.number
            judge, every = await asyncio.gather(
                self._judges.judge_now(), self._conntrack.connections()
            )
            ended = await self._judges.refused(judge, every)
            if self._live.current.generation.number != judged_at:
                # What was opened again meanwhile is not ended; the newer change ends its own.
                ended = []
            gone = await self._conntrack.end(ended) if ended else 0
        except Exception as error:  # noqa: BLE001 - told, and tried again at the regular look
            why = error_text(error)
            self.purges[generation.number] = Purge(generation.number, "failed", error=why)
            self._due = generation
            self._alerts.raise_alert("old-flows-not-ended", error=why)
            return
        if self._due is None or self._due.number <= generation.number:
            self._due = None
            self._alerts.clear("old-flows-not-ended")
        if unread := self._conntrack.unread:
            self._alerts.raise_alert("unknown-flows", count=unread)
        else:
            self._alerts.clear("unknown-flows")
        examples = tuple(describe_connection(one) for one in ended[:EXAMPLES])
        kept = len(every) - len(ended)
        self.purges[generation.number] = Purge(generation.number, "done", gone, kept, examples)
        self._emit("purge", f"{gone} connections were ended, {kept} go on")

    async def retry_purge(self) -> None:
        """Try a purge again that failed."""
        if self._due is not None:
            await self.purge(self._due)

    async def end_leaked(self) -> Leak | None:
        """End connections that are not kept and yet were let through, and count them.

        While the table stood none could come to be. None when there are none, or when they could
        not be counted or ended, which is told.
        """
        try:
            judge = await self._judges.judge_now()
            found = await self._judges.refused(judge, await self._conntrack.connections())
            if not found:
                return None
            self.last_leak = leak = Leak(
                at=self._clock(),
                connections=len(found),
                packets=sum(one.packets for one in found),
                bytes=sum(one.bytes for one in found),
                examples=tuple(describe_connection(one) for one in found[:EXAMPLES]),
            )
            await self._conntrack.end(found)
        except EcluseError as error:
            self._emit("warning", f"leaked connections could not be counted: {error.message}")
            return None
        return leak
