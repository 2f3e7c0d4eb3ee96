"""Which resolved addresses live connections go to. Pure: a policy, what is known of names, and the connection table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ecluse.flows import Connection
from ecluse.policy import GATEWAY, Direction, IPAddress, IPNetwork, Policy, Traffic
from ecluse.policy import Addresses as Resolved


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one destination of a service says of a name: who inside, and which traffic."""

    name: str
    zones: frozenset[str]
    hosts: tuple[IPNetwork, ...]
    traffic: tuple[Traffic, ...]


_Claims = dict[tuple[Direction, IPAddress], list[_Claim]]


def in_use(
    policies: Iterable[Policy], resolved: Resolved, connections: Iterable[Connection]
) -> Mapping[str, frozenset[str]]:
    """Give the addresses, by name, to which a connection that the other end has answered lives for a service of that name.

    Levels do not matter: what the gate lets through at `open`, it shall keep when it is shut. Somebody else's
    connection to the same address (a content network) does not count, nor does knocking at an address where nobody answers.
    """
    found: dict[str, set[str]] = {}
    for policy in policies:
        claims = _claims(policy, resolved)
        for one in connections if claims else ():
            ends = (
                (Direction.OUTBOUND, one.original.destination, one.original.source),
                (Direction.INBOUND, one.original.source, one.reply.source),
            )
            for direction, outer, inner in ends:
                for claim in claims.get((direction, outer), ()) if one.answered else ():
                    if _is_of(claim, policy, one, inner):
                        found.setdefault(claim.name, set()).add(str(outer))
    return {name: frozenset(addresses) for name, addresses in found.items()}


def _claims(policy: Policy, resolved: Resolved) -> _Claims:
    claims: _Claims = {}
    for service in policy.services:
        for destination in service.destinations:
            for name in destination.hosts:
                claim = _Claim(name, frozenset(service.zones), service.hosts, destination.traffic)
                for address in resolved.get(name, ()):
                    claims.setdefault((destination.direction, address), []).append(claim)
    return claims


def _is_of(claim: _Claim, policy: Policy, connection: Connection, inner: IPAddress) -> bool:
    protocol = 1 if connection.protocol == 58 else connection.protocol  # ICMP: one word for both families
    port = connection.original.destination_port
    fits = any(
        traffic.protocol == protocol
        and (traffic.first is None or traffic.last is None or traffic.first <= port <= traffic.last)
        for traffic in claim.traffic
    )
    return fits and (
        (policy.site.zone_of(inner) or GATEWAY) in claim.zones  # what is in no zone is the gateway's own
        or any(host.version == inner.version and inner in host for host in claim.hosts)
    )
