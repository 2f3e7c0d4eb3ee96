"""Warnings about DNS: zones whose machines can't resolve names at a cut."""

from collections.abc import Iterator

from ecluse.config.yaml_tree import Document
from ecluse.faults import Fault
from ecluse.policy import GATEWAY, Direction, DnsMode, Level, Policy, Service
from ecluse.ruleset.compile import zones_by_service

_UDP, _DNS_PORT = 17, 53
_NAMED = 3


def dns_warnings(policy: Policy, document: Document) -> Iterator[Fault]:
    """Yield warnings: names in the allowlist, but no DNS to resolve them."""
    lacking: dict[str, tuple[Level, list[str]]] = {}
    asking = [service for service in policy.services if _asks_outside(service)]
    used = zones_by_service(policy)
    named = [(service, used[service.name]) for service in policy.services if _by_name(service)]
    for level in policy.site.levels:  # the most closed one that keeps a name is named
        if level.passes_all or not level.keeps:
            continue
        servers = [service for service in asking if service.criticality in level.keeps]
        without = {zone for zone in policy.zone_names() if not _has_dns(policy, servers, zone)}
        found: dict[str, list[str]] = {}
        for service, zones in named:
            for zone in without.intersection(zones) if service.criticality in level.keeps else ():
                found.setdefault(zone, []).append(service.name)
        lacking |= {zone: (level, services) for zone, services in found.items()}
    for zone in policy.zone_names():
        if zone in lacking:
            yield _without_dns(policy, document, *lacking[zone], zone)


def _without_dns(
    policy: Policy, document: Document, level: Level, services: list[str], zone: str
) -> Fault:
    said = ", ".join(f"'{name}'" for name in services[:_NAMED])
    more = f" and {len(services) - _NAMED} more" if len(services) > _NAMED else ""
    are = "is" if len(services) == 1 else "are"
    zones = [one.name for one in policy.site.zones]
    where = ("zones", zones.index(zone)) if zone in zones else ()
    gate = "" if zone == GATEWAY else ", or dns_gate: {mode: cut}"
    wrong = (
        f"at '{level.name}' zone '{zone}' has no DNS: {said}{more} {are} known by name, and port 53"
        " is kept neither for it nor for a server that it could ask. Better: a service that"
        f" '{level.name}' keeps with ports: [udp/53, tcp/53] for the DNS servers{gate}"
    )
    return document.fault(where, wrong)


def _has_dns(policy: Policy, servers: list[Service], zone: str) -> bool:
    """Say whether a zone's machines have a DNS server that they can ask.

    Traffic within the inside, and between it and the gateway, always passes. So any kept service
    for a DNS server of the inside (`hosts`) or for the gateway serves every zone. The DNS gate
    answers zones, not the gateway's own programs; servers of the inside answer these.

    Args:
        servers: the services that the level keeps and that may ask outside.
    """
    gate = policy.site.dns
    if gate.mode is not DnsMode.NEVER and (zone != GATEWAY or gate.internal):
        return True
    return any(one.hosts or not {zone, GATEWAY}.isdisjoint(one.zones) for one in servers)


def _asks_outside(service: Service) -> bool:
    return any(
        one.protocol == _UDP and (one.first or 0) <= _DNS_PORT <= (one.last or 0)
        for destination in service.destinations
        if destination.direction is Direction.OUTBOUND
        for one in destination.traffic
    )


def _by_name(service: Service) -> bool:
    return any(
        (d.hosts or d.wildcards) and d.direction is Direction.OUTBOUND for d in service.destinations
    )
