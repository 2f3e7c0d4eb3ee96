"""Multicast groups of the link that a service of the gateway names, seen from the input hook."""

from ecluse.policy import GATEWAY, Level, Policy, network_interval
from ecluse.ruleset import program as p
from ecluse.ruleset import table_names
from ecluse.ruleset.families import FAMILIES
from ecluse.ruleset.program import Rule


def from_groups(policy: Policy, level: Level, slot: int) -> tuple[Rule, ...]:
    """Lead what neighbours send to a kept multicast group to what the gateway may send to it.

    Nobody answers a group: what each side sends is a connection of its own.
    """
    chain = f"{table_names.level_chain(slot, level.name, GATEWAY)}.out"
    kept = {
        network_interval(network): network.version
        for service in policy.services
        if GATEWAY in service.zones and service.criticality in level.keeps
        for destination in service.destinations
        for network in destination.networks
        if network.is_multicast
    }
    return tuple(
        (
            p.Match(p.CT_DIRECTION, ("original",)),
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.Match(family.destination, groups),
            p.jump(chain + family.digit),
        )
        for family in FAMILIES
        if (groups := tuple(sorted(g for g, version in kept.items() if version == family.version)))
    )
