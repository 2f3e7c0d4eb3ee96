"""One host name asked of every resolver at once: what they answered, judged and united. Nothing is kept here."""

import asyncio
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from ecluse.policy import IPAddress

Server = tuple[str, int]
"""Address and port of a resolver."""

_ATTEMPTS = 2
_EDNS_PAYLOAD = 1232  # bytes: DNS flag day 2020, no answer is fragmented; longer ones come by TCP
_ASKED = (dns.rdatatype.A, dns.rdatatype.AAAA)
_BROKEN = (dns.exception.DNSException, OSError, EOFError, ValueError, struct.error)

_REFUSED: tuple[tuple[IPv4Network | IPv6Network, str], ...] = tuple(
    (ip_network(prefix), kind)
    for kind, prefixes in (
        ("an unspecified address", ("0.0.0.0/8", "::/128")),
        ("a loopback address", ("127.0.0.0/8", "::1/128")),
        ("a link-local address", ("169.254.0.0/16", "fe80::/10")),
        ("a multicast address", ("224.0.0.0/4", "ff00::/8")),
        ("a reserved address", ("240.0.0.0/4", "::ffff:0:0/96", "::/96")),
        ("a private address", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
        ("a private address of a provider", ("100.64.0.0/10",)),  # RFC 6598
    )
    for prefix in prefixes
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the resolvers together said of a name.

    ttls: address -> seconds, the minimum over the CNAME chain; the longest when several resolvers gave it.
    answered: families (4, 6) that at least one resolver answered without failure, be it with no address.
    failures: in words, once each: what failed, and which addresses were refused.
    """

    ttls: dict[IPAddress, int]
    answered: frozenset[int]
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """One resolver's answer about one family; failure is empty when it answered."""

    family: int
    ttls: dict[IPAddress, int]
    failure: str = ""


def refusal(address: IPAddress) -> str:
    """Say why an address is no destination on the outside; empty when it may be one.

    A public name that leads to an inside or local address is a mistake or an attack (DNS rebinding): whoever means it
    writes the address itself in the allowlist.
    """
    for network, kind in _REFUSED:
        if address.version == network.version and address in network:
            return kind
    return ""


async def look_up(name: str, servers: Sequence[Server], seconds: float) -> Answer:
    """Ask every server for A and AAAA at the same time, for at most `seconds` each. Never raises but when cancelled."""
    try:
        question = dns.name.from_text(name)
    except (dns.exception.DNSException, ValueError) as error:
        return Answer({}, frozenset(), (f"not a host name: {error}",))
    asks = [_ask(server, question, kind, seconds) for server in servers for kind in _ASKED]
    return _unite(await asyncio.gather(*asks))


def _unite(parts: Iterable[_Part]) -> Answer:
    judged = [_refuse(part) for part in parts]
    ttls: dict[IPAddress, int] = {}
    for part, _ in judged:
        for address, ttl in part.ttls.items():
            ttls[address] = max(ttl, ttls.get(address, 0))
    answered = frozenset(part.family for part, _ in judged if not part.failure)
    # One resolver of two that answers is enough; what was refused is told all the same.
    broken = [part.failure for part, _ in judged if part.failure and part.family not in answered]
    refused = [words for _, words in judged if words]
    return Answer(ttls, answered, tuple(dict.fromkeys([*broken, *refused])))


def _refuse(part: _Part) -> tuple[_Part, str]:
    """Take out what is no destination, and say so in words. A part of nothing else counts as a failure, not as empty."""
    why = {address: refusal(address) for address in part.ttls}
    words = ", ".join(f"{address} ({reason})" for address, reason in why.items() if reason)
    if not words:
        return part, ""
    told = f"refused {words}; if it is meant, write it as an address in the allowlist"
    ttls = {address: ttl for address, ttl in part.ttls.items() if not why[address]}
    return _Part(part.family, ttls, "" if ttls else told), told


async def _ask(server: Server, name: dns.name.Name, kind: dns.rdatatype.RdataType, seconds: float) -> _Part:
    family = 4 if kind == dns.rdatatype.A else 6
    try:
        async with asyncio.timeout(seconds):
            return _judge(server, family, await _exchange(server, name, kind, seconds))
    except TimeoutError:
        return _Part(family, {}, f"{server[0]} did not answer within {seconds:g} s")
    except _BROKEN as error:
        return _Part(family, {}, f"{server[0]}: {error or type(error).__name__}")


async def _exchange(
    server: Server, name: dns.name.Name, kind: dns.rdatatype.RdataType, seconds: float
) -> dns.message.Message:
    """Give the server's response: by UDP, twice if need be, and by TCP when it was truncated.

    dnspython draws the query id, the kernel the port; a datagram from elsewhere, with another id or another question
    is not looked at (ignore_errors), so that a forged one does not end the wait for the real one.
    """
    query = dns.message.make_query(name, kind, use_edns=0, payload=_EDNS_PAYLOAD)
    address, port = server
    for _ in range(_ATTEMPTS):
        try:
            response = await dns.asyncquery.udp(
                query,
                address,
                timeout=seconds / _ATTEMPTS,
                port=port,
                ignore_unexpected=True,
                ignore_errors=True,
                raise_on_truncation=True,
            )
        except dns.exception.Timeout:
            continue
        except dns.message.Truncated:
            return await dns.asyncquery.tcp(query, address, timeout=seconds, port=port)
        if response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP) and query.edns >= 0:
            query.use_edns(False)  # RFC 6891, 7: a server from before EDNS
            continue
        return response
    raise TimeoutError


def _judge(server: Server, family: int, response: dns.message.Message) -> _Part:
    """Read the addresses that belong to the question, at the end of fewer than 16 CNAMEs (dnspython's bound)."""
    if response.rcode() != dns.rcode.NOERROR:
        return _Part(family, {}, f"{server[0]} answered {dns.rcode.to_text(response.rcode())}")
    if not isinstance(response, dns.message.QueryMessage) or len(response.question) != 1:
        return _Part(family, {}, f"{server[0]} answered without the question")
    try:
        chain = response.resolve_chaining()
    except dns.message.ChainTooLong:
        return _Part(family, {}, f"{server[0]}: the names lead in a circle, or over 16 aliases or more")
    addresses = [] if chain.answer is None else [ip_address(record.address) for record in chain.answer]
    return _Part(family, dict.fromkeys(addresses, chain.minimum_ttl))
