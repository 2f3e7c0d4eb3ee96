"""Look-ups of a kept packet by its own addresses and ports, ahead of those by `ct original`.

At forward they are the original tuple of the connection, in both directions, unless the destination
was translated: a source is translated later, and translated back earlier. The kernel reads them at
a fraction of the price (nft_payload_fast_eval; `ct original` is a call through a pointer for each
field). It is the same look-up in the same map, so nothing is kept that the look-ups by `ct
original` would not keep. What has no entry, an ICMP error or a later fragment matches nothing here.
"""

from collections.abc import Sequence

from ecluse.ruleset import program as p
from ecluse.ruleset.families import Family
from ecluse.ruleset.program import Chain, Part, Rule

NOT_REDIRECTED = p.Match(p.CT_STATUS, ("dnat",), negate=True)
"""The destination of the connection was not translated."""


ORIGINAL, REPLY = "original", "reply"


def packet_lookups(
    family: Family, maps: Sequence[str], guard: tuple[Part, ...], way: str, chain: str
) -> tuple[Rule, list[Chain]]:
    """Look up what a zone opened, in one direction: a rule, and the chains that it jumps to.

    Args:
        maps: hashes of address, port and protocol. A single one is looked up at once, which saves
            a jump.
        guard: matches a source in the zone's subnets (ORIGINAL), or a destination there (REPLY).
        chain: the zone's chain; the names of further ones begin with it.
    """
    peer, port = (
        (family.destination, p.TH_DPORT) if way == ORIGINAL else (family.source, p.TH_SPORT)
    )
    ours = (*guard, p.Match(p.CT_DIRECTION, (way,)), NOT_REDIRECTED)
    looks = tuple((p.CountByMap((peer, port, p.L4PROTO), name), p.ACCEPT) for name in maps)
    if len(looks) == 1:
        return (*ours, *looks[0]), []
    name = f"{chain}.{way}{family.digit}"
    return (*ours, p.jump(name)), [Chain(name, looks)]
