"""What is in the kernel now, as values, and what a change means for services. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address

from ecluse.flow_judge import FlowJudge
from ecluse.gc_pause import without_gc
from ecluse.policy import Addresses, Criticality, Levels, Policy
from ecluse.records import Generation, KnownName
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
    """A policy that stands in the kernel under a slot, compiled with the addresses of the moment.

    digest: of the policy. ruleset: of the compiled text. Both are made when it is loaded, never
    during a trigger.
    seal: makes `ruleset` anew for other addresses of names, at the cost of the names.
    indices: what judges of connections look up in, made once.
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
        """Make a judge of connections at these levels; it costs the same whatever the allowlist's
        size.

        learned: what the DNS gate put into its sets.
        """
        return FlowJudge(
            self.policy, self.program, levels, local, daemon_uid, self.indices, learned
        )


@without_gc()
def compiled(
    policy: Policy, digest: str, addresses: Addresses, slot: int, uids: tuple[int, ...]
) -> CompiledPolicy:
    """Compile a policy for a slot, with all that a trigger will ask of it."""
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
    """The state that is applied: which loaded policy, at which levels, recorded as which
    generation.
    """

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
    """Give the zones in which a level keeps a service (those where everything passes, or no packet
    comes, are not among them).
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
