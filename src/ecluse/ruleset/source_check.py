"""Check where a packet's source lives, before conntrack trusts it.

Every look-up goes by who opened a connection. Without this check, an inside machine that writes an
outside address could open a connection "as the partner", by one frame from inside to inside. Two
base chains, ahead of those that judge:

- `prerouting`, at every level: when the first packet of a connection has a source that does not
  live where it came from, the connection gets a label. The packet itself is not affected. The
  chains of a level keep nothing with that label.
- `raw`, only while some zone is not open: what an inside machine sends with an outside source is
  not tracked, so that no entry arises that another machine's kept flow would run into. ICMP errors
  are tracked: they make no entry, and a kept flow needs them.

A source lives inside when it is in a zone's subnets, or routed to an inside interface. So at `open`
a range that the site forgot to list keeps its NAT and its stateful firewall. docs/datapath.md tells
what else was tried.
"""

from collections.abc import Mapping

from ecluse.policy import Policy, network_interval
from ecluse.ruleset import program as p
from ecluse.ruleset import table_names
from ecluse.ruleset.families import FAMILIES, IPV4, IPV6, LINK_LOCAL6, Family
from ecluse.ruleset.ingress import COMPARED
from ecluse.ruleset.program import Chain, Rule

PRIORITIES = {table_names.RAW: ("raw - 10", -310), table_names.PREROUTING: ("mangle", -150)}
"""One before conntrack (NF_IP_PRI_CONNTRACK, -200), one after it and before any translation.

The first comes after reassembly (-400), and before what the site has at `raw`: a packet to which a
rule there gave a template (`-j CT --helper`, `--zone`) can't be left untracked any more
(nft_notrack_eval).
"""

HOOKS = {chain: f"filter prerouting {number}" for chain, (_, number) in PRIORITIES.items()}
"""Where each base chain hangs: type, hook, priority."""

_COMPARED = 4
"""So many subnets of one family are compared one after the other: about 15 ns each, a set of
intervals costs 100 ns.
"""

LABEL = p.SetConntrack(f"ct label set {table_names.SPOOFED}")
SPOOFED = p.Match(p.CT_LABEL, (table_names.SPOOFED,))


def source_targets(slot: int, *, all_open: bool) -> dict[str, str]:
    """Say where the two base chains go."""
    stem = table_names.prefix(slot)
    return {
        table_names.RAW: "" if all_open else stem + table_names.RAW,
        table_names.PREROUTING: stem + table_names.PREROUTING,
    }


def skeleton_parts() -> list[str]:
    """Write the two base chains. Their policy is accept at every level: they refuse nothing."""
    return [
        f"\tchain {chain} {{\n\t\ttype filter hook prerouting priority {word};\n\t}}"
        for chain, (word, _) in PRIORITIES.items()
    ]


def source_chains(
    policy: Policy, slot: int, zones: Mapping[Family, str], tracked: tuple[Rule, ...]
) -> list[Chain]:
    """Give the chains that the two base chains go to.

    zones: the sets of all zones' subnets. tracked: rules for what is tracked whatever its source.
    """
    stem = table_names.prefix(slot)
    from_inside = p.InSet((p.IIFNAME,), table_names.inside_set(slot))
    routes = tuple(
        dict.fromkeys(pattern for zone in policy.site.zones for pattern in zone.interfaces)
    )
    outside_name = [_outside_name(family, zones.get(family), routes) for family in FAMILIES]
    # Every packet passes here, kept ones too: the source that most have is asked for first, the
    # interface after it.
    # Then who came from outside, which answers do, and only then IPv6.
    lives_here = {family: _in_a_zone(policy, family, name) for family, name in zones.items()}
    inside = f"{stem}{table_names.RAW}.inside"
    to_inside = (
        [(p.Match(p.IIFNAME, (pattern,)), p.goto(inside)) for pattern in routes]
        if len(routes) <= COMPARED
        else [(from_inside, p.goto(inside))]
    )
    # An error makes no entry: it belongs to the one that it quotes. A router inside may send it by
    # an address of no route.
    errors = ((p.Match(family.icmp_type, family.icmp_errors), p.ACCEPT) for family in FAMILIES)
    untracked = ((*_outside_name(family, None, routes), p.NOTRACK) for family in FAMILIES)
    return [
        Chain(inside, (*lives_here.get(IPV6, ()), *errors, *untracked)),
        Chain(
            stem + table_names.RAW,
            (*tracked, *lives_here.get(IPV4, ()), *to_inside),
        ),
        Chain(
            f"{stem}{table_names.PREROUTING}.inside", tuple((*name, LABEL) for name in outside_name)
        ),
        Chain(
            stem + table_names.PREROUTING,
            (
                # Of a connection's packets only the first: a later one in its name must not mark
                # what others opened.
                (p.Match(p.CT_STATUS, ("confirmed",)), p.ACCEPT),
                # What comes by a VRF passes here twice, first by its own interface.
                (p.Match(p.IIFKIND, ("vrf",)), p.ACCEPT),
                (from_inside, p.goto(f"{stem}{table_names.PREROUTING}.inside")),
                *(
                    (
                        _of(family),
                        p.InSet((family.source,), name),
                        p.Match(p.SOURCE_ROUTE, routes),
                        LABEL,
                    )
                    for family, name in zones.items()
                ),
            ),
        ),
    ]


def _in_a_zone(policy: Policy, family: Family, zones: str) -> list[Rule]:
    """Accept a source that is in a zone's subnets.

    A few subnets are compared one by one, which is faster than a set.
    """
    subnets = [s for zone in policy.site.zones for s in zone.subnets if s.version == family.version]
    if len(subnets) > _COMPARED:
        return [(_of(family), p.InSet((family.source,), zones), p.ACCEPT)]
    return [
        (_of(family), p.Match(family.source, (network_interval(s),)), p.ACCEPT) for s in subnets
    ]


def _of(family: Family) -> p.Part:
    return p.Match(p.NFPROTO, (family.nfproto,))


def _outside_name(family: Family, zones: str | None, routes: tuple[str, ...]) -> Rule:
    """Match what comes from inside with a source in no zone's subnets and not routed inside.

    A host without an address yet (DHCP) and link-local addresses live on every link: no router
    passes them on.
    """
    nowhere: p.Interval = (0, 0) if family.version == 4 else LINK_LOCAL6
    return (
        _of(family),
        *((p.InSet((family.source,), zones, negate=True),) if zones else ()),
        p.Match(family.source, (nowhere,), negate=True),
        p.Match(p.SOURCE_ROUTE, routes, negate=True),
    )
