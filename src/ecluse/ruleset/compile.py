"""Policy and addresses to a program: pure, the same input gives the same program.

The design and what was measured: docs/datapath.md. In short: every packet is judged by the original
tuple of its connection; a zone's level is a chain; a service's destinations are elements of maps to
its counter.
"""

from dataclasses import replace

from ecluse.policy import Addresses, Policy
from ecluse.ruleset import chains, dispatch, dns_redirect, source_check, table_names
from ecluse.ruleset.lifeline import lifeline_chains, lifeline_sets
from ecluse.ruleset.program import Program
from ecluse.ruleset.service_maps import group_lookups, host_name_maps, service_groups, subnet_index


def zones_by_service(policy: Policy) -> dict[str, tuple[str, ...]]:
    """Name the zones from which each service is used, in site order.

    These are the zones that it names, and those that its hosts lie in.
    """
    inside = subnet_index(policy)
    order = {zone: number for number, zone in enumerate(policy.zone_names())}
    found = {}
    for service in policy.services:
        near = (zone for host in service.hosts for _, zone in inside.containing(host))
        found[service.name] = tuple(sorted({*service.zones, *near}, key=order.__getitem__))
    return found


def compile_program(
    policy: Policy, addresses: Addresses, slot: int, uids: tuple[int, ...] = (0,)
) -> Program:
    """Compile a policy for one slot of the kernel's table.

    addresses: what is known of every host name; a name without addresses keeps nothing yet.
    slot: number that prefixes every name, so that programs stand side by side.
    uids: whose look-ups to the site's resolvers are lifeline (others are a way out): the daemon's
    own user first, the DNS gate's after it.
    """
    kept = group_lookups(policy, addresses, slot)
    learned = dns_redirect.learned_lookups(policy, service_groups(policy))
    dispatch_sets, dispatch_chains = dispatch.interface_dispatch(policy, slot)
    return Program(
        slot=slot,
        counters=tuple(
            sorted({table_names.counter_name(service.name) for service in policy.services})
        ),
        sets=(
            *dispatch_sets,
            *chains.subnet_sets(policy, slot),
            *lifeline_sets(policy.site, slot),
            *dns_redirect.redirect_sets(policy, slot),
            *(named for one in kept for named in one.sets),
        ),
        # A chain stands after all that it goes to: nft and a reader both go from top to bottom.
        chains=(
            *chains.refusal_chains(policy, slot),
            *chains.gate_chains(policy, slot),
            *chains.zone_chains(policy, kept, learned, slot),
            *chains.gateway_chains(policy, kept, slot),
            *lifeline_chains(policy.site, slot, uids if dns_redirect.is_on(policy) else uids[:1]),
            *dns_redirect.redirect_chains(policy, slot, chains.zone_subnet_sets(policy, slot)),
            *source_check.source_chains(
                policy, slot, chains.zone_subnet_sets(policy, slot), dns_redirect.asked_here(policy)
            ),
            *dispatch_chains,
            *dispatch.forward_chains(policy, slot, dispatch_sets),
            *chains.hook_chains(policy, slot),
        ),
        learned=dns_redirect.learned_sets(policy),
    )


def with_addresses(program: Program, policy: Policy, addresses: Addresses) -> Program:
    """Give the policy's program with these addresses of host names.

    Equal to a whole compilation, at the cost of the host names' maps alone.
    """
    fresh = host_name_maps(policy, addresses, program.slot)
    return replace(program, sets=tuple(fresh.get(named.name, named) for named in program.sets))
