"""A few blocks of addresses that hold every zone: what is in none of them is outside.

They only choose in which order questions are asked: the verdict is the same for an address that
lies in a block and in no zone.
"""

from ecluse.policy import Policy, network_interval
from ecluse.ruleset.families import Family
from ecluse.ruleset.ingress import COMPARED
from ecluse.ruleset.program import Interval


def inside_blocks(policy: Policy, family: Family) -> tuple[Interval, ...]:
    """Give prefixes that hold the subnets of all zones of a family, in order.

    One for each first byte (IPv6: the first two), as narrow as whole bytes are: those are compared
    without a mask. Comparing is cheap for a few: empty where it takes more.
    """
    first = family.bits - (8 if family.version == 4 else 16)
    found: dict[int, Interval] = {}
    for zone in policy.site.zones:
        for subnet in zone.subnets:
            if subnet.version == family.version:
                low, high = network_interval(subnet)
                if low >> first != high >> first:
                    return ()
                before = found.get(low >> first, (low, high))
                found[low >> first] = (min(low, before[0]), max(high, before[1]))
    blocks = []
    for low, high in found.values():
        wide = (1 << -(-(low ^ high).bit_length() // 8) * 8) - 1
        blocks.append((low & ~wide, low | wide))
    return tuple(sorted(blocks)) if len(blocks) <= COMPARED else ()
