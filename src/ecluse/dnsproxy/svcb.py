"""Filter for service bindings (HTTPS, SVCB; RFC 9460): rebuilt from known, permitted parameters.

Such a record tells a client where else to go: another name, another port, another protocol,
addresses that it never asked for. So only those parts stay that lead where the client is let
through. A client without the record does as before there were such records.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import dns.name
from dns.rdtypes.svcbbase import (
    ALPNParam,
    IPv4HintParam,
    IPv6HintParam,
    Param,
    ParamKey,
    SVCBBase,
)

from ecluse.policy import IPAddress

_TCP, _UDP, _HTTPS_PORT = 6, 17, 443
_HINTS: tuple[tuple[ParamKey, type[IPv4HintParam | IPv6HintParam]], ...] = (
    (ParamKey.IPV4HINT, IPv4HintParam),
    (ParamKey.IPV6HINT, IPv6HintParam),
)
_OVER_TCP = (b"h2", b"http/1.1")
_OVER_UDP = b"h3"
_PROTOCOLS: Callable[[list[bytes]], Param] = ALPNParam


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a client may do: connect to an address, follow to a name, use a protocol's port."""

    address: Callable[[str], bool]
    name: Callable[[dns.name.Name], bool]
    port: Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Binding:
    """What stays of one record (None: nothing), and how many of its hints were taken out."""

    record: SVCBBase | None
    addresses: tuple[IPAddress, ...] = ()
    taken_out: int = 0


def filter_binding(record: SVCBBase, owner: dns.name.Name, allowed: Permissions) -> Binding:
    """Rebuild a record from the permitted parts of its known parameters.

    No key, no path and no unknown parameter comes in this way (docs/security.md).
    """
    if record.target not in {dns.name.root, owner} and not allowed.name(record.target):
        return Binding(None)
    stays: dict[ParamKey, Param | None] = {}
    addresses: list[IPAddress] = []
    taken_out = 0
    for key, kind in _HINTS:
        hint = record.params.get(key)
        good = [one for one in hint.addresses if allowed.address(one)] if hint else []
        taken_out += len(hint.addresses) - len(good) if hint else 0
        addresses += map(ip_address, good)
        if good:
            stays[key] = kind(good)
    if not _reachable(record, stays, allowed):
        return Binding(None, taken_out=taken_out)
    mandatory = record.params.get(ParamKey.MANDATORY)
    if mandatory:
        # A client must ignore a record of which it lacks a mandatory parameter, and so do we.
        if not set(mandatory.keys) <= set(stays):
            return Binding(None, taken_out=taken_out)
        stays[ParamKey.MANDATORY] = mandatory
    made = type(record)(record.rdclass, record.rdtype, record.priority, record.target, stays)
    return Binding(made, tuple(addresses), taken_out)


def _reachable(record: SVCBBase, stays: dict[ParamKey, Param | None], allowed: Permissions) -> bool:
    """Add the kept port and protocols to `stays`; return whether the client can connect by them.

    Without a port of its own a record leads where the client would go anyway.
    """
    port = record.params.get(ParamKey.PORT)
    at = port.port if port else _HTTPS_PORT
    over_tcp = port is None or allowed.port(_TCP, at)
    over_udp = allowed.port(_UDP, at)
    if port:
        stays[ParamKey.PORT] = port
    offered = record.params.get(ParamKey.ALPN)
    spoken = [
        one
        for one in (offered.ids if offered else ())
        if (over_tcp and one in _OVER_TCP) or (over_udp and one == _OVER_UDP)
    ]
    if spoken:
        stays[ParamKey.ALPN] = _PROTOCOLS(spoken)
    if ParamKey.NO_DEFAULT_ALPN in record.params:
        stays[ParamKey.NO_DEFAULT_ALPN] = None
        return bool(spoken)
    return over_tcp or bool(spoken)
