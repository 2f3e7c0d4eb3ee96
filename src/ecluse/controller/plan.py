"""What a change would do, with nothing done."""

import asyncio
from collections.abc import Callable, Sequence

from ecluse.asymmetric_flows import one_sided_services
from ecluse.controller import live_state as lv
from ecluse.controller import status
from ecluse.controller.context import Context, Notes
from ecluse.controller.live_state import CompiledPolicy, CurrentState
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.startup_decision import carry_over
from ecluse.controller.table.text_diff import difference
from ecluse.errors import NotFoundError, RequestError
from ecluse.flow_judge import ConntrackEntry, FlowJudge, describe_connection
from ecluse.policy import OPEN, Levels, Policy, most_closed
from ecluse.records import Generation
from ecluse.results import LiveFlow, Plan
from ecluse.ruleset import switch
from ecluse.ruleset.program import render
from ecluse.zone_links import LinkReading

_DIFF_LINES = 400
_EXAMPLES = 20


class Planner:
    """Answers 'what would happen', and finds the state that a command means."""

    def __init__(self, shared: Context, ledger: ChangeRecords) -> None:
        self._s = shared
        self._ledger = ledger

    def levels_with(self, level: str, zones: tuple[str, ...] | None) -> dict[str, str]:
        """Give the levels after setting some zones (None: all).

        NotFoundError for an unknown level or zone.
        """
        live = self._s.live
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

    def urgent(self, levels: Callable[[], dict[str, str]]) -> int:
        """Say how urgent these levels are (`Writer`): 2 when they close something that passes now,
        1 when they repeat what stands.

        The one meaning of a closing, by what passes: what is wanted beside what is live
        (`most_closed`). It is asked again whenever the writer's lock goes on, and what is done is
        decided once that is held.
        """
        live = self._s.live
        try:
            wanted = levels()
        except NotFoundError:  # a reload took the level or the zone away
            return 0
        now = dict(live.levels)
        return 1 if wanted == now else 2 * (most_closed(live.policy.site, now, wanted) != now)

    def must_let_nobody_out(self, levels: Levels) -> None:
        """See that a reload does not open everything by taking the last shut zone away.

        RequestError when it would.
        """
        live = self._s.live.levels
        shut = [zone for zone, level in live.items() if level != OPEN.name]
        if shut and set(levels.values()) == {OPEN.name}:
            message = f"the files have no zone {', '.join(shut)} any more, which is shut: without it nothing would be"
            hint = "open it first, or keep it in site.yaml; nothing was changed"
            raise RequestError(message, hint=hint)

    def rollback_target(self, number: int | None) -> Generation:
        """Give the generation that a rollback means: `number`, or the one before.

        NotFoundError, RequestError.
        """
        live = self._s.live
        if number is None and not live.generation.previous:
            raise RequestError(
                "there is no generation before this one", hint="'ecluse history' lists them"
            )
        return self._ledger.generation(live.generation.previous if number is None else number)

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
        live = self._s.live
        if level is not None:
            return await self._compare(live.loaded, self.levels_with(level, zones))
        if rollback is not None:
            target = self.rollback_target(rollback or None)
            policy = await self._s.on_disk(self._s.ports.store.read_policy, target.policy)
            return await self._compare(await self._compiled(policy, target.policy), target.levels)
        policy = await self._s.on_disk(self._s.ports.source.load)
        levels = carry_over(policy.site, policy.zone_names(), live.levels)
        digest = await self._s.on_disk(self._s.ports.store.digest_policy, policy)
        return await self._compare(await self._compiled(policy, digest), levels)

    async def _compiled(self, policy: Policy, digest: str) -> CompiledPolicy:
        live = self._s.live
        if digest == live.loaded.digest:
            return live.loaded
        addresses = lv.addresses_of(self._s.ports.resolver.known())
        slot, uids = live.loaded.slot, self._s.options.uids
        return await asyncio.to_thread(lv.compiled, policy, digest, addresses, slot, uids)

    async def _compare(self, wanted: CompiledPolicy, levels: Levels) -> Plan:
        live = self._s.live
        seen = await self._s.see_links()
        judges = await self._s.judge_of(wanted, levels), await self._s.judge()
        every = await self._s.ports.conntrack.connections()
        await self._s.not_kept(
            judges[0], every
        )  # from here on it knows which ends are routed to the inside
        notes = self._s.notes.copy()
        return await asyncio.to_thread(
            self._compared, live, wanted, levels, seen, judges, every, notes
        )

    def _compared(
        self,
        live: CurrentState,
        wanted: CompiledPolicy,
        levels: Levels,
        seen: LinkReading,
        judges: tuple[FlowJudge, FlowJudge],
        connections: Sequence[ConntrackEntry],
        notes: Notes,
    ) -> Plan:
        """Compare two states, on a thread. judges: of connections after the change, and now."""
        living = seen.living_zones(wanted.policy)
        effect = lv.effect(live, wanted, levels, living)
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
        exits = (one.what for one in notes.bypasses)
        machine = (
            *status.machine_warnings(notes, seen, wanted.policy, levels),
            *status.stale_caches(live.policy, live.levels, wanted.policy, levels),
            *exits,
        )
        return Plan(
            levels=dict(levels),
            digest=wanted.digest,
            diff=_difference(live, wanted, levels),
            policy_changes=lv.describe_policy_change(live.policy, wanted.policy),
            services_kept=effect.kept,
            services_ended=effect.ended,
            connections_kept=kept,
            connections_ended=ended,
            examples_ended=tuple(examples),
            warnings=(
                *machine,
                *one_sided_services(judges[0], connections),
                *map(str, self._s.ports.source.warnings()),
            ),
            connections_opened=opened,
            no_link=effect.no_link,
            not_known=effect.not_known,
            services_opened=effect.opened,
        )


def _difference(live: CurrentState, wanted: CompiledPolicy, levels: Levels) -> tuple[str, ...]:
    """Compare the ruleset texts, both under the live slot, gates included; cut after so many lines,
    and said so.
    """
    old = switch.gate_text(live.policy, live.loaded.slot, live.levels)
    new = switch.gate_text(wanted.policy, live.loaded.slot, levels)
    if wanted.ruleset != live.loaded.ruleset:
        old, new = render(live.loaded.program) + old, render(wanted.program) + new
    lines = difference(old, new)
    if len(lines) > _DIFF_LINES:
        return (*lines[:_DIFF_LINES], f"... and {len(lines) - _DIFF_LINES} more lines")
    return tuple(lines)
