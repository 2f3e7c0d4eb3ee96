"""The DNS gate in the kernel: the redirect of the zones' questions, and what is kept by the names
that it answers.

The sets that it fills belong to no slot: a reload, a rollback and a restart lose no learned
address. Packets keep an address alive as long as they flow. docs/datapath.md tells the way of a
question.
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
"""Bound of each set, in elements; an address for which there is no room is not answered."""

LIMITED_FOR = "1h"
"""How long a machine that asked too much is told of after its last question that was dropped."""
LIMITED_SIZE = 1024
"""Machines of which that is known, of each family: one that makes up sources fills no more.

A full set drops all the same.
"""

DNS_PORT = 53
REFUSING = "127.0.0.2"
"""The engine asks here for what no list of its names holds: refused at once by UDP, which it then
answers itself (`engine_guard`), and by TCP by who listens there.
"""


def is_on(policy: Policy) -> bool:
    """Say whether the site has a DNS gate at all."""
    return policy.site.dns.mode is not DnsMode.NEVER


def redirects(policy: Policy, levels: Levels, zone: str) -> bool:
    """Say whether the gate answers a zone's DNS at these levels.

    Where nothing is kept nobody's name is answered.

    A zone that is open beside one that is not asks as if there were no gate: the gate passes on all
    names for all or for none.
    """
    level = level_named(policy.site, levels[zone])
    if level.passes_all:
        return policy.site.dns.mode is DnsMode.ALWAYS and everywhere_open(policy, levels)
    return is_on(policy) and bool(level.keeps)


def everywhere_open(policy: Policy, levels: Levels) -> bool:
    """Say whether every zone is open, the gateway too."""
    return all(level_named(policy.site, levels[zone]).passes_all for zone in policy.zone_names())


def by_name(service: Service) -> bool:
    """Say whether the gate learns addresses for a service: it connects out, to names."""
    return bool(traffic_by_name(service))


def traffic_by_name(service: Service) -> tuple[Traffic, ...]:
    """Give the kinds of traffic that a service has with names: what is learned for it is kept for
    these.
    """
    return tuple(
        dict.fromkeys(
            one
            for d in service.destinations
            if d.direction is Direction.OUTBOUND and (d.hosts or d.wildcards)
            for one in d.traffic
        )
    )


def learned_sets(policy: Policy) -> tuple[str, ...]:
    """Name the sets that the gate fills: of each family one for all services, and one for each that
    is known by name.
    """
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
    """Write what all slots share of the gate, but for the sets: the hook of the redirect, and the
    bound of each client.
    """
    yield f"\tcounter {table_names.DNS_LIMITED} {{\n\t}}"
    for family in FAMILIES:
        body = f"type {family.type}\n\t\tsize {SIZE}\n\t\tflags dynamic,timeout\n\t\ttimeout 1m"
        yield f"\tset {table_names.rate_set(family.digit)} {{\n\t\t{body}\n\t}}"
    for family, name in zip(FAMILIES, table_names.LIMITED_SETS, strict=True):
        body = f"type {family.type}\n\t\tsize {LIMITED_SIZE}\n\t\tflags dynamic,timeout"
        yield f"\tset {name} {{\n\t\t{body}\n\t\ttimeout {LIMITED_FOR}\n\t\tcounter\n\t}}"
    yield f"\tchain {table_names.DNS} {{\n\t\ttype nat hook prerouting priority {PRIORITY};\n\t}}"


def learned_parts(sets: tuple[str, ...]) -> Iterator[str]:
    """Write the sets that the gate fills. `dynamic`: packets refresh what they find there."""
    for name in sets:
        kind = "ipv6_addr" if name.endswith("6") else "ipv4_addr"
        body = f"type {kind}\n\t\tsize {SIZE}\n\t\tflags dynamic,timeout\n\t\ttimeout {KEPT_FOR}"
        yield f"\tset {name} {{\n\t\t{body}\n\t}}"


@dataclass(frozen=True, slots=True)
class ByName:
    """Look-ups for what the gate learned, of the services of one keep: for packets of one family,
    from one zone or more.
    """

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
    """Write a rule for each kind of traffic: the address is learned, the port is the service's, the
    source may use it.
    """
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
    """Name the gate that says whether a zone's DNS is answered here: one rule, as every gate."""
    return table_names.gate_chain(slot, f"{table_names.DNS}.{zone}")


def redirect_targets(policy: Policy, slot: int, levels: Levels) -> dict[str, str]:
    """Say where the redirect's own base chain and gates go at these levels; nothing for a site
    without a gate.
    """
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
    """Give the map from an interface to the gate of its zone."""
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
    """Number the groups of zones that share an interface: a name made of theirs would have no
    bound.
    """
    groups = sorted({zones for zones in users.values() if len(zones) > 1})
    return {zones: number for number, zones in enumerate(groups, 1)}


def _shared(slot: int, number: int) -> str:
    return f"{table_names.prefix(slot)}{table_names.DNS}.shared{number}"


_QUESTION = (p.Match(p.L4PROTO, (6, 17)), p.Match(p.TH_DPORT, (DNS_PORT,)))


def redirect_chains(policy: Policy, slot: int, answered: Mapping[Family, str]) -> list[Chain]:
    """Give the way of a zone's question: its zone's gate, then here, whatever server it was meant
    for.

    A server in another zone is left alone (inside to inside is never touched); one on the gateway
    itself is not: what it would ask outside is what the gate is there to judge. answered: the sets
    of all zones' subnets.
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
    """Where a level judges the zone: only its own subnets are answered, or it could ask in others'
    names without a bound.

    Others go on as they came: inside to inside is never touched, and forward refuses the rest. What
    is meant for the gateway is dropped here, recorded and in silence: a server of its own must not
    be asked in our stead.
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
    """Give what a family's sources in these subnets may be; link-local ones are everywhere (a
    router names itself so).
    """
    found = tuple(network_interval(s) for s in subnets if s.version == family.version)
    return found if family.version == 4 else (*found, LINK_LOCAL6)


def _client_rules(policy: Policy, slot: int) -> Iterator[Rule]:
    """Judge what reaches the engine: only what was redirected, and of each client only so much a
    second.

    A packet from outside that conntrack does not know has no port to be judged by: it goes on to be
    refused as all such are.
    """
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
    """Bound the questions of each client, whatever the level.

    The inside's own DNS servers ask for all the machines behind them: they have no bound but that
    of the wildcards. Sources in no zone's subnets get here at `open` alone. Whoever makes them up
    has as many as he likes: all have one bound.
    """
    gate = policy.site.dns
    for family in FAMILIES:
        stranger: list[p.Part] = [p.Match(p.NFPROTO, (family.nfproto,))]
        if family.version == 6:
            stranger.append(p.Match(family.source, (LINK_LOCAL6,), negate=True))
        if family in answered:
            stranger.append(p.InSet((family.source,), answered[family], negate=True))
        yield (*stranger, p.RateLimit(gate.limits.client_queries), p.ACCEPT)
        yield (*stranger, p.Counter(table_names.DNS_LIMITED), p.DROP)
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
    """Give the rule that has questions to the gateway itself tracked whatever their source: the
    redirect has to judge them.
    """
    return ((*_QUESTION, p.LOCAL, p.ACCEPT),) if is_on(policy) else ()


def _over(slot: int) -> str:
    return f"{table_names.prefix(slot)}{table_names.DNS}.over"


def _over_chain(slot: int) -> Chain:
    """Drop what is more than a machine may ask, and write down whose it was: a set without room
    costs that alone.
    """
    noted = (
        (
            p.Match(p.NFPROTO, (family.nfproto,)),
            p.AddToSet((family.source.text,), name, LIMITED_FOR),
        )
        for family, name in zip(FAMILIES, table_names.LIMITED_SETS, strict=True)
    )
    return Chain(_over(slot), ((p.Counter(table_names.DNS_LIMITED),), *noted, (p.DROP,)))


def client_jump(policy: Policy, slot: int) -> tuple[Rule, ...]:
    """Give the rule of input that sends the engine's packets to be judged; nothing for a site
    without a gate.
    """
    if not is_on(policy):
        return ()
    return ((*_to_engine(policy), p.jump(f"{table_names.prefix(slot)}{table_names.DNS}.client")),)


def engine_guard(policy: Policy) -> tuple[Rule, ...]:
    """Give the rule of output that refuses what the engine sends to nobody: it is told at once
    (EPERM), and says REFUSED.

    Without the rule such a question costs four times as much, and is refused all the same.
    """
    if not is_on(policy):
        return ()
    nobody = network_interval(ip_network(REFUSING))
    port = p.Match(p.UDP_DPORT, (policy.site.dns.port + 1,))
    return ((p.Match(p.OIFNAME, ("lo",)), p.Match(p.DADDR4, (nobody,)), port, p.DROP),)


def _to_engine(policy: Policy) -> Rule:
    return (p.Match(p.L4PROTO, (6, 17)), p.Match(p.TH_DPORT, (policy.site.dns.port,)))


def open_input(policy: Policy, slot: int) -> str:
    """Name the chain that input goes to while every zone is open: to nothing, but where the gate
    answers then too.
    """
    answers = policy.site.dns.mode is DnsMode.ALWAYS
    return table_names.prefix(slot) + (f"{table_names.DNS}.open" if answers else "open")


def _open_input_chains(policy: Policy, slot: int) -> list[Chain]:
    """Bound each machine of the inside where the gate answers at `open`: one of them could take the
    DNS away from all.

    Only an excess of packets for the engine's port is dropped, asked there outright or redirected;
    all else passes unseen.
    """
    if policy.site.dns.mode is not DnsMode.ALWAYS:
        return []
    rules = ((*_to_engine(policy), *rule) for rule in from_inside(slot, p.jump(_bound(slot))))
    return [Chain(open_input(policy, slot), (*rules, (p.ACCEPT,)))]
