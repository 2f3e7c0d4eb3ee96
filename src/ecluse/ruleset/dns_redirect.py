"""The DNS proxy in the ruleset: the redirect of the zones' queries, and look-ups of learned sets.

The sets belong to no slot: a reload, a rollback and a restart lose no learned address. Packets
refresh an address as long as they flow. docs/datapath.md follows a query through all this.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from ecluse.policy import (
    Direction,
    DnsMode,
    IPNetwork,
    Levels,
    Policy,
    Service,
    Traffic,
    Zone,
    level_named,
    network_interval,
)
from ecluse.ruleset import program as p
from ecluse.ruleset import table_names
from ecluse.ruleset.families import FAMILIES, LINK_LOCAL6, Family
from ecluse.ruleset.ingress import from_inside
from ecluse.ruleset.program import Chain, Key, NamedSet, Rule
from ecluse.ruleset.service_maps import ServiceGroup, protocol_in

PRIORITY, PRIORITY_NUMBER = "dstnat - 10", -110
"""Before the site's own port forwards: the first that translates a connection's destination
decides.
"""

HOOK = f"nat prerouting {PRIORITY_NUMBER}"
"""Where the redirect's base chain hangs: type, hook, priority."""

KEPT_FOR = "1h"
"""How long an address is kept after it was last answered, or a packet went to it."""
KEPT_SECONDS = 3600

SIZE = 65535
"""Elements of each set; an address that does not fit is not answered."""

LIMITED_FOR = "1h"
"""How long a machine that asked too much is listed after its last dropped query."""
LIMITED_SIZE = 1024
"""Machines of each family in that list: made-up sources fill no more.

The excess is dropped even when the set is full.
"""

DNS_PORT = 53
REFUSING = "127.0.0.2"
"""dnsmasq asks here for names that are not on its list.

UDP fails at once, so that dnsmasq answers REFUSED itself (`dnsmasq_guard`); by TCP the forwarder
answers.
"""


def is_on(policy: Policy) -> bool:
    """Say whether the site uses the DNS proxy."""
    return policy.site.dns.mode is not DnsMode.NEVER


def redirects(policy: Policy, levels: Levels, zone: str) -> bool:
    """Say whether the DNS proxy answers a zone at these levels.

    At a level that keeps nothing no name is answered. An open zone beside a closed one asks as if
    there were no proxy: the proxy passes on all names for all zones or for none.
    """
    level = level_named(policy.site, levels[zone])
    if level.passes_all:
        return policy.site.dns.mode is DnsMode.ALWAYS and everywhere_open(policy, levels)
    return is_on(policy) and bool(level.keeps)


def everywhere_open(policy: Policy, levels: Levels) -> bool:
    """Say whether every zone is open, the gateway too."""
    return all(level_named(policy.site, levels[zone]).passes_all for zone in policy.zone_names())


def by_name(service: Service) -> bool:
    """Say whether addresses are learned for a service: it connects out, to names."""
    return bool(traffic_by_name(service))


def traffic_by_name(service: Service) -> tuple[Traffic, ...]:
    """Return the kinds of traffic that a service has with names: those that are kept."""
    return tuple(
        dict.fromkeys(
            one
            for d in service.destinations
            if d.direction is Direction.OUTBOUND and (d.hosts or d.wildcards)
            for one in d.traffic
        )
    )


def learned_sets(policy: Policy) -> tuple[str, ...]:
    """Return the learned sets: for each family one of all services, and one for each by name."""
    if not is_on(policy):
        return ()
    services = [s.name for s in policy.services if by_name(s)]
    return tuple(
        name
        for family in FAMILIES
        for name in (
            table_names.learned_set(family.digit),
            *(table_names.learned_set(family.digit, s) for s in services),
        )
    )


def skeleton_parts() -> Iterator[str]:
    """Yield what all slots share, except the learned sets: the redirect's hook, rate-limit sets."""
    yield f"\tcounter {table_names.DNS_LIMITED} {{\n\t}}"
    for family in FAMILIES:
        body = f"type {family.type}\n\t\tsize {SIZE}\n\t\tflags dynamic,timeout\n\t\ttimeout 1m"
        yield f"\tset {table_names.rate_set(family.digit)} {{\n\t\t{body}\n\t}}"
    for family, name in zip(FAMILIES, table_names.LIMITED_SETS, strict=True):
        body = f"type {family.type}\n\t\tsize {LIMITED_SIZE}\n\t\tflags dynamic,timeout"
        yield f"\tset {name} {{\n\t\t{body}\n\t\ttimeout {LIMITED_FOR}\n\t\tcounter\n\t}}"
    yield f"\tchain {table_names.DNS} {{\n\t\ttype nat hook prerouting priority {PRIORITY};\n\t}}"


def learned_parts(sets: tuple[str, ...]) -> Iterator[str]:
    """Yield the learned sets. `dynamic`: packets refresh the elements that they match."""
    for name in sets:
        kind = "ipv6_addr" if name.endswith("6") else "ipv4_addr"
        body = f"type {kind}\n\t\tsize {SIZE}\n\t\tflags dynamic,timeout\n\t\ttimeout {KEPT_FOR}"
        yield f"\tset {name} {{\n\t\t{body}\n\t}}"


@dataclass(frozen=True, slots=True)
class ByName:
    """Look-ups of learned addresses for the services of one group, by address family."""

    keep: ServiceGroup
    rules: Mapping[Family, tuple[Rule, ...]]


def learned_lookups(
    policy: Policy,
    keeps: Mapping[str, tuple[tuple[ServiceGroup, tuple[IPNetwork, ...] | None], ...]],
) -> list[ByName]:
    """Compile the look-ups of every service that is known by name.

    keeps: service -> where and for which hosts.
    """
    if not is_on(policy):
        return []
    return [
        ByName(keep, {family: tuple(_service_rules(service, hosts, family)) for family in FAMILIES})
        for service in policy.services
        if by_name(service)
        for keep, hosts in keeps[service.name]
    ]


def _service_rules(
    service: Service, hosts: tuple[IPNetwork, ...] | None, family: Family
) -> Iterator[Rule]:
    """Yield a rule for each kind of traffic: learned address, the service's port, its sources."""
    sources: tuple[p.Part, ...] = ()
    if hosts is not None:
        mine = tuple(network_interval(host) for host in hosts if host.version == family.version)
        if not mine:
            return
        sources = (p.Match(family.original_source, mine),)
    name = table_names.learned_set(family.digit, service.name)
    for one in traffic_by_name(service):
        yield (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.InSet((family.original_destination,), name),
            *_ports(one, family),
            *sources,
            p.RefreshInSet(family.original_destination, name),
            p.RefreshInSet(family.original_destination, table_names.learned_set(family.digit)),
            p.Counter(table_names.counter_name(service.name)),
            p.ACCEPT,
        )


def _ports(traffic: Traffic, family: Family) -> tuple[p.Part, ...]:
    protocol = p.Match(p.CT_PROTOCOL, (protocol_in(traffic, family),))
    if traffic.first is None or traffic.last is None:
        return (protocol,)
    return (protocol, p.Match(p.CT_PORT, ((traffic.first, traffic.last),)))


def redirect_gate(slot: int, zone: str) -> str:
    """Return the gate chain that says whether a zone's DNS is answered here: one rule."""
    return table_names.gate_chain(slot, f"{table_names.DNS}.{zone}")


def redirect_targets(policy: Policy, slot: int, levels: Levels) -> dict[str, str]:
    """Return where the redirect's base chain and gates go at these levels, empty without proxy."""
    if not is_on(policy):
        return {}
    stem = table_names.prefix(slot)
    wanted = {zone.name: redirects(policy, levels, zone.name) for zone in policy.site.zones}
    targets = {table_names.DNS: stem + (table_names.DNS if any(wanted.values()) else "open")}
    for zone, answered in wanted.items():
        open_ = level_named(policy.site, levels[zone]).passes_all
        way = f"{stem}{table_names.DNS}.redirect" if open_ else _own_redirect(slot, zone)
        targets[redirect_gate(slot, zone)] = way if answered else stem + "open"
    return targets


def _own_redirect(slot: int, zone: str) -> str:
    return f"{table_names.prefix(slot)}{table_names.DNS}.redirect.{table_names.identifier(zone)}"


def redirect_sets(policy: Policy, slot: int) -> list[NamedSet]:
    """Return the map from an interface to the gate chain of its zone."""
    if not is_on(policy):
        return []
    users = _users(policy)
    wild = any(pattern.endswith("*") for pattern in users)
    shared = _sharing(users)
    where: dict[Key, str] = {
        (p.ifname_interval(pattern),): redirect_gate(slot, zones[0])
        if len(zones) == 1
        else _shared(slot, shared[zones])
        for pattern, zones in users.items()
    }
    return [NamedSet(_from(slot), ("ifname",), wild, "verdict", dict(sorted(where.items())))]


def _users(policy: Policy) -> dict[str, tuple[str, ...]]:
    users: dict[str, list[str]] = {}
    for zone in policy.site.zones:
        for pattern in zone.interfaces:
            users.setdefault(pattern, []).append(zone.name)
    return {pattern: tuple(zones) for pattern, zones in users.items()}


def _from(slot: int) -> str:
    return f"{table_names.prefix(slot)}{table_names.DNS}.from"


def _sharing(users: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Number the groups of zones that share an interface: their chains are named by it."""
    groups = sorted({zones for zones in users.values() if len(zones) > 1})
    return {zones: number for number, zones in enumerate(groups, 1)}


def _shared(slot: int, number: int) -> str:
    return f"{table_names.prefix(slot)}{table_names.DNS}.shared{number}"


_QUESTION = (p.Match(p.L4PROTO, (6, 17)), p.Match(p.TH_DPORT, (DNS_PORT,)))


def redirect_chains(policy: Policy, slot: int, answered: Mapping[Family, str]) -> list[Chain]:
    """Return the chains of a query from a zone: its zone's gate, then the redirect to dnsmasq.

    Queries to a server in another zone pass: inside to inside is never touched. Those to a server
    on the gateway are redirected, since it would ask outside for the zone.

    answered: the sets of all zones' subnets.
    """
    if not is_on(policy):
        return []
    stem = table_names.prefix(slot)
    gate = policy.site.dns
    here: Rule = (p.LOCAL, *_QUESTION[:1], p.Redirect(gate.port))
    rules: list[Rule] = [here]
    for family, name in answered.items():
        rules.append(
            (p.Match(p.NFPROTO, (family.nfproto,)), p.InSet((family.destination,), name), p.ACCEPT)
        )
    rules.append((*_QUESTION[:1], p.Redirect(gate.port)))
    shared = []
    for zones, number in _sharing(_users(policy)).items():
        ways: list[Rule] = [
            (
                p.Match(p.NFPROTO, (family.nfproto,)),
                p.Match(
                    family.source,
                    tuple(network_interval(s) for s in zone.subnets if s.version == family.version),
                ),
                p.goto(redirect_gate(slot, zone.name)),
            )
            for zone in policy.site.zones
            if zone.name in zones
            for family in FAMILIES
            if any(s.version == family.version for s in zone.subnets)
        ]
        shared.append(Chain(_shared(slot, number), tuple(ways)))
    shut: Rule = (p.goto(stem + "open"),)
    return [
        Chain(f"{stem}{table_names.DNS}.redirect", tuple(rules)),
        *(_own_redirect_chain(zone, slot) for zone in policy.site.zones),
        *(Chain(redirect_gate(slot, zone.name), (shut,)) for zone in policy.site.zones),
        *shared,
        Chain(stem + table_names.DNS, ((*_QUESTION, p.VerdictMap((p.IIFNAME,), _from(slot))),)),
        Chain(_bound(slot), tuple(_bound_rules(policy, slot, answered))),
        _over_chain(slot),
        Chain(f"{stem}{table_names.DNS}.client", tuple(_client_rules(policy, slot))),
        *_open_input_chains(policy, slot),
    ]


def _own_redirect_chain(zone: Zone, slot: int) -> Chain:
    """Return the chain of a closed zone: only sources in its own subnets are answered.

    Else it could ask with sources of other zones, without a limit. Such packets go on as they came:
    inside to inside is never touched, and the forward hook refuses the rest. Those to the gateway
    are recorded and dropped: another DNS server on it must not answer in our place.
    """
    own = [
        (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.Match(family.source, sources),
            p.goto(f"{table_names.prefix(slot)}{table_names.DNS}.redirect"),
        )
        for family in FAMILIES
        if (sources := _sources(zone.subnets, family))
    ]
    drop: tuple[Rule, ...] = (
        (p.LOCAL, p.jump(table_names.prefix(slot) + "evidence")),
        (p.LOCAL, p.DROP),
    )
    return Chain(_own_redirect(slot, zone.name), (*own, *drop))


def _sources(subnets: tuple[IPNetwork, ...], family: Family) -> tuple[p.Interval, ...]:
    """Return a family's sources in these subnets, and link-local ones, which a router may use."""
    found = tuple(network_interval(s) for s in subnets if s.version == family.version)
    return found if family.version == 4 else (*found, LINK_LOCAL6)


def _client_rules(policy: Policy, slot: int) -> Iterator[Rule]:
    """Yield the rules for packets to dnsmasq: only redirected ones, and so many per client.

    What conntrack does not know was not redirected, and has no original port to be judged by: so a
    machine inside that writes outside sources would be as many clients as it likes.
    """
    for state in ("untracked", "invalid"):
        yield (p.Match(p.CT_STATE, (state,)), p.goto(table_names.prefix(slot) + "refuse"))
    for family in FAMILIES:
        yield (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.Match(p.CT_PROTOCOL, (6, 17)),
            p.Match(p.CT_PORT, (policy.site.dns.port,)),
            p.goto(table_names.prefix(slot) + "refuse"),
        )
    yield from from_inside(slot, p.goto(_bound(slot)))


def _bound(slot: int) -> str:
    return f"{table_names.prefix(slot)}{table_names.DNS}.bound"


def _bound_rules(policy: Policy, slot: int, answered: Mapping[Family, str]) -> Iterator[Rule]:
    """Yield the rate limit of each client, at every level.

    The inside's own DNS servers ask for all machines behind them: only the wildcards' limit holds
    for them. Sources in no zone's subnets come here at `open` alone. They can be made up, so all of
    them share one limit.
    """
    gate = policy.site.dns
    for family in FAMILIES:
        unknown: list[p.Part] = [p.Match(p.NFPROTO, (family.nfproto,))]
        if family.version == 6:
            unknown.append(p.Match(family.source, (LINK_LOCAL6,), negate=True))
        if family in answered:
            unknown.append(p.InSet((family.source,), answered[family], negate=True))
        yield (*unknown, p.RateLimit(gate.limits.client_queries), p.ACCEPT)
        yield (*unknown, p.Counter(table_names.DNS_LIMITED), p.DROP)
    for family in FAMILIES:
        every = {
            int(a) for each in gate.internal for a in each.servers if a.version == family.version
        }
        if every:
            servers = tuple((address, address) for address in sorted(every))
            yield (p.Match(p.NFPROTO, (family.nfproto,)), p.Match(family.source, servers), p.ACCEPT)
        yield (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.RateOver(
                family.source, table_names.rate_set(family.digit), gate.limits.client_queries
            ),
            p.goto(_over(slot)),
        )


def asked_here(policy: Policy) -> tuple[Rule, ...]:
    """Return the rule that tracks queries to the gateway from any source, for the redirect."""
    return ((*_QUESTION, p.LOCAL, p.ACCEPT),) if is_on(policy) else ()


def _over(slot: int) -> str:
    return f"{table_names.prefix(slot)}{table_names.DNS}.over"


def _over_chain(slot: int) -> Chain:
    """Return the chain that lists the machine and drops its query, even if the list is full."""
    listed = (
        (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.AddToSet((family.source.text,), name, LIMITED_FOR),
        )
        for family, name in zip(FAMILIES, table_names.LIMITED_SETS, strict=True)
    )
    return Chain(_over(slot), ((p.Counter(table_names.DNS_LIMITED),), *listed, (p.DROP,)))


def client_jump(policy: Policy, slot: int) -> tuple[Rule, ...]:
    """Return the input rule for packets to dnsmasq, empty without proxy."""
    if not is_on(policy):
        return ()
    return ((*_to_dnsmasq(policy), p.jump(f"{table_names.prefix(slot)}{table_names.DNS}.client")),)


def dnsmasq_guard(policy: Policy) -> tuple[Rule, ...]:
    """Return the output rule that drops dnsmasq's queries to REFUSING; empty without proxy.

    dnsmasq gets EPERM at once and answers REFUSED. Without the rule the query is refused too, at
    four times the cost.
    """
    if not is_on(policy):
        return ()
    nobody = network_interval(ip_network(REFUSING))
    port = p.Match(p.UDP_DPORT, (policy.site.dns.port + 1,))
    return ((p.Match(p.OIFNAME, ("lo",)), p.Match(p.DADDR4, (nobody,)), port, p.DROP),)


def _to_dnsmasq(policy: Policy) -> Rule:
    return (p.Match(p.L4PROTO, (6, 17)), p.Match(p.TH_DPORT, (policy.site.dns.port,)))


def open_input(policy: Policy, slot: int) -> str:
    """Return the chain for input while every zone is open: empty unless the proxy answers then."""
    answers = policy.site.dns.mode is DnsMode.ALWAYS
    return table_names.prefix(slot) + (f"{table_names.DNS}.open" if answers else "open")


def _open_input_chains(policy: Policy, slot: int) -> list[Chain]:
    """Return the rate limit at `open`, for a proxy that answers then.

    Else one machine could take the DNS away from all. Only excess packets to dnsmasq's port are
    dropped, direct or redirected ones.
    """
    if policy.site.dns.mode is not DnsMode.ALWAYS:
        return []
    rules = ((*_to_dnsmasq(policy), *rule) for rule in from_inside(slot, p.jump(_bound(slot))))
    return [Chain(open_input(policy, slot), (*rules, (p.ACCEPT,)))]
