"""The state that is applied, as values, and what a change of it means for services.

Pure, but for `LiveState`, which holds the one state that changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from ipaddress import ip_address
from itertools import islice

from ecluse.controller.lock import PriorityLock
from ecluse.dns_cache_advice import flush
from ecluse.errors import EcluseError
from ecluse.flow_judge import FlowJudge
from ecluse.gc_pause import without_gc
from ecluse.policy import (
    GATEWAY,
    Addresses,
    Criticality,
    Levels,
    Policy,
    at_least_as_closed,
    level_named,
    levels_text,
)
from ecluse.records import Action, Generation, KnownName
from ecluse.ruleset import dns_redirect
from ecluse.ruleset.compile import compile_program, zones_by_service
from ecluse.ruleset.compile import with_addresses as readdressed
from ecluse.ruleset.program import Program
from ecluse.ruleset.simulator import Indices
from ecluse.ruleset.switch import BootText


@dataclass(frozen=True, slots=True)
class Use:
    """A service as far as levels are concerned."""

    service: str
    criticality: Criticality
    zones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy compiled for a slot in the kernel, with the addresses of the moment.

    digest: of the policy. ruleset: digest of the compiled text. Both are made when it is loaded,
    never during a command.
    seal: makes `ruleset` for other addresses of names, at the cost of the names alone.
    indices: tables for judges of connections, made once.
    """

    policy: Policy
    digest: str
    program: Program
    ruleset: str
    uses: tuple[Use, ...]
    seal: BootText = field(repr=False, compare=False)
    indices: Indices = field(default_factory=Indices, repr=False, compare=False)

    @property
    def slot(self) -> int:
        """Give the slot that it stands under."""
        return self.program.slot

    def judge(
        self,
        levels: Levels,
        local: frozenset[str],
        daemon_uid: int,
        learned: Mapping[str, frozenset[int]],
    ) -> FlowJudge:
        """Make a judge of connections, at a cost that does not go with the allowlist's size.

        Args:
            levels: at which it judges.
            local: the gateway's own addresses.
            daemon_uid: the daemon's user, whose look-ups pass.
            learned: addresses in the DNS proxy's sets, as numbers, by set.
        """
        return FlowJudge(
            self.policy, self.program, levels, local, daemon_uid, self.indices, learned
        )


@without_gc()
def compiled(
    policy: Policy, digest: str, addresses: Addresses, slot: int, uids: tuple[int, ...]
) -> CompiledPolicy:
    """Compile a policy for a slot, with all that a command will need of it."""
    program = compile_program(policy, addresses, slot, uids)
    used = zones_by_service(policy)
    uses = tuple(Use(s.name, s.criticality, used[s.name]) for s in policy.services)
    seal = BootText(program)
    return CompiledPolicy(policy, digest, program, seal.digest(program), uses, seal)


def with_addresses(loaded: CompiledPolicy, addresses: Addresses) -> CompiledPolicy:
    """Give the same policy in the same slot with other addresses of host names."""
    program = readdressed(loaded.program, loaded.policy, addresses)
    return replace(loaded, program=program, ruleset=loaded.seal.digest(program))


@dataclass(frozen=True, slots=True)
class CurrentState:
    """The state that is applied: a compiled policy at the levels of a generation."""

    loaded: CompiledPolicy
    generation: Generation

    @property
    def levels(self) -> Levels:
        """Give the level of every zone."""
        return self.generation.levels

    @property
    def policy(self) -> Policy:
        """Give the policy that is live."""
        return self.loaded.policy


class LiveState:
    """The state that is applied now, and the lock under which it changes.

    Only the holder of `lock` sets `current` or changes the kernel's table.

    closings: how often something was closed in this run, or was commanded to be as it already was;
    one more where the start itself found it closed by something else than the newest record.
    in_step: the kernel showed the state when it was last compared, at `checked`.
    """

    def __init__(self) -> None:
        self.lock = PriorityLock()
        self.closings = 0
        self.in_step = True
        self.checked: datetime | None = None
        self._current: CurrentState | None = None

    @property
    def current(self) -> CurrentState:
        """Give the state. EcluseError while the daemon is still starting."""
        if self._current is None:
            raise EcluseError(
                "the daemon is still starting", retry=True, hint="try again in a moment"
            )
        return self._current

    def set(self, loaded: CompiledPolicy, generation: Generation) -> None:
        """Make this the live state."""
        levels = generation.levels
        before = self._current.levels if self._current else levels
        if not at_least_as_closed(loaded.policy.site, before, levels):
            self.closings += 1
        self._current = CurrentState(loaded, generation)

    def replace_loaded(self, loaded: CompiledPolicy) -> None:
        """Keep the generation, whose policy is compiled again: other addresses, another slot."""
        self._current = replace(self.current, loaded=loaded)

    @property
    def started(self) -> bool:
        """Say whether there is a live state yet."""
        return self._current is not None

    def summary(self) -> tuple[int, Levels]:
        """Give the number and the levels of the live generation; 0 and none before there is one."""
        live = self._current
        return (live.generation.number, live.levels) if live else (0, {})


def addresses_of(known: Mapping[str, KnownName]) -> Addresses:
    """Give the plain addresses of resolved names, for the compiler."""
    return {
        name: tuple(ip_address(item.address) for item in entry.addresses)
        for name, entry in known.items()
    }


DNS_PORT = 53


def servers_of(policy: Policy) -> tuple[tuple[str, int], ...]:
    """Give the site's resolvers as the resolver port wants them."""
    return tuple((str(address), DNS_PORT) for address in policy.site.resolvers)


Living = Mapping[str, bool | None]
"""Of every zone: whether one of its interfaces lives; None where that is not known."""


def kept_in(loaded: CompiledPolicy, use: Use, levels: Levels, living: Living) -> tuple[str, ...]:
    """Give the zones in which a level keeps a service.

    Zones where everything passes, or by which no packet comes, are not among them.
    """
    by_name = {level.name: level for level in loaded.policy.site.levels}
    return tuple(
        zone
        for zone in use.zones
        if living[zone]
        and not by_name[levels[zone]].passes_all
        and use.criticality in by_name[levels[zone]].keeps
    )


def states(loaded: CompiledPolicy, levels: Levels, living: Living) -> dict[str, str]:
    """Say in a word what each service is at these levels.

    `kept`, `partly kept`, `closed`, `open`; `no link` and `not known` where a level keeps it, but
    in zones that have no living interface, or whose links could not be looked at.
    """
    known: dict[tuple[Criticality, tuple[str, ...]], str] = {}
    result: dict[str, str] = {}
    for use in loaded.uses:
        kind = (use.criticality, use.zones)
        if kind not in known:
            known[kind] = _state(loaded, use, levels, living)
        result[use.service] = known[kind]
    return result


def _state(loaded: CompiledPolicy, use: Use, levels: Levels, living: Living) -> str:
    by_name = {level.name: level for level in loaded.policy.site.levels}
    there = {zone: by_name[levels[zone]] for zone in use.zones}
    passing = sum(level.passes_all for level in there.values())
    judged = [
        zone
        for zone, level in there.items()
        if not level.passes_all and use.criticality in level.keeps
    ]
    kept = sum(living[zone] is True for zone in judged)
    if passing == len(there):
        return "open"
    if passing + kept == len(there):
        return "kept"
    if passing + kept:
        return "partly kept"
    if not judged:
        return "closed"
    return "not known" if any(living[zone] is None for zone in judged) else "no link"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change of state does to services.

    kept: a level keeps them after it. ended: passed before and do not after.

    opened: passed nowhere before, and do after.
    no_link, not_known: a level keeps them, and no zone of theirs has a living interface, or that
    could not be looked at.
    """

    kept: tuple[str, ...]
    ended: tuple[str, ...]
    no_link: tuple[str, ...]
    not_known: tuple[str, ...]
    opened: tuple[str, ...]


def effect(before: CurrentState, after: CompiledPolicy, levels: Levels, living: Living) -> Effect:
    """Compare two states, service by service. living: of the zones of `after`."""
    unknown: Living = dict.fromkeys(before.policy.zone_names())
    old, new = states(before.loaded, before.levels, unknown), states(after, levels, living)

    def of(*words: str) -> tuple[str, ...]:
        return tuple(name for name, state in new.items() if state in words)

    opened = tuple(
        name for name in of("kept", "partly kept", "open") if old.get(name, "closed") == "closed"
    )
    passed = [name for name, state in old.items() if state != "closed"]
    ended = tuple(name for name in passed if new.get(name, "closed") == "closed")
    return Effect(of("kept", "partly kept"), ended, of("no link"), of("not known"), opened)


def describe_policy_change(old: Policy, new: Policy) -> tuple[str, ...]:
    """Say in words what differs between two policies, service by service, then the site."""
    before = {s.name: s for s in old.services}
    after = {s.name: s for s in new.services}
    lines = [
        f"service {name} is new ({one.criticality})"
        for name, one in after.items()
        if name not in before
    ]
    lines += [f"service {name} is gone" for name in before if name not in after]
    for name, one in after.items():
        if name in before and before[name] != one:
            changed = [
                f.name for f in fields(one) if getattr(before[name], f.name) != getattr(one, f.name)
            ]
            lines.append(f"service {name} changes: {', '.join(changed)}")
    lines += [
        f"site.yaml changes: {f.name}"
        for f in fields(new.site)
        if getattr(old.site, f.name) != getattr(new.site, f.name)
    ]
    return tuple(lines)


_DOMAINS = 5
"""Wildcards that one warning names."""


def stale_caches(before: Policy, left: Levels, policy: Policy, levels: Levels) -> tuple[str, ...]:
    """Say of which wildcards DNS servers inside may have addresses that were never learned.

    So it is when zones come under the DNS proxy. Such an address is refused until it is asked for
    again.

    Args:
        before: the policy until now.
        left: its levels.
        policy: the policy from now on.
        levels: its levels.
    """
    come = {
        zone
        for zone in policy.zone_names()
        if zone != GATEWAY
        and dns_redirect.redirects(policy, levels, zone)
        and not (zone in left and dns_redirect.redirects(before, left, zone))
    }
    if not come:
        return ()
    known = tuple(s for s in policy.services if any(d.wildcards for d in s.destinations))
    used = zones_by_service(replace(policy, services=known))
    domains = dict.fromkeys(
        wildcard
        for service in known
        for zone in come.intersection(used[service.name])
        if service.criticality in level_named(policy.site, levels[zone]).keeps
        for destination in service.destinations
        for wildcard in destination.wildcards
    )
    if not domains:
        return ()
    some = ", ".join(f"*.{one}" for one in islice(domains, _DOMAINS))
    more = f" and {len(domains) - _DOMAINS} more" if len(domains) > _DOMAINS else ""
    each = "" if len(domains) == 1 else ", and so for each"
    text = (
        f"DNS servers and machines inside may hold addresses of {some}{more} from before, which "
        "the DNS gate never learned: they are refused until they are asked for again. "
        f"Type on the servers: {flush(next(iter(domains)))}{each}"
    )
    return (text,)


def change_text(generation: Generation) -> str:
    """Say what a change made live, and by whom."""
    what = {
        Action.ROLLBACK: f"went back to generation {generation.back_to}: ",
        Action.RELOAD: "took the files' allowlist: ",
    }.get(generation.action, "")
    reason = f" ({generation.reason})" if generation.reason else ""
    return f"{generation.actor.user} {what}{levels_text(generation.levels)}{reason}"


def closed_somewhere(policy: Policy, levels: Levels) -> bool:
    """Say whether some zone is not at a level where everything passes."""
    return not all(level_named(policy.site, level).passes_all for level in levels.values())
