"""The DNS proxy's configuration for a policy at its levels. Pure: equal input, equal output."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ecluse.policy import (
    ADDED_LATER,
    CUT,
    Destination,
    Direction,
    DnsLimits,
    DnsMode,
    InternalDomains,
    IPAddress,
    IPNetwork,
    Levels,
    Policy,
    Traffic,
    level_named,
)
from ecluse.ruleset.compile import zones_by_service
from ecluse.ruleset.dns_redirect import everywhere_open, is_on

HEALTH = "health.ecluse.invalid"
"""The proxy answers `DIGEST.health.ecluse.invalid` if its configuration has that digest."""


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """How a name is answered.

    services: whose sets its addresses go into. records: types that are answered beside addresses.
    private: whether it may stand for a private address (a partner behind a VPN).
    traffic: what is kept to its addresses.
    """

    services: tuple[str, ...]
    records: tuple[str, ...]
    private: bool = False
    traffic: tuple[Traffic, ...] = field(default=(), metadata=ADDED_LATER)

    def keeps(self, protocol: int, port: int) -> bool:
        """Say whether a port is kept at its addresses."""
        return any(
            one.protocol == protocol and (one.first or 0) <= port <= (one.last or 0)
            for one in self.traffic
        )


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """All that the DNS proxy works by: the daemon writes it to one file.

    port: where dnsmasq listens for the zones; the forwarder listens on the next one, on loopback.
    names, wildcards: what is answered (`operator.example` stands for all names below it).
    internal: domains that servers of the inside answer.
    subnets: the inside, which no name of the outside may stand for.
    everything: other names are answered too, while the kernel has every zone open.
    """

    port: int
    interfaces: tuple[str, ...]
    resolvers: tuple[IPAddress, ...]
    names: Mapping[str, NamePolicy]
    wildcards: Mapping[str, NamePolicy]
    internal: tuple[InternalDomains, ...]
    subnets: tuple[IPNetwork, ...]
    limits: DnsLimits
    everything: bool = field(default=False)

    def policy_for(self, name: str) -> NamePolicy | None:
        """Return how a name is answered: as itself, else by the closest wildcard above it.

        name: lower case, no dot at the end.
        """
        if name in self.names:
            return self.names[name]
        wildcard = self.wildcard_of(name)
        return self.wildcards[wildcard] if wildcard else None

    def is_answered_for(self, name: str, service: str) -> bool:
        """Say whether a name, or a wildcard (`*.operator.example`), is answered for a service."""
        answers = self.policy_for(name)
        return answers is not None and service in answers.services

    def wildcard_of(self, name: str) -> str:
        """Return the closest wildcard above a name, empty when there is none."""
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            if rest in self.wildcards:
                return rest
        return ""


def proxy_config_of(policy: Policy, levels: Levels) -> ProxyConfig | None:
    """Return the configuration at these levels, None for a site without the DNS proxy.

    An open zone counts as if it were cut: so the proxy is ready for a cut, which waits for nothing.
    """
    if not is_on(policy):
        return None
    site = policy.site
    found = {zone: level_named(site, levels[zone]) for zone in policy.zone_names()}
    keeps = {zone: CUT.keeps if level.passes_all else level.keeps for zone, level in found.items()}
    used = zones_by_service(policy)
    kept = [s for s in policy.services if any(s.criticality in keeps[z] for z in used[s.name])]
    outward = [
        (s.name, d) for s in kept for d in s.destinations if d.direction is Direction.OUTBOUND
    ]
    wildcards: dict[str, NamePolicy] = {}
    for service, destination in outward:
        for name in destination.wildcards:
            wildcards[name] = _merged(wildcards.get(name), _name_policy(service, destination))
    names: dict[str, NamePolicy] = {}
    for service, destination in outward:
        for name in destination.hosts:
            names[name] = _merged(names.get(name), _name_policy(service, destination))
    # A name below a wildcard is answered for the wildcard's services too, even if it is listed
    # itself.
    for known in (names, wildcards):
        for name, own in known.items():
            for above in _above(name, wildcards):
                own = _merged(own, above)  # noqa: PLW2901 -- grows by each wildcard above it
            known[name] = own
    return ProxyConfig(
        port=site.dns.port,
        interfaces=tuple(sorted({i for zone in site.zones for i in zone.interfaces})),
        resolvers=site.resolvers,
        names=names,
        wildcards=wildcards,
        internal=site.dns.internal,
        subnets=tuple(subnet for zone in site.zones for subnet in zone.subnets),
        limits=site.dns.limits,
        everything=site.dns.mode is DnsMode.ALWAYS and everywhere_open(policy, levels),
    )


def _above(name: str, wildcards: Mapping[str, NamePolicy]) -> Iterator[NamePolicy]:
    while "." in name:
        name = name.partition(".")[2]
        if name in wildcards:
            yield wildcards[name]


def _name_policy(service: str, destination: Destination) -> NamePolicy:
    return NamePolicy((service,), destination.records, destination.private, destination.traffic)


def _merged(before: NamePolicy | None, more: NamePolicy) -> NamePolicy:
    if before is None:
        return more
    return NamePolicy(
        tuple(dict.fromkeys((*before.services, *more.services))),
        tuple(dict.fromkeys((*before.records, *more.records))),
        before.private or more.private,
        tuple(dict.fromkeys((*before.traffic, *more.traffic))),
    )
