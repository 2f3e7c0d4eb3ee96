"""What is in the kernel now, as values, and what a change means for services. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address

from ecluse.bulk import without_gc
from ecluse.flows import FlowJudge
from ecluse.policy import Addresses, Criticality, Levels, Policy
from ecluse.records import Generation, KnownName
from ecluse.ruleset.compile import compile_program, zones_of
from ecluse.ruleset.compile import with_addresses as readdressed
from ecluse.ruleset.oracle import Indices
from ecluse.ruleset.program import Program
from ecluse.ruleset.switch import Seal


@dataclass(frozen=True, slots=True)
class Use:
    """A service as far as levels are concerned."""

    service: str
    criticality: Criticality
    zones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy that stands in the kernel under a slot, compiled with the addresses of the moment.

    digest: of the policy. ruleset: of the compiled text. Both are made when it is loaded, never during a trigger.
    seal: makes `ruleset` anew for other addresses of names, at the cost of the names.
    indices: what judges of connections look up in, made once.
    """

    policy: Policy
    digest: str
    program: Program
    ruleset: str
    uses: tuple[Use, ...]
    seal: Seal = field(repr=False, compare=False)
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
        """Make a judge of connections at these levels; it costs the same whatever the allowlist's size.

        learned: what the DNS gate put into its sets.
        """
        return FlowJudge(self.policy, self.program, levels, local, daemon_uid, self.indices, learned)


@without_gc()
def compiled(policy: Policy, digest: str, addresses: Addresses, slot: int, uids: tuple[int, ...]) -> Loaded:
    """Compile a policy for a slot, with all that a trigger will ask of it."""
    program = compile_program(policy, addresses, slot, uids)
    uses = tuple(Use(s.name, s.criticality, zones_of(policy, s)) for s in policy.services)
    seal = Seal(program)
    return Loaded(policy, digest, program, seal.digest(program), uses, seal)


def with_addresses(loaded: Loaded, addresses: Addresses) -> Loaded:
    """Give the same policy in the same slot with other addresses of host names."""
    program = readdressed(loaded.program, loaded.policy, addresses)
    return replace(loaded, program=program, ruleset=loaded.seal.digest(program))


@dataclass(frozen=True, slots=True)
class Live:
    """The state that is applied: which loaded policy, at which levels, recorded as which generation."""

    loaded: Loaded
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
        name: tuple(ip_address(item.address) for item in entry.addresses) for name, entry in known.items()
    }


DNS_PORT = 53


def servers_of(policy: Policy) -> tuple[tuple[str, int], ...]:
    """Give the site's resolvers as the resolver port wants them."""
    return tuple((str(address), DNS_PORT) for address in policy.site.resolvers)


def kept_in(loaded: Loaded, use: Use, levels: Levels) -> tuple[str, ...]:
    """Give the zones in which a level keeps a service (those where everything passes are not among them)."""
    by_name = {level.name: level for level in loaded.policy.site.levels}
    return tuple(
        zone
        for zone in use.zones
        if not by_name[levels[zone]].passes_all and use.criticality in by_name[levels[zone]].keeps
    )


def states(loaded: Loaded, levels: Levels) -> dict[str, str]:
    """Say in a word what each service is at these levels: `kept`, `partly kept`, `closed` or `open`."""
    by_name = {level.name: level for level in loaded.policy.site.levels}
    known: dict[tuple[Criticality, tuple[str, ...]], str] = {}
    result: dict[str, str] = {}
    for use in loaded.uses:
        kind = (use.criticality, use.zones)
        if kind not in known:
            there = [by_name[levels[zone]] for zone in use.zones]
            passing = sum(level.passes_all for level in there)
            kept = sum(not level.passes_all and use.criticality in level.keeps for level in there)
            if passing == len(there):
                known[kind] = "open"
            elif passing + kept == len(there):
                known[kind] = "kept"
            else:
                known[kind] = "partly kept" if passing + kept else "closed"
        result[use.service] = known[kind]
    return result


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change of state does to services. kept: a level keeps them after it. ended: passed before and do not after."""

    kept: tuple[str, ...]
    ended: tuple[str, ...]


def effect(before: Live, after: Loaded, levels: Levels) -> Effect:
    """Compare two states, service by service."""
    old, new = states(before.loaded, before.levels), states(after, levels)
    passed = [name for name, state in old.items() if state != "closed"]
    return Effect(
        kept=tuple(name for name, state in new.items() if state in {"kept", "partly kept"}),
        ended=tuple(name for name in passed if new.get(name, "closed") == "closed"),
    )


def describe_policy_change(old: Policy, new: Policy) -> tuple[str, ...]:
    """Say in words what differs between two policies, service by service, then the site."""
    before = {s.name: s for s in old.services}
    after = {s.name: s for s in new.services}
    lines = [
        f"service {name} is new ({one.criticality})" for name, one in after.items() if name not in before
    ]
    lines += [f"service {name} is gone" for name in before if name not in after]
    for name, one in after.items():
        if name in before and before[name] != one:
            changed = [f.name for f in fields(one) if getattr(before[name], f.name) != getattr(one, f.name)]
            lines.append(f"service {name} changes: {', '.join(changed)}")
    lines += [
        f"site.yaml changes: {f.name}"
        for f in fields(new.site)
        if getattr(old.site, f.name) != getattr(new.site, f.name)
    ]
    return tuple(lines)
