"""The effect of a change, with nothing done; and the state that a command means."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ecluse.alerts import KINDS, Alerts
from ecluse.asymmetric_flows import one_sided_services
from ecluse.bypass import MachineWarning
from ecluse.controller import live_state as ls
from ecluse.controller.live_state import CompiledPolicy, CurrentState, LiveState
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.table.text_diff import difference
from ecluse.errors import NotFoundError, RequestError
from ecluse.flow_judge import ConntrackEntry, FlowJudge, describe_connection
from ecluse.gateway_flows import MOST_ROWS, ended_flows
from ecluse.policy import OPEN, Addresses, Levels, Policy, carry_over, most_closed
from ecluse.ports import Conntrack, PolicySource
from ecluse.records import Generation
from ecluse.results import LiveFlow, Plan
from ecluse.ruleset import switch
from ecluse.ruleset.program_text import render
from ecluse.translated_flows import translated_warnings
from ecluse.zone_links import LinkReading

_DIFF_LINES = 400
_EXAMPLES = 20


class Planner:
    """Answers 'what would happen', and finds the state that a command means.

    Args:
        live, records: the state that is compared with, and those that one can go back to.
        source: the site's files.
        conntrack: the live connections.
        addresses: gives the addresses of host names.
        uids: as for `TableManager`.
        look_at_links: reads the machine's links.
        judge_for: makes a judge of connections for a compiled policy at some levels.
        find_refused: gives the connections that a judge refuses; it learns by that which ends are
            routed to the inside.
        place_near_peers: tells judges which private addresses are outside.
        bypasses: gives what was found that may carry packets past the gate, and what carries kept
            services and would end, for a policy at some levels.
        alerts: those that stand.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        records: ChangeRecords,
        source: PolicySource,
        conntrack: Conntrack,
        addresses: Callable[[], Addresses],
        uids: tuple[int, ...],
        look_at_links: Callable[[], Awaitable[LinkReading]],
        judge_for: Callable[[CompiledPolicy, Levels], Awaitable[FlowJudge]],
        find_refused: Callable[[FlowJudge, Sequence[ConntrackEntry]], Awaitable[object]],
        place_near_peers: Callable[
            [Sequence[FlowJudge], Sequence[ConntrackEntry]], Awaitable[None]
        ],
        bypasses: Callable[[Policy, Levels], tuple[MachineWarning, ...]],
        alerts: Alerts,
    ) -> None:
        self._live = live
        self._records = records
        self._source = source
        self._conntrack = conntrack
        self._addresses = addresses
        self._uids = uids
        self._look_at_links = look_at_links
        self._judge_for = judge_for
        self._find_refused = find_refused
        self._place_near_peers = place_near_peers
        self._bypasses = bypasses
        self._alerts = alerts

    # -- the state that a command means ------------------------------------------------------------

    def levels_with(self, level: str, zones: tuple[str, ...] | None) -> dict[str, str]:
        """Give the levels after setting some zones (None: all).

        NotFoundError for an unknown level or zone.
        """
        live = self._live.current
        known = [one.name for one in live.policy.site.levels]
        if level not in known:
            raise NotFoundError(f"there is no level '{level}'", hint="levels: " + ", ".join(known))
        every = live.policy.zone_names()
        for zone in zones or ():
            if zone not in every:
                raise NotFoundError(f"there is no zone '{zone}'", hint="zones: " + ", ".join(every))
        return {
            zone: level if zones is None or zone in zones else live.levels[zone] for zone in every
        }

    def urgency(self, levels: Callable[[], dict[str, str]]) -> int:
        """Say how urgent these levels are (`PriorityLock`).

        2 when they close something that passes now, 1 when they repeat what stands. This is the one
        meaning of a closing, by what passes: the levels beside those that are live. It is asked
        again whenever the lock goes on, and what is done is decided once that is held.
        """
        live = self._live.current
        try:
            asked = levels()
        except NotFoundError:  # a reload took the level or the zone away
            return 0
        now = dict(live.levels)
        return 1 if asked == now else 2 * (most_closed(live.policy.site, now, asked) != now)

    def levels_for(self, policy: Policy) -> Levels:
        """Give the levels that a policy from the files would have.

        RequestError when it would open everything, by taking the last shut zone away.
        """
        live = self._live.current.levels
        levels = carry_over(policy.site, policy.zone_names(), live)
        shut = [zone for zone, level in live.items() if level != OPEN.name]
        if shut and set(levels.values()) == {OPEN.name}:
            message = (
                f"the files have no zone {', '.join(shut)} any more, which is shut: "
                "without it nothing would be"
            )
            hint = "open it first, or keep it in site.yaml; nothing was changed"
            raise RequestError(message, hint=hint)
        return levels

    def rollback_target(self, number: int | None) -> Generation:
        """Give the generation that a rollback means: `number`, or the one before.

        NotFoundError, RequestError.
        """
        live = self._live.current
        if number is None and not live.generation.previous:
            raise RequestError(
                "there is no generation before this one", hint="'ecluse history' lists them"
            )
        return self._records.generation(live.generation.previous if number is None else number)

    # -- what would happen -------------------------------------------------------------------------

    async def plan(
        self,
        *,
        level: str | None,
        zones: tuple[str, ...] | None,
        rollback: int | None,
        reload: bool,
    ) -> Plan:
        """Say what one of the three changes would do.

        RequestError unless exactly one is asked for.
        """
        if (level is not None) + (rollback is not None) + reload != 1:
            raise RequestError("a plan is for one of: a level, a rollback, a reload")
        live = self._live.current
        if level is not None:
            return await self._compare(live.loaded, self.levels_with(level, zones))
        if rollback is not None:
            target = self.rollback_target(rollback or None)
            policy = await self._records.read_policy(target.policy)
            return await self._compare(await self._compiled(policy, target.policy), target.levels)
        policy = await self._records.on_disk(self._source.load)
        levels = carry_over(policy.site, policy.zone_names(), live.levels)
        digest = await self._records.digest_policy(policy)
        return await self._compare(await self._compiled(policy, digest), levels)

    async def _compiled(self, policy: Policy, digest: str) -> CompiledPolicy:
        loaded = self._live.current.loaded
        if digest == loaded.digest:
            return loaded
        return await asyncio.to_thread(
            ls.compiled, policy, digest, self._addresses(), loaded.slot, self._uids
        )

    async def _compare(self, planned: CompiledPolicy, levels: Levels) -> Plan:
        live = self._live.current
        seen = await self._look_at_links()
        now = self._live.current
        judges = (
            await self._judge_for(planned, levels),
            await self._judge_for(now.loaded, now.levels),
        )
        every = await self._conntrack.connections()
        await self._find_refused(judges[0], every)
        await self._place_near_peers(judges, every)
        machine = (
            *self._alerts.texts(),
            *seen.machine_warnings(planned.policy, cut=ls.closed_somewhere(planned.policy, levels)),
            *ls.stale_caches(live.policy, live.levels, planned.policy, levels),
            *(one.what for one in self._bypasses(planned.policy, levels)),
        )
        return await asyncio.to_thread(
            self._compared, live, planned, levels, seen, judges, every, machine
        )

    def _compared(
        self,
        live: CurrentState,
        planned: CompiledPolicy,
        levels: Levels,
        seen: LinkReading,
        judges: tuple[FlowJudge, FlowJudge],
        connections: Sequence[ConntrackEntry],
        warnings: tuple[str, ...],
    ) -> Plan:
        """Compare two states, on a thread. judges: of connections after the change, and now."""
        living = seen.living_zones(planned.policy)
        effect = ls.effect(live, planned, levels, living)
        kept, ended, opened = 0, 0, 0
        examples: list[LiveFlow] = []
        for one in connections:
            flow = judges[0].judge(one)
            passes_now = judges[1].judge(one).verdict != "refused"
            stays = flow.verdict != "refused" and not (
                flow.verdict == "kept" and living[flow.zone] is False
            )
            if stays:
                kept += passes_now
                opened += not passes_now
            elif passes_now:
                ended += 1
                if len(examples) < _EXAMPLES:
                    examples.append(LiveFlow(describe_connection(one), flow.zone, ""))
        gateways = ended_flows(judges[0], connections, judges[1])
        translated = translated_warnings(judges[0], connections, self._addresses())
        return Plan(
            levels=dict(levels),
            digest=planned.digest,
            diff=_text_difference(live, planned, levels),
            policy_changes=ls.describe_policy_change(live.policy, planned.policy),
            services_kept=effect.kept,
            services_ended=effect.ended,
            connections_kept=kept,
            connections_ended=ended,
            examples_ended=tuple(examples),
            warnings=(
                *warnings,
                *(
                    KINDS["asymmetric-flows"].text.format(service=service, count=count)
                    for service, count in one_sided_services(judges[0], connections).items()
                ),
                *translated,
                *map(str, self._source.warnings()),
            ),
            connections_opened=opened,
            no_link=effect.no_link,
            not_known=effect.not_known,
            services_opened=effect.opened,
            gateway_ended=gateways[:MOST_ROWS],
            gateway_ended_more=max(0, len(gateways) - MOST_ROWS),
        )


def _text_difference(
    live: CurrentState, planned: CompiledPolicy, levels: Levels
) -> tuple[str, ...]:
    """Compare the ruleset texts, both under the live slot, the switch included.

    Cut after so many lines, and said so.
    """
    old = switch.switch_text(live.policy, live.loaded.slot, live.levels)
    new = switch.switch_text(planned.policy, live.loaded.slot, levels)
    if planned.ruleset != live.loaded.ruleset:
        old, new = render(live.loaded.program) + old, render(planned.program) + new
    lines = difference(old, new)
    if len(lines) > _DIFF_LINES:
        return (*lines[:_DIFF_LINES], f"... and {len(lines) - _DIFF_LINES} more lines")
    return tuple(lines)
