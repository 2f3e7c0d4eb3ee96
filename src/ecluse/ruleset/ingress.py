"""By which interface a packet came, in forward and input: its own one, also where that is in a VRF.

There the kernel calls a VRF's packets by the VRF's name (`iifname`), whichever of its interfaces
they came by: one that holds inside and outside would make strangers count as inside. What is inside
is asked of the real interface (`meta sdifname`).
"""

from ecluse.ruleset import program as p
from ecluse.ruleset import table_names
from ecluse.ruleset.program import Field, NamedSet, Rule

COMPARED = 4
"""So many interfaces are compared one by one: about 17 ns each, a map of names costs 70 ns."""

BY_VRF = p.Match(p.SDIF, (0,), negate=True)


def by_link(slot: int) -> Rule:
    """Match what came by an interface of a zone, and by no VRF."""
    return (p.InSet((p.IIFNAME,), table_names.inside_set(slot)), p.Match(p.SDIF, (0,)))


def from_inside(slot: int, *then: p.Part) -> tuple[Rule, ...]:
    """Apply `then` to what came from the inside: by a zone's interface, in a VRF or not."""
    return (
        (*by_link(slot), *then),
        (BY_VRF, p.InSet((p.SDIFNAME,), table_names.inside_set(slot)), *then),
    )


def by_name(field: Field, where: NamedSet, *more: p.Part) -> list[Rule]:
    """Jump to where a map leads from an interface's name; a few names are compared, in its order.

    more: what else has to match.
    """
    if len(where.elements) > COMPARED:
        return [(*more, p.VerdictMap((field,), where.name))]
    return [
        (p.Match(field, (p.ifname_pattern(key[0]),)), *more, p.jump(to))
        for key, to in where.elements.items()
    ]
