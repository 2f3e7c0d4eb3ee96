"""The chains around the look-ups: hooks, gates, levels, refusal."""

from collections.abc import Sequence

from ecluse.policy import GATEWAY, Criticality, Direction, Level, Policy, Zone, network_interval
from ecluse.ruleset import dns_redirect, table_names
from ecluse.ruleset import program as p
from ecluse.ruleset.disjoint import Box, disjoint
from ecluse.ruleset.dns_redirect import ByName
from ecluse.ruleset.families import FAMILIES, Family
from ecluse.ruleset.ingress import from_inside
from ecluse.ruleset.inside_blocks import inside_blocks
from ecluse.ruleset.link_groups import from_groups
from ecluse.ruleset.packet_lookups import ORIGINAL, REPLY, packet_lookups
from ecluse.ruleset.program import Chain, Field, NamedSet, Part, Rule
from ecluse.ruleset.service_maps import GroupLookups, exact_maps
from ecluse.ruleset.source_check import SPOOFED

REJECTS_PER_SECOND = 1000
"""Answers to what is refused without TCP; a flood gets silence beyond it, and costs the gateway
nothing.
"""


def subnet_sets(policy: Policy, slot: int) -> list[NamedSet]:
    """Make a set of subnets for each zone that has several of one family, and one of all zones.

    A zone's level keeps only packets whose inside end is in its set: no spoofed source.
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


def within(zone: Zone, family: Family, field: Field, slot: int) -> tuple[Part, ...]:
    """Match this family, and a field that lies in one of the zone's subnets.

    A single subnet is compared and not looked up. Empty when the zone has none of the family.
    """
    boxes = _boxes(zone, family)
    if not boxes:
        return ()
    this_family = p.Match(p.NFPROTO, (family.nfproto,))
    if len(boxes) == 1:
        return (this_family, p.Match(field, (boxes[0][0][0],)))
    return (this_family, p.InSet((field,), table_names.subnet_set(slot, family.digit, zone.name)))


def _answered_sets(policy: Policy, slot: int) -> list[NamedSet]:
    """Make the sets of all zones' subnets.

    Only a source in them gets an answer (reset, ICMP error) when its packet is refused.
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
    """Name the sets of all zones' subnets, by family."""
    versions = {s.version for zone in policy.site.zones for s in zone.subnets}
    return {family: _answered(slot, family) for family in FAMILIES if family.version in versions}


def zone_chains(
    policy: Policy, kept: list[GroupLookups], learned: list[ByName], slot: int
) -> list[Chain]:
    """Make the chains that judge a zone's traffic, one for each level and zone.

    A chain looks up connections that the zone opened, then connections opened towards it. It
    accepts what is kept and returns for the rest; the hook's chain decides about that. A second
    one judges what came by the zone's own interface, inside to inside too.
    """
    chains: list[Chain] = []
    for level in policy.site.levels:
        if level.passes_all:
            continue
        for zone in policy.site.zones:
            here = table_names.level_chain(slot, level.name, zone.name)
            leaving, more = _quick(zone, kept, level, slot, ORIGINAL)
            rules, others = _quick(zone, kept, level, slot, REPLY)
            chains += [*more, *others]
            for direction, word in _WORDS:
                for family in FAMILIES:
                    lookups = _lookups_at(kept, zone.name, level.keeps, direction, family)
                    inner = (
                        family.original_source
                        if direction is Direction.OUTBOUND
                        else family.reply_source
                    )
                    guard = within(zone, family, inner, slot)
                    named = _learned_at(learned, zone.name, level.keeps, family)
                    if direction is Direction.OUTBOUND and named and guard:
                        chains.append(Chain(f"{here}.named{family.digit}", named))
                        lookups = (*lookups, _to_named(family, f"{here}.named{family.digit}"))
                    if lookups and guard:
                        chains.append(Chain(f"{here}.{word}{family.digit}", lookups))
                        rules.append((*guard, p.jump(f"{here}.{word}{family.digit}")))
            chains.append(Chain(here, _unless_spoofed(rules)))
            chains.append(_leaving(policy, slot, here, leaving, more=bool(rules)))
    return chains


def _quick(
    zone: Zone, kept: list[GroupLookups], level: Level, slot: int, way: str
) -> tuple[list[Rule], list[Chain]]:
    """Look up by the packet's own fields what the zone opened, in one direction."""
    here = table_names.level_chain(slot, level.name, zone.name)
    rules: list[Rule] = []
    chains: list[Chain] = []
    for family in FAMILIES:
        maps = exact_maps(kept, zone.name, level.keeps, family)
        end = family.source if way == ORIGINAL else family.destination
        guard = within(zone, family, end, slot)
        if maps and guard:
            rule, more = packet_lookups(family, maps, guard, way, here)
            rules.append(rule)
            chains += more
    return rules, chains


def inside_passes(slot: int) -> Rule:
    """Pass what leaves by a zone's interface."""
    return (p.InSet((p.OIFNAME,), table_names.inside_set(slot)), p.ACCEPT)


def _leaving(policy: Policy, slot: int, level: str, quick: list[Rule], *, more: bool) -> Chain:
    """Judge what came by a zone's own interface: kept, or inside to inside, or neither.

    What goes to an inside address is asked for its interface before the quick look-ups: both would
    accept it, so that this changes the order alone.

    level: the zone's chain at a level. more: it has rules.
    """
    early: list[Rule] = [
        (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.Match(family.destination, (block,)),
            *inside_passes(slot),
        )
        for family in FAMILIES
        for block in inside_blocks(policy, family)
    ]
    # Inside to inside alone, for what was opened in another's name.
    spoofed: Rule = (SPOOFED, p.goto(_inside_alone(slot)))
    rules = [*early, spoofed, *quick] if quick else []
    rules.append(inside_passes(slot))
    if more:
        rules.append((p.jump(level),))
    return Chain(level + table_names.OWN_LINK, tuple(rules))


def _inside_alone(slot: int) -> str:
    """Name the chain of a closed gate for what came by a zone's own interface."""
    return f"{table_names.prefix(slot)}nothing{table_names.OWN_LINK}"


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
    """Jump to the services' own learned sets only for an address that some service learned.

    All other packets cost one look-up, however many services have learned sets.
    """
    return (
        p.InSet((family.original_destination,), table_names.learned_set(family.digit)),
        p.jump(chain),
    )


def gateway_chains(policy: Policy, kept: list[GroupLookups], slot: int) -> list[Chain]:
    """Make the chains that judge the gateway's own traffic, for each level and hook.

    They ask who opened the connection, never for the gateway's own addresses: these may change. At
    input the original direction is a connection from outside, at output one of the gateway.
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
            if hook == "input":
                rules += from_groups(policy, level, slot)
            chains.append(
                Chain(
                    table_names.level_chain(slot, level.name, f"{GATEWAY}.{hook}"),
                    _unless_spoofed(rules),
                )
            )
    return chains


def refusal_chains(policy: Policy, slot: int) -> list[Chain]:
    """Make the chains that refuse: with an answer to the inside, silently to the outside.

    All of them count, and record the packet in the refused sets. An invalid packet gets no reset:
    it may belong to a kept connection that went astray, which a reset would end. A source in no
    zone gets no answer: it would go to an outside address that the sender chose, and an ICMP error
    carries the refused payload with it. A zone's machine whose packets come by an interface of no
    zone (a wrong name in site.yaml) is recorded too, without an answer; an outsider's source is
    not.
    """
    stem = table_names.prefix(slot)
    ports = p.Match(p.L4PROTO, (p.TCP, p.UDP, p.SCTP))
    no_ports = p.Match(p.L4PROTO, (p.TCP, p.UDP, p.SCTP), negate=True)
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
                (p.Match(p.L4PROTO, (p.TCP,)), p.Reject("tcp reset")),
                (p.RateLimit(REJECTS_PER_SECOND), p.Reject("icmpx admin-prohibited")),
                (p.DROP,),
            ),
        ),
    ]


def gate_names(policy: Policy) -> tuple[str, ...]:
    """Name every gate: two per zone, two for the gateway (by hook), one for no zone.

    A zone's second one is for what came by its own interface.
    """
    zones = (zone.name for zone in policy.site.zones)
    ways = ((zone, zone + table_names.OWN_LINK) for zone in zones)
    return (
        *(way for both in ways for way in both),
        f"{GATEWAY}.input",
        f"{GATEWAY}.output",
        table_names.ELSEWHERE,
    )


def gate_chains(policy: Policy, slot: int) -> list[Chain]:
    """Make every gate closed: a program that is loaded and not switched to passes nothing.

    A zone's gate accepts or returns. What no zone keeps ends at the gate of no zone, or at the end
    of its hook. Inside to inside passes even by a closed one for a zone's own interface.
    """
    stem = table_names.prefix(slot)
    nothing = f"{stem}nothing"
    closed = {table_names.ELSEWHERE: stem + "refuse"}
    closed |= {zone.name + table_names.OWN_LINK: _inside_alone(slot) for zone in policy.site.zones}
    gates = [
        Chain(table_names.gate_chain(slot, place), ((p.goto(closed.get(place, nothing)),),))
        for place in gate_names(policy)
    ]
    return [
        Chain(stem + "open", ((p.ACCEPT,),)),
        Chain(nothing, ()),
        Chain(_inside_alone(slot), (inside_passes(slot),)),
        *gates,
    ]


def _errors(policy: Policy, slot: int) -> tuple[list[Chain], list[Rule]]:
    """Judge an ICMP error that the gateway sends about a flow as that flow is judged.

    A partner has to learn that a link is too narrow (RFC 1191, RFC 8201). conntrack gives an error
    the tuples of the flow that it quotes, so the flow's inside end tells the zone. Gives the chain,
    and the rules that lead to it.
    """
    name = f"{table_names.prefix(slot)}errors"
    rules: list[Rule] = [
        (*guard, p.jump(table_names.gate_chain(slot, zone.name)))
        for zone in policy.site.zones
        for family in FAMILIES
        for end in (family.original_source, family.reply_source)
        if (guard := within(zone, family, end, slot))
    ]
    about = p.Match(p.CT_STATE, ("related",))
    ways: list[Rule] = [
        (p.Match(family.icmp_type, family.icmp_errors), about, p.jump(name)) for family in FAMILIES
    ]
    return [Chain(name, tuple(rules))], ways


def hook_chains(policy: Policy, slot: int) -> list[Chain]:
    """Make the chains that the base chains of the gateway's own traffic go to.

    Inside to inside passes, then the lifeline; the rest goes to a gate. What the gateway sends is
    judged twice: at output, where the sender can still be told of a refusal, and at postrouting.
    In between, the site's own output rules (DNAT, marks) may choose another link, and output still
    sees the first one (nf_hook_state.out; ip_route_me_harder). Forwarded packets pass postrouting
    at once: they came by a link.
    """
    stem = table_names.prefix(slot)
    error_chains, errors = _errors(policy, slot)
    ours: list[Rule] = [
        (p.Match(p.OIFNAME, ("lo",)), p.ACCEPT),
        inside_passes(slot),
        (p.jump(stem + "lifeline.output"),),
        *errors,
        (p.jump(table_names.gate_chain(slot, f"{GATEWAY}.output")),),
    ]
    return [
        *error_chains,
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
            stem + "output",
            (*dns_redirect.dnsmasq_guard(policy), *ours, (p.goto(stem + "reject"),)),
        ),
        Chain(
            stem + "postrouting",
            ((p.Match(p.IIF, (0,), negate=True), p.ACCEPT), *ours, (p.goto(stem + "drop"),)),
        ),
    ]
