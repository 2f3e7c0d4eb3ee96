"""The addresses of names that live connections go to. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ecluse.flow_judge import ConntrackEntry
from ecluse.policy import GATEWAY, Direction, IPAddress, IPNetwork, Policy, Traffic
from ecluse.policy import Addresses as Resolved
from ecluse.ruleset import table_names
from ecluse.ruleset.dns_redirect import by_name, traffic_by_name


@dataclass(frozen=True, slots=True)
class _Claim:
    """Which traffic, of which machines inside, a service has with addresses of a name.

    name: the host name; for learned addresses, the service.
    """

    name: str
    zones: frozenset[str]
    hosts: tuple[IPNetwork, ...]
    traffic: tuple[Traffic, ...]


_Claims = dict[tuple[Direction, IPAddress], list[_Claim]]


def in_use(
    policies: Iterable[Policy], resolved: Resolved, connections: Iterable[ConntrackEntry]
) -> Mapping[str, frozenset[str]]:
    """Give the addresses, by name, to which a service of that name has a live connection.

    Alive is one that the other end has answered.

    Levels do not matter: what the gate lets through at `open`, it shall keep when it is shut.
    Somebody else's connection to the same address (a content network) does not count, nor does
    knocking at an address where nobody answers.
    """
    found = _found(policies, lambda policy: _claims(policy, resolved), connections)
    return {name: frozenset(map(str, addresses)) for name, addresses in found.items()}


def learned_in_use(
    policies: Iterable[Policy],
    learned: Mapping[str, frozenset[int]],
    connections: Iterable[ConntrackEntry],
) -> Mapping[str, frozenset[IPAddress]]:
    """Give the learned addresses, by set, to which their service has a live connection.

    learned: the sets of the DNS proxy (`Firewall.learned`). What counts is as in `in_use`.
    """
    sets: dict[str, set[IPAddress]] = {}
    for service, addresses in _found(
        policies, lambda p: _learned_claims(p, learned), connections
    ).items():
        for address in addresses:
            family = str(address.version)
            for name in (table_names.learned_set(family, service), table_names.learned_set(family)):
                sets.setdefault(name, set()).add(address)
    return {name: frozenset(addresses) for name, addresses in sets.items()}


def _found(
    policies: Iterable[Policy],
    claims_of: Callable[[Policy], _Claims],
    connections: Iterable[ConntrackEntry],
) -> Mapping[str, set[IPAddress]]:
    found: dict[str, set[IPAddress]] = {}
    for policy in policies:
        claims = claims_of(policy)
        for one in connections if claims else ():
            ends = (
                (Direction.OUTBOUND, one.original.destination, one.original.source),
                (Direction.INBOUND, one.original.source, one.reply.source),
            )
            for direction, outer, inner in ends:
                for claim in claims.get((direction, outer), ()) if one.answered else ():
                    if _is_of(claim, policy, one, inner):
                        found.setdefault(claim.name, set()).add(outer)
    return found


def _claims(policy: Policy, resolved: Resolved) -> _Claims:
    claims: _Claims = {}
    for service in policy.services:
        for destination in service.destinations:
            for name in destination.hosts:
                claim = _Claim(name, frozenset(service.zones), service.hosts, destination.traffic)
                for address in resolved.get(name, ()):
                    claims.setdefault((destination.direction, address), []).append(claim)
    return claims


def _learned_claims(policy: Policy, learned: Mapping[str, frozenset[int]]) -> _Claims:
    claims: _Claims = {}
    for service in filter(by_name, policy.services):
        claim = _Claim(
            service.name, frozenset(service.zones), service.hosts, traffic_by_name(service)
        )
        for digit, address in (("4", IPv4Address), ("6", IPv6Address)):
            for number in learned.get(table_names.learned_set(digit, service.name), ()):
                claims.setdefault((Direction.OUTBOUND, address(number)), []).append(claim)
    return claims


def _is_of(claim: _Claim, policy: Policy, connection: ConntrackEntry, inner: IPAddress) -> bool:
    protocol = (
        1 if connection.protocol == 58 else connection.protocol
    )  # ICMP: one word for both families
    port = connection.original.destination_port
    fits = any(
        traffic.protocol == protocol
        and (traffic.first is None or traffic.last is None or traffic.first <= port <= traffic.last)
        for traffic in claim.traffic
    )
    return fits and (
        (policy.site.zone_of(inner) or GATEWAY)
        in claim.zones  # what is in no zone is the gateway's own
        or any(host.version == inner.version and inner in host for host in claim.hosts)
    )
