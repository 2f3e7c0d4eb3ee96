"""What the DNS gate is to answer, for a policy at its levels: pure, the same input gives the same
orders.
"""

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
"""Under this name the gate answers for itself: `DIGEST.health.ecluse.invalid`, where it works by
the orders of that digest.
"""


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """How a name is answered: for which services, so into which sets; which types of records beside
    addresses.

    private: it may stand for a private address (a partner behind a VPN). traffic: what is kept to
    its addresses.
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
    """All that the gate's process works by. The daemon writes them, whole and in one file.

    port: where the engine listens for the zones; the next one, on loopback, is where the strainer
    listens for the engine.
    names, wildcards: what is answered (`operator.example` stands for all below it). everything:
    other names are passed on too, while the kernel's gates say that every zone is open. subnets:
    the inside, which no name of the outside may point to.
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

    def answers(self, name: str) -> NamePolicy | None:
        """Say how a name (lower case, no dot at the end) is answered: as itself, else by the
        closest wildcard above it.
        """
        if name in self.names:
            return self.names[name]
        wildcard = self.wildcard_of(name)
        return self.wildcards[wildcard] if wildcard else None

    def leads(self, name: str, service: str) -> bool:
        """Say whether a name, or what lies below a wildcard (`*.operator.example`), is answered for
        a service.
        """
        answers = self.answers(name)
        return answers is not None and service in answers.services

    def wildcard_of(self, name: str) -> str:
        """Give the closest wildcard above a name, empty when there is none."""
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            if rest in self.wildcards:
                return rest
        return ""


def proxy_config_of(policy: Policy, levels: Levels) -> ProxyConfig | None:
    """Say what the gate has to answer at these levels; None when the site has no gate.

    A zone that is open counts as if it were cut: so a cut finds the gate as it needs it, and waits
    for nothing.
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
            wildcards[name] = _joined(wildcards.get(name), _of(service, destination))
    names: dict[str, NamePolicy] = {}
    for service, destination in outward:
        for name in destination.hosts:
            names[name] = _joined(names.get(name), _of(service, destination))
    # What lies below a wildcard is answered for its services too, whether a name stands for itself
    # or not.
    for known in (names, wildcards):
        for name, own in known.items():
            for above in _above(name, wildcards):
                own = _joined(own, above)  # noqa: PLW2901 -- grows by each wildcard above it
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


def _of(service: str, destination: Destination) -> NamePolicy:
    return NamePolicy((service,), destination.records, destination.private, destination.traffic)


def _joined(before: NamePolicy | None, more: NamePolicy) -> NamePolicy:
    if before is None:
        return more
    return NamePolicy(
        tuple(dict.fromkeys((*before.services, *more.services))),
        tuple(dict.fromkeys((*before.records, *more.records))),
        before.private or more.private,
        tuple(dict.fromkeys((*before.traffic, *more.traffic))),
    )
