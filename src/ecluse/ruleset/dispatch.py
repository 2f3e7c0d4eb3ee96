"""From the interfaces of a forwarded packet to the gate that judges it.

What a zone's interface brought is judged by that zone's chain (`gate.ZONE._from`): kept, inside to
inside, or neither. The rest is judged by the zone that it goes to. Each gate accepts or returns,
and inside to inside passes at every level, so the two may be asked in any order: first by the
interface that the source speaks for, which most packets need alone.

None of them ends in a refusal: a kernel checks a table by walking it along every way (newer ones
remember what they walked). What stood at the end of every gate would be walked as often in each
switch, while a cut waits.
"""

from collections import Counter

from ecluse.policy import Policy, Zone
from ecluse.ruleset import program as p
from ecluse.ruleset import table_names
from ecluse.ruleset.chains import inside_passes, within
from ecluse.ruleset.families import FAMILIES
from ecluse.ruleset.ingress import BY_VRF, by_name
from ecluse.ruleset.inside_blocks import inside_blocks
from ecluse.ruleset.program import Chain, Key, NamedSet, Rule

_NO_VRF = p.Match(p.SDIF, (0,))


def interface_dispatch(policy: Policy, slot: int) -> tuple[list[NamedSet], list[Chain]]:
    """Make the verdict maps that lead from an interface to its zone's gate, and the set of all.

    Where zones share an interface, the address of the inside end decides.
    """
    stem = table_names.prefix(slot)
    users: dict[str, list[str]] = {}
    for zone in _busiest_first(policy):
        for pattern in zone.interfaces:
            users.setdefault(pattern, []).append(zone.name)
    inside: dict[Key, str] = {(p.ifname_interval(pattern),): "" for pattern in users}
    # Plain names make a hash, which is quicker.
    wild = any(pattern.endswith("*") for pattern in users)
    inside_set = table_names.inside_set(slot)
    sets = [NamedSet(inside_set, ("ifname",), wild, "", dict(sorted(inside.items())))]
    chains = []
    shared = sorted({tuple(zones) for zones in users.values() if len(zones) > 1})
    for side, which in (("from", table_names.OWN_LINK), ("to", "")):
        where: dict[Key, str] = {}
        for pattern, zones in users.items():
            where[(p.ifname_interval(pattern),)] = (
                f"{stem}shared{shared.index(tuple(zones)) + 1}.{side}"
                if len(zones) > 1
                else table_names.gate_chain(slot, zones[0] + which)
            )
        sets.append(NamedSet(stem + side, ("ifname",), wild, "verdict", where))
        for number, some in enumerate(shared, 1):
            rules = [
                (*guard, p.goto(table_names.gate_chain(slot, zone.name + which)))
                for family in FAMILIES
                for zone in policy.site.zones
                for end in (family.source if side == "from" else family.destination,)
                if zone.name in some and (guard := within(zone, family, end, slot))
            ]
            if side == "from":  # a source in no zone: inside to inside passes all the same
                rules.append(inside_passes(slot))
            chains.append(Chain(f"{stem}shared{number}.{side}", tuple(rules)))
    return sets, chains


def _busiest_first(policy: Policy) -> list[Zone]:
    """Give the zones, those with most services first: interfaces are compared in this order."""
    uses = Counter(name for service in policy.services for name in service.zones)
    return sorted(policy.site.zones, key=lambda zone: -uses[zone.name])


def forward_chains(policy: Policy, slot: int, dispatch: list[NamedSet]) -> list[Chain]:
    """Make the chain that the base chain `forward` goes to, and those that it goes to.

    What speaks for an inside address is asked for the interface it came by first, the rest (most of
    it answers) for the one it leaves by.

    dispatch: the sets of `interface_dispatch`.
    """
    stem = table_names.prefix(slot)
    where = {named.name: named for named in dispatch}
    came = by_name(p.IIFNAME, where[stem + "from"], _NO_VRF)
    goes = by_name(p.OIFNAME, where[stem + "to"])
    by_vrf: Rule = (BY_VRF, p.goto(stem + "vrf"))
    end: Rule = (p.goto(table_names.gate_chain(slot, table_names.ELSEWHERE)),)
    leaving, name = (*came, by_vrf, *goes, end), f"{stem}forward.from"
    first = [
        (p.Match(p.NFPROTO, (family.nfproto,)), p.Match(family.source, (block,)), p.goto(name))
        for family in FAMILIES
        for block in inside_blocks(policy, family)
    ]
    return [
        Chain(
            stem + "vrf",
            (
                (p.VerdictMap((p.SDIFNAME,), stem + "from"),),
                (p.VerdictMap((p.OIFNAME,), stem + "to"),),
                end,
            ),
        ),
        Chain(name, leaving),
        Chain(stem + "forward", (*first, *goes, *came, by_vrf, end)),
    ]
