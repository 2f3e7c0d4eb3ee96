"""Advice on host names: their states for `status`, and what a person can do. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_address

from ecluse.policy import GATEWAY, IPNetwork, Policy, Service, private_kind
from ecluse.records import KnownName, NameStatistics
from ecluse.results import AddressState, NameState

MANY_TURNS = 3
"""A name rotates if this many answers, and at least half of them, had an unknown address."""
UNUSED = timedelta(days=7)
"""A name that was not used for so long is perhaps no longer needed."""

SHARED_NETWORKS = (
    *(
        "akamai.net",
        "akamaiedge.net",
        "edgekey.net",
        "edgesuite.net",
        "cloudfront.net",
        "fastly.net",
    ),
    *(
        "fastlylb.net",
        "cloudflare.net",
        "azureedge.net",
        "azurefd.net",
        "trafficmanager.net",
        "b-cdn.net",
    ),
    *(
        "cdn77.org",
        "gcdn.co",
        "impervadns.net",
        "incapdns.net",
        "edgecastcdn.net",
        "llnwd.net",
        "cdngc.net",
    ),
    *(
        "googleusercontent.com",
        "ghs.googlehosted.com",
        "elb.amazonaws.com",
        "awsglobalaccelerator.com",
    ),
)
"""Where the CNAMEs of names behind well-known content networks and shared front ends lead."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All that is known of names now.

    last_good: how long an address is kept after its last answer while the resolvers fail.
    owners: address -> names that have it.
    """

    known: Mapping[str, KnownName]
    statistics: Mapping[str, NameStatistics]
    last_good: timedelta
    now: datetime
    owners: Mapping[str, tuple[str, ...]]


def owners_of(known: Mapping[str, KnownName]) -> Mapping[str, tuple[str, ...]]:
    """Return the names that have each address."""
    owners: dict[str, list[str]] = {}
    for name in sorted(known):
        for each in known[name].addresses:
            owners.setdefault(each.address, []).append(name)
    return {address: tuple(names) for address, names in owners.items()}


def names_of(service: Service) -> list[str]:
    """Return the host names of a service, sorted."""
    return sorted({host for destination in service.destinations for host in destination.hosts})


def _entry(service: Service, host: str, knowledge: Knowledge) -> KnownName:
    """Return what is known of a name; private addresses only if this service may have them."""
    entry = knowledge.known.get(host, KnownName(host, ()))
    if any(
        destination.private and host in destination.hosts for destination in service.destinations
    ):
        return entry
    addresses = tuple(
        each for each in entry.addresses if not private_kind(ip_address(each.address))
    )
    return replace(entry, addresses=addresses)


def address_states(service: Service, knowledge: Knowledge) -> Iterator[AddressState]:
    """Yield the addresses of a service's names."""
    for host in names_of(service):
        for item in _entry(service, host, knowledge).addresses:
            until = item.kept_until(knowledge.last_good)
            yield AddressState(
                name=host,
                address=item.address,
                age=_age(item.seen, knowledge.now),
                expired=item.expires < knowledge.now,
                ttl=item.ttl,
                resolvers=item.by,
                left=item.left,
                used=item.used,
                # An address that its name still has is kept on with each answer.
                kept_until=until if item.left or item.expires < knowledge.now else None,
            )


def _age(moment: datetime, now: datetime) -> int:
    return max(0, int((now - moment).total_seconds()))


def name_states(policy: Policy, service: Service, knowledge: Knowledge) -> Iterator[NameState]:
    """Yield each name of a service, with advice."""
    for host in names_of(service):
        entry = _entry(service, host, knowledge)
        statistics = knowledge.statistics.get(host, NameStatistics())
        yield NameState(
            name=host,
            alias=entry.alias,
            asked=entry.asked,
            failure=entry.failure,
            addresses=len(entry.addresses),
            left=sum(each.left is not None for each in entry.addresses),
            kept_until=_last_good_until(entry, knowledge),
            used=max((each.used for each in entry.addresses if each.used), default=None),
            lookups=statistics.lookups,
            outcomes=statistics.outcomes,
            warnings=tuple(_advice(policy, service, entry, statistics, knowledge)),
        )


def failures(service: Service, knowledge: Knowledge) -> Iterator[str]:
    """Yield what is wrong with a service's names now, for `status`; advice would be noise there."""
    for host in names_of(service):
        yield from _about_failure(_entry(service, host, knowledge), knowledge)


def _last_good_until(entry: KnownName, knowledge: Knowledge) -> datetime | None:
    """Return until when a name that can't be resolved keeps its addresses; None for others."""
    if not entry.failure or any(each.seen == entry.asked for each in entry.addresses):
        return None
    return max((each.kept_until(knowledge.last_good) for each in entry.addresses), default=None)


def _advice(
    policy: Policy,
    service: Service,
    entry: KnownName,
    statistics: NameStatistics,
    knowledge: Knowledge,
) -> Iterator[str]:
    host = entry.name
    if statistics.turned >= MANY_TURNS and statistics.turned * 2 >= statistics.answers:
        yield (
            f"{host} gives other addresses with nearly every answer ({statistics.turned} of"
            f" {statistics.answers}): a machine may hold one that was never seen here, and is"
            " refused; ask the partner for fixed addresses or prefixes"
        )
    elif statistics.early >= MANY_TURNS:
        yield (
            f"{host} rotates faster than its TTL, or each resolver is told something else"
            f" ({statistics.early} of {statistics.answers} answers): let the inside ask the same"
            " resolvers as this gateway"
        )
    shared = shared_by(entry, knowledge.owners)
    if shared:
        yield f"{host} {shared}: allowing it allows its neighbours there as well"
    yield from _about_families(policy, service, entry)
    yield from _about_inside(policy, entry)
    age = knowledge.now - (entry.since or knowledge.now)
    if entry.addresses and age >= UNUSED and not any(each.used for each in entry.addresses):
        yield f"{host} was never seen in use in {age.days} days: is it still needed?"


def _about_failure(entry: KnownName, knowledge: Knowledge) -> Iterator[str]:
    if not entry.addresses:
        failure = f" ({entry.failure})" if entry.failure else ""
        yield f"{entry.name} has no address yet{failure}: nothing is kept for it"
        return
    until = _last_good_until(entry, knowledge)
    if until is not None:
        yield (
            f"{entry.name} can't be resolved now ({entry.failure}); its last known addresses are"
            f" kept until {until:%Y-%m-%d %H:%M} UTC at most, longer where they are in use"
        )
    elif entry.failure:
        yield f"{entry.name} is resolved in part only ({entry.failure})"


def shared_by(entry: KnownName, owners: Mapping[str, tuple[str, ...]]) -> str:
    """Say with whom a name shares its addresses, empty if with nobody.

    owners: address -> names that have it; names of the same domain (two labels) do not count.
    """
    alias = f".{entry.alias}"
    network = next((net for net in SHARED_NETWORKS if alias.endswith(f".{net}")), "")
    if network:
        return f"is served by a shared content network ({network})"
    domain = entry.name.split(".")[-2:]
    names = (name for each in entry.addresses for name in owners.get(each.address, ()))
    other = next((name for name in names if name.split(".")[-2:] != domain), "")
    return f"shares an address with {other}" if other else ""


def _about_families(policy: Policy, service: Service, entry: KnownName) -> Iterator[str]:
    families = {ip_address(each.address).version for each in entry.addresses}
    if families != {6}:
        return
    inside = {network.version for network in _inside(policy, service)}
    if GATEWAY not in service.zones and 6 not in inside:
        yield (
            f"{entry.name} has IPv6 addresses only, and the inside of '{service.name}' has no IPv6:"
            " nothing reaches it"
        )
    elif 4 in inside or GATEWAY in service.zones:
        yield f"{entry.name} has IPv6 addresses only: machines without IPv6 don't reach it"


def _inside(policy: Policy, service: Service) -> Iterable[IPNetwork]:
    zones = (zone.subnets for zone in policy.site.zones if zone.name in service.zones)
    return [*service.hosts, *(subnet for subnets in zones for subnet in subnets)]


def _about_inside(policy: Policy, entry: KnownName) -> Iterator[str]:
    for each in entry.addresses:
        zone = policy.site.zone_of(ip_address(each.address))
        if zone:
            yield (
                f"{entry.name} leads to {each.address} inside zone '{zone}':"
                " traffic to it never crosses the gate"
            )
            return
