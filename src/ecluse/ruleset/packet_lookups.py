"""Look-ups of a kept packet by its own addresses and ports, ahead of those by `ct original`.

At forward they are the original tuple of the connection, in both directions, unless the destination
was translated: a source is translated later, and translated back earlier. The kernel reads them at
a fraction of the price (nft_payload_fast_eval; `ct original` is a call through a pointer for each
field). It is the same look-up in the same map, so nothing is kept that the look-ups by `ct
original` would not keep. What has no entry, an ICMP error or a later fragment matches nothing here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ecluse.ruleset import program as p
from ecluse.ruleset.families import Family
from ecluse.ruleset.program import Chain, Part, Rule

NOT_REDIRECTED = p.Match(p.CT_STATUS, ("dnat",), negate=True)
"""The destination of the connection was not translated."""


@dataclass(frozen=True, slots=True)
class PacketLookups:
    """Rules for a zone's chain, and the chains that these jump to."""

    rules: tuple[Rule, ...]
    chains: tuple[Chain, ...]


def packet_lookups(
    family: Family, maps: Sequence[str], guards: Sequence[tuple[Part, ...]], chain: str
) -> PacketLookups:
    """Look up what a zone opened, for both directions.

    A flowtable's `flow add` would stand before the `accept` of these rules: nearly every kept
    packet passes here.

    Args:
        maps: hashes of address, port and protocol. A single one is looked up at once, which saves
            a jump.
        guards: match the packet's source, and its destination, in the zone's subnets.
        chain: the zone's chain; the names of further ones begin with it.
    """
    rules: list[Rule] = []
    chains: list[Chain] = []
    ways = (("original", family.destination, p.TH_DPORT), ("reply", family.source, p.TH_SPORT))
    for guard, (way, peer, port) in zip(guards, ways, strict=True):
        ours = (*guard, p.Match(p.CT_DIRECTION, (way,)), NOT_REDIRECTED)
        looks = tuple((p.CountByMap((peer, port, p.L4PROTO), name), p.ACCEPT) for name in maps)
        if len(looks) == 1:
            rules.append((*ours, *looks[0]))
        else:
            chains.append(Chain(f"{chain}.{way}{family.digit}", looks))
            rules.append((*ours, p.jump(f"{chain}.{way}{family.digit}")))
    return PacketLookups(tuple(rules), tuple(chains))
