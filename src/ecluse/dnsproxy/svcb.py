"""What of a service binding (HTTPS, SVCB; RFC 9460) comes back: each record is made anew, from what
is known to be safe.

Such a record tells a client where else to go: another name, another port, another protocol,
addresses that it never asked for. So it stays only as far as the client is let through there. A
client without it does as before there were such records.
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
class Leave:
    """What the orders let a client do: connect to an address (text), follow to another name, use a
    protocol's port.
    """

    address: Callable[[str], bool]
    name: Callable[[dns.name.Name], bool]
    port: Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Binding:
    """What stays of one record.

    record: None when nothing does. taken_out: hints that may not be.
    """

    record: SVCBBase | None
    addresses: tuple[IPAddress, ...] = ()
    taken_out: int = 0


def filter_binding(record: SVCBBase, owner: dns.name.Name, leave: Leave) -> Binding:
    """Make a record anew.

    Known parameters alone: no key, no path and no unknown one comes in by it (docs/security.md).
    """
    if record.target not in {dns.name.root, owner} and not leave.name(record.target):
        return Binding(None)
    stays: dict[ParamKey, Param | None] = {}
    addresses: list[IPAddress] = []
    taken_out = 0
    for key, kind in _HINTS:
        hint = record.params.get(key)
        good = [one for one in hint.addresses if leave.address(one)] if hint else []
        taken_out += len(hint.addresses) - len(good) if hint else 0
        addresses += map(ip_address, good)
        if good:
            stays[key] = kind(good)
    if not _reachable(record, stays, leave):
        return Binding(None, taken_out=taken_out)
    mandatory = record.params.get(ParamKey.MANDATORY)
    if mandatory:
        # A client that does without what is mandatory would be led astray: it must pass over such a
        # record, and so do we.
        if not set(mandatory.keys) <= set(stays):
            return Binding(None, taken_out=taken_out)
        stays[ParamKey.MANDATORY] = mandatory
    made = type(record)(record.rdclass, record.rdtype, record.priority, record.target, stays)
    return Binding(made, tuple(addresses), taken_out)


def _reachable(record: SVCBBase, stays: dict[ParamKey, Param | None], leave: Leave) -> bool:
    """Take over port and protocols as far as they are kept; say whether a client that follows them
    arrives.

    Without a port of its own a record leads where the client would go anyway, so there is nothing
    to judge.
    """
    port = record.params.get(ParamKey.PORT)
    at = port.port if port else _HTTPS_PORT
    over_tcp = port is None or leave.port(_TCP, at)
    over_udp = leave.port(_UDP, at)
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
