"""The chains around the look-ups: hooks, dispatch by interface, gates, levels, refusal."""

from collections.abc import Sequence

from ecluse.policy import GATEWAY, Criticality, Direction, Policy, Zone, network_interval
from ecluse.ruleset import dns_redirect, table_names
from ecluse.ruleset import program as p
from ecluse.ruleset.disjoint import Box, disjoint
from ecluse.ruleset.dns_redirect import ByName
from ecluse.ruleset.families import FAMILIES, Family
from ecluse.ruleset.ingress import BY_VRF, by_link, from_inside
from ecluse.ruleset.program import Chain, Field, Key, NamedSet, Part, Rule
from ecluse.ruleset.service_maps import GroupLookups
from ecluse.ruleset.source_check import SPOOFED

REJECTS_PER_SECOND = 1000
"""Answers to what is refused without TCP; a flood gets silence beyond it, and costs the gateway
nothing.
"""


def subnet_sets(policy: Policy, slot: int) -> list[NamedSet]:
    """Give a set of the subnets of each zone that has several of a family, so that a spoofed source
    is not kept.
    """
    sets = []
    for zone in policy.site.zones:
        for family in FAMILIES:
            boxes = _boxes(zone, family)
            if len(boxes) > 1:
                name = table_names.subnet_set(slot, family.digit, zone.name)
                sets.append(NamedSet(name, (family.type,), True, "", dict(disjoint(boxes))))
    return [*sets, *_answered_sets(policy, slot)]


def _boxes(zone: Zone, family: Family) -> list[Box]:
    return [((network_interval(s),), "") for s in zone.subnets if s.version == family.version]


def _within(zone: Zone, family: Family, field: Field, slot: int) -> tuple[Part, ...]:
    """Say 'of this family, and the field is in one of the zone's subnets'; a single one is compared
    and not looked up.

    Empty when the zone has no subnet of the family.
    """
    boxes = _boxes(zone, family)
    if not boxes:
        return ()
    this_family = p.Match(p.NFPROTO, (family.nfproto,))
    if len(boxes) == 1:
        return (this_family, p.Match(field, (boxes[0][0][0],)))
    return (this_family, p.InSet((field,), table_names.subnet_set(slot, family.digit, zone.name)))


def _answered_sets(policy: Policy, slot: int) -> list[NamedSet]:
    """Give the subnets of all zones together: only a source of theirs gets an answer when it is
    refused.
    """
    sets = []
    for family in FAMILIES:
        boxes: list[Box] = [
            ((network_interval(s),), "")
            for zone in policy.site.zones
            for s in zone.subnets
            if s.version == family.version
        ]
        if boxes:
            sets.append(
                NamedSet(_answered(slot, family), (family.type,), True, "", dict(disjoint(boxes)))
            )
    return sets


def _answered(slot: int, family: Family) -> str:
    return f"{table_names.prefix(slot)}answered{family.digit}"


_WORDS = ((Direction.OUTBOUND, "out"), (Direction.INBOUND, "in"))


def zone_subnet_sets(policy: Policy, slot: int) -> dict[Family, str]:
    """Name the sets of all zones' subnets."""
    versions = {s.version for zone in policy.site.zones for s in zone.subnets}
    return {family: _answered(slot, family) for family in FAMILIES if family.version in versions}


def zone_chains(
    policy: Policy, kept: list[GroupLookups], learned: list[ByName], slot: int
) -> list[Chain]:
    """Judge a zone's traffic at each level: look-ups for connections of its own, then for those
    opened towards it.

    They say what is kept, and nothing of the rest: what becomes of that is the hook's to say.
    """
    chains: list[Chain] = []
    for level in policy.site.levels:
        if level.passes_all:
            continue
        for zone in policy.site.zones:
            here = table_names.level_chain(slot, level.name, zone.name)
            rules: list[Rule] = []
            for direction, word in _WORDS:
                for family in FAMILIES:
                    lookups = _lookups_at(kept, zone.name, level.keeps, direction, family)
                    inner = (
                        family.original_source
                        if direction is Direction.OUTBOUND
                        else family.reply_source
                    )
                    guard = _within(zone, family, inner, slot)
                    named = _learned_at(learned, zone.name, level.keeps, family)
                    if direction is Direction.OUTBOUND and named and guard:
                        chains.append(Chain(f"{here}.named{family.digit}", named))
                        lookups = (*lookups, _to_named(family, f"{here}.named{family.digit}"))
                    if lookups and guard:
                        chains.append(Chain(f"{here}.{word}{family.digit}", lookups))
                        rules.append((*guard, p.jump(f"{here}.{word}{family.digit}")))
            chains.append(Chain(here, _unless_spoofed(rules)))
    return chains


def _unless_spoofed(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Keep nothing that was opened in another's name."""
    return ((SPOOFED, p.RETURN), *rules) if rules else ()


def _lookups_at(
    kept: list[GroupLookups],
    zone: str,
    keeps: frozenset[Criticality],
    direction: Direction,
    family: Family,
) -> tuple[Rule, ...]:
    return tuple(
        rule
        for one in kept
        if zone in one.group.zones and one.group.criticality in keeps
        for rule in one.lookups[direction, family]
    )


def _learned_at(
    learned: list[ByName], zone: str, keeps: frozenset[Criticality], family: Family
) -> tuple[Rule, ...]:
    return tuple(
        rule
        for one in learned
        if zone in one.keep.zones and one.keep.criticality in keeps
        for rule in one.rules[family]
    )


def _to_named(family: Family, chain: str) -> Rule:
    """Look into the services' own sets only for an address that some service was answered: one
    look-up for all others.
    """
    return (
        p.InSet((family.original_destination,), table_names.learned_set(family.digit)),
        p.jump(chain),
    )


def gateway_chains(policy: Policy, kept: list[GroupLookups], slot: int) -> list[Chain]:
    """Judge the gateway's own traffic by who opened the connection: its own addresses may change,
    so none is asked.

    At input the original direction is a connection from outside; at output it is one of ours.
    """
    chains: list[Chain] = []
    for level in policy.site.levels:
        if level.passes_all:
            continue
        jumps: dict[str, list[Rule]] = {"out": [], "in": []}
        for direction, word in _WORDS:
            for family in FAMILIES:
                lookups = _lookups_at(kept, GATEWAY, level.keeps, direction, family)
                if lookups:
                    name = (
                        f"{table_names.level_chain(slot, level.name, GATEWAY)}.{word}{family.digit}"
                    )
                    chains.append(Chain(name, lookups))
                    jumps[word].append((p.Match(p.NFPROTO, (family.nfproto,)), p.jump(name)))
        for hook, ours in (("input", "reply"), ("output", "original")):
            theirs = "original" if ours == "reply" else "reply"
            rules = tuple(
                (p.Match(p.CT_DIRECTION, (side,)), *rest)
                for side, word in ((ours, "out"), (theirs, "in"))
                for rest in jumps[word]
            )
            chains.append(
                Chain(
                    table_names.level_chain(slot, level.name, f"{GATEWAY}.{hook}"),
                    _unless_spoofed(rules),
                )
            )
    return chains


def interface_dispatch(policy: Policy, slot: int) -> tuple[list[NamedSet], list[Chain]]:
    """Say which gate an interface leads to.

    Where zones share an interface, the inside end's own address decides.

    What comes from the inside and goes to the inside passes: that is asked once it is known that it
    goes there.
    """
    stem = table_names.prefix(slot)
    users: dict[str, list[str]] = {}
    for zone in policy.site.zones:
        for pattern in zone.interfaces:
            users.setdefault(pattern, []).append(zone.name)
    inside: dict[Key, str] = {(p.ifname_interval(pattern),): "" for pattern in users}
    wild = any(
        pattern.endswith("*") for pattern in users
    )  # plain names make a hash, which is quicker
    sets = [
        NamedSet(table_names.inside_set(slot), ("ifname",), wild, "", dict(sorted(inside.items())))
    ]
    passes: Rule = (*by_link(slot), p.ACCEPT)
    chains = [
        Chain(
            f"{stem}inward.{table_names.identifier(zones[0])}",
            (passes, (p.goto(table_names.gate_chain(slot, zones[0])),)),
        )
        for zones in dict.fromkeys(tuple(each) for each in users.values() if len(each) == 1)
    ]
    shared = sorted({tuple(zones) for zones in users.values() if len(zones) > 1})
    for side, pick in (("from", "source"), ("to", "destination")):
        where: dict[Key, str] = {}
        for pattern, zones in users.items():
            alone = (
                table_names.gate_chain(slot, zones[0])
                if side == "from"
                else f"{stem}inward.{table_names.identifier(zones[0])}"
            )
            together = (
                f"{stem}shared{shared.index(tuple(zones)) + 1}.{side}" if len(zones) > 1 else alone
            )
            where[(p.ifname_interval(pattern),)] = together
        sets.append(
            NamedSet(stem + side, ("ifname",), wild, "verdict", dict(sorted(where.items())))
        )
        for number, some in enumerate(shared, 1):
            rules: list[Rule] = [] if side == "from" else [passes]
            for family in FAMILIES:
                field = family.source if pick == "source" else family.destination
                guards = [
                    (_within(zone, family, field, slot), zone.name)
                    for zone in policy.site.zones
                    if zone.name in some
                ]
                rules += [
                    (*guard, p.goto(table_names.gate_chain(slot, zone)))
                    for guard, zone in guards
                    if guard
                ]
            # An address of no zone is as foreign as an interface of no zone.
            end = p.goto(table_names.gate_chain(slot, table_names.ELSEWHERE))
            chains.append(Chain(f"{stem}shared{number}.{side}", (*rules, (end,))))
    return sets, chains


def refusal_chains(policy: Policy, slot: int) -> list[Chain]:
    """Refuse fast towards the inside, in silence towards the outside, and let the kernel keep the
    evidence.

    An invalid packet gets no reset: it may belong to a kept connection that went astray, which a
    reset would end. Nor is a source answered that is no zone's: the answer would go to whatever
    outside address was written there, and an ICMP error carries the refused payload with it. A
    zone's machines whose packets come by an interface in no zone (a wrong name in site.yaml) are
    evidence too, and get no answer; what an outsider writes as its source is not.
    """
    stem = table_names.prefix(slot)
    ports = p.Match(p.L4PROTO, (6, 17, 132))
    no_ports = p.Match(p.L4PROTO, (6, 17, 132), negate=True)
    evidence: list[Rule] = [(p.Counter(table_names.REFUSED_OUT),)]
    for family in FAMILIES:
        here = p.Match(p.NFPROTO, (family.nfproto,))
        ends = (family.source.text, family.destination.text)
        evidence += [
            (here, p.AddToSet(ends[:1], f"refused_hosts{family.digit}")),
            (
                here,
                ports,
                p.AddToSet((*ends, "meta l4proto", "th dport"), f"refused{family.digit}"),
            ),
            (here, no_ports, p.AddToSet((*ends, "meta l4proto", "0"), f"refused{family.digit}")),
        ]
    strayed: list[Rule] = [
        (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.InSet((family.source,), name),
            p.FROM_HERE,
            p.goto(stem + "strayed"),
        )
        for family, name in zone_subnet_sets(policy, slot).items()
    ]
    to_inside: list[Rule] = [
        (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.InSet((family.source,), name),
            p.goto(stem + "reject"),
        )
        for family, name in zone_subnet_sets(policy, slot).items()
    ]
    return [
        Chain(stem + "evidence", tuple(evidence)),
        Chain(stem + "refuse.inside", (*to_inside, (p.jump(stem + "evidence"),), (p.DROP,))),
        Chain(stem + "strayed", ((p.jump(stem + "evidence"),), (p.DROP,))),
        Chain(
            stem + "refuse",
            (
                *from_inside(slot, p.goto(stem + "refuse.inside")),
                *strayed,
                (p.Counter(table_names.REFUSED_IN), p.DROP),
            ),
        ),
        Chain(stem + "drop", ((p.jump(stem + "evidence"),), (p.DROP,))),
        Chain(
            stem + "reject",
            (
                (p.jump(stem + "evidence"),),
                (p.Match(p.CT_STATE, ("invalid",)), p.DROP),
                (p.Match(p.L4PROTO, (6,)), p.Reject("tcp reset")),
                (p.RateLimit(REJECTS_PER_SECOND), p.Reject("icmpx admin-prohibited")),
                (p.DROP,),
            ),
        ),
    ]


def gate_names(policy: Policy) -> tuple[str, ...]:
    """Name every gate: one for each zone, two for the gateway (by hook), one for interfaces of no
    zone.
    """
    zones = (zone.name for zone in policy.site.zones)
    return (*zones, f"{GATEWAY}.input", f"{GATEWAY}.output", table_names.ELSEWHERE)


def gate_chains(policy: Policy, slot: int) -> list[Chain]:
    """Make every gate shut: a program that is loaded and not yet switched to lets nothing through.

    A zone's gate keeps or says nothing. What no zone keeps ends at the gate of no zone, or at its
    hook's end.
    """
    stem = table_names.prefix(slot)
    closed = {table_names.ELSEWHERE: stem + "refuse"}
    gates = [
        Chain(
            table_names.gate_chain(slot, place), ((p.goto(closed.get(place, stem + "nothing")),),)
        )
        for place in gate_names(policy)
    ]
    return [Chain(stem + "open", ((p.ACCEPT,),)), Chain(stem + "nothing", ()), *gates]


def _errors(policy: Policy, slot: int) -> tuple[list[Chain], list[Rule]]:
    """Judge an error that the gateway makes about a flow between a zone and the outside as that
    flow is judged.

    A partner has to be told that a link is too narrow (RFC 1191, RFC 8201). Of which zone the flow
    is its inside end says: conntrack gives the error the tuples of the flow that it quotes. Give
    the chain, and the rules that lead to it.
    """
    name = f"{table_names.prefix(slot)}errors"
    rules: list[Rule] = [
        (*guard, p.jump(table_names.gate_chain(slot, zone.name)))
        for zone in policy.site.zones
        for family in FAMILIES
        for end in (family.original_source, family.reply_source)
        if (guard := _within(zone, family, end, slot))
    ]
    about = p.Match(p.CT_STATE, ("related",))
    ways: list[Rule] = [
        (p.Match(family.icmp_type, family.icmp_errors), about, p.jump(name)) for family in FAMILIES
    ]
    return [Chain(name, tuple(rules))], ways


def hook_chains(policy: Policy, slot: int) -> list[Chain]:
    """Give the chains that the base chains go to: inside to inside passes, the lifeline passes, the
    rest goes to a gate.

    What the gateway sends is judged twice. At output, where a refusal can still be told to whoever
    sent it; and where it leaves: the site's own output rules (DNAT, marks) may have chosen another
    link since, and output still sees the first (nf_hook_state.out; ip_route_me_harder). What is
    forwarded came by a link, and passes there at once.
    """
    stem = table_names.prefix(slot)
    to_inside = p.InSet((p.OIFNAME,), table_names.inside_set(slot))
    error_chains, errors = _errors(policy, slot)
    ours: list[Rule] = [
        (p.Match(p.OIFNAME, ("lo",)), p.ACCEPT),
        (to_inside, p.ACCEPT),
        (p.jump(stem + "lifeline.output"),),
        *errors,
        (p.jump(table_names.gate_chain(slot, f"{GATEWAY}.output")),),
    ]
    return [
        *error_chains,
        Chain(
            stem + "vrf",
            (
                (p.InSet((p.SDIFNAME,), table_names.inside_set(slot)), to_inside, p.ACCEPT),
                (p.VerdictMap((p.OIFNAME,), stem + "to"),),
                (p.VerdictMap((p.SDIFNAME,), stem + "from"),),
                (p.goto(table_names.gate_chain(slot, table_names.ELSEWHERE)),),
            ),
        ),
        Chain(
            stem + "forward",
            (
                (BY_VRF, p.goto(stem + "vrf")),
                (p.VerdictMap((p.OIFNAME,), stem + "to"),),
                (p.VerdictMap((p.IIFNAME,), stem + "from"),),
                (p.goto(table_names.gate_chain(slot, table_names.ELSEWHERE)),),
            ),
        ),
        Chain(
            stem + "input",
            (
                (p.Match(p.IIFNAME, ("lo",)), p.ACCEPT),
                *dns_redirect.client_jump(policy, slot),
                *from_inside(slot, p.ACCEPT),
                (p.jump(stem + "lifeline.input"),),
                (p.jump(table_names.gate_chain(slot, f"{GATEWAY}.input")),),
                (p.goto(stem + "refuse"),),
            ),
        ),
        Chain(
            stem + "output", (*dns_redirect.engine_guard(policy), *ours, (p.goto(stem + "reject"),))
        ),
        Chain(
            stem + "postrouting",
            ((p.Match(p.IIF, (0,), negate=True), p.ACCEPT), *ours, (p.goto(stem + "drop"),)),
        ),
    ]
