"""Looks up one host name at every resolver at once, and unites what they answered."""

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.ttl

from ecluse.dns_exchange import Server, exchange
from ecluse.policy import IPAddress, private_kind, reserved_kind

_ATTEMPTS = 2
_EDNS_PAYLOAD = 1232  # bytes: DNS flag day 2020, no answer is fragmented; longer ones come by TCP
_ASKED = (dns.rdatatype.A, dns.rdatatype.AAAA)
_BROKEN = (dns.exception.DNSException, OSError, EOFError, ValueError, struct.error)
_MOST_ALIASES = 15
"""CNAMEs on the way to an address; dnspython's own bound for one message is the same."""
_MOST_ADDRESSES = 256
"""Addresses of one answer: thousands from one resolver must not crowd out the others'."""


@dataclass(frozen=True, slots=True)
class LookupResult:
    """The resolvers' answers to one name, united.

    ttls: address -> seconds, the minimum over the CNAME chain; the longest when several resolvers
    gave it.
    answered: families (4, 6) that at least one resolver answered, even with no address.
    heard: which resolver that was, for each family.
    failures: in words, once each: what failed, and which addresses were refused.
    by: address -> the resolvers that gave it. alias: the name at the end of the CNAMEs, empty when
    there are none.
    outcomes: resolver and what came of each question to it, in a word; more than one word for a
    question that was answered in an odd way (`truncated`: it came by TCP; `ttl-0`; `too-many`;
    `refused-address`).
    split: two resolvers gave addresses of one family, and not the same.
    """

    ttls: dict[IPAddress, int]
    answered: frozenset[int]
    failures: tuple[str, ...]
    by: dict[IPAddress, tuple[str, ...]] = field(default_factory=dict)
    heard: frozenset[tuple[str, int]] = frozenset()
    alias: str = ""
    outcomes: tuple[tuple[str, str], ...] = ()
    split: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """One resolver's answer about one family; failure is empty when it answered.

    outcomes: see `LookupResult`. odd: a warning about an answer that was used.
    """

    server: str
    family: int
    ttls: dict[IPAddress, int]
    failure: str = ""
    outcomes: tuple[str, ...] = ()
    alias: str = ""
    odd: str = ""


def refusal(address: IPAddress, *, may_be_private: bool = False) -> str:
    """Return why an address can't be a destination outside; empty when it can.

    A public name that leads to an inside or local address is a mistake or an attack (DNS
    rebinding), unless the allowlist says that it may.
    """
    return reserved_kind(address) or ("" if may_be_private else private_kind(address))


async def look_up(
    name: str,
    servers: Sequence[Server],
    seconds: float,
    *,
    may_be_private: bool = False,
    on_answered: Callable[[], None] = lambda: None,
) -> LookupResult:
    """Ask every server for A and AAAA at the same time, for at most `seconds` each.

    Never raises but when cancelled.

    on_answered: called as soon as both families have an answer from some server; the silent servers
    are waited for all the same.
    """
    try:
        question = dns.name.from_text(name)
    except (dns.exception.DNSException, ValueError) as error:
        return LookupResult({}, frozenset(), (f"not a host name: {error}",))
    waiting = {4, 6}

    async def ask(server: Server, kind: dns.rdatatype.RdataType) -> _Part:
        part = await _query(server, question, kind, seconds)
        if waiting and not part.failure:
            waiting.discard(part.family)
            if not waiting:
                on_answered()
        return part

    parts = await asyncio.gather(*(ask(server, kind) for server in servers for kind in _ASKED))
    return _unite([_drop_inside(part, may_be_private) for part in parts])


def _unite(judged: Sequence[tuple[_Part, str]]) -> LookupResult:
    parts = [part for part, _ in judged]
    ttls: dict[IPAddress, int] = {}
    by: dict[IPAddress, tuple[str, ...]] = {}
    for part in parts:
        for address, ttl in part.ttls.items():
            ttls[address] = max(ttl, ttls.get(address, 0))
            by[address] = (*by.get(address, ()), part.server)
    answered = frozenset(part.family for part in parts if not part.failure)
    # One resolver of two that answers is enough; what was refused is told all the same.
    broken = [part.failure for part in parts if part.failure and part.family not in answered]
    refused = [words for part, why in judged for words in (part.odd, why) if words]
    given = {
        family: {frozenset(p.ttls) for p in parts if p.family == family and p.ttls}
        for family in (4, 6)
    }
    return LookupResult(
        ttls,
        answered,
        tuple(dict.fromkeys([*broken, *refused])),
        by,
        frozenset((part.server, part.family) for part in parts if not part.failure),
        next((part.alias for part in parts if part.alias), ""),
        tuple((part.server, outcome) for part in parts for outcome in part.outcomes),
        any(len(sets) > 1 for sets in given.values()),
    )


def _drop_inside(part: _Part, may_be_private: bool) -> tuple[_Part, str]:
    """Drop addresses that can't be destinations, and return why.

    An answer that has no others counts as a failure, not as empty.
    """
    why = {address: refusal(address, may_be_private=may_be_private) for address in part.ttls}
    words = ", ".join(f"{address} ({reason})" for address, reason in why.items() if reason)
    if not words:
        return part, ""
    cure = any(reason and not reserved_kind(address) for address, reason in why.items())
    hint = "; if it is meant, the destination needs 'private: true'" if cure else ""
    told = f"refused {words}{hint}"
    ttls = {address: ttl for address, ttl in part.ttls.items() if not why[address]}
    outcomes = (*(o for o in part.outcomes if ttls or o != "answered"), "refused-address")
    return replace(part, ttls=ttls, failure="" if ttls else told, outcomes=outcomes), told


async def _query(
    server: Server, name: dns.name.Name, kind: dns.rdatatype.RdataType, seconds: float
) -> _Part:
    failed = _Part(server[0], 4 if kind == dns.rdatatype.A else 6, {})
    try:
        async with asyncio.timeout(seconds):
            return await _follow(server, name, kind, seconds)
    except (TimeoutError, dns.exception.Timeout):
        words = f"{server[0]} did not answer within {seconds:g} s"
        return replace(failed, failure=words, outcomes=("timeout",))
    except _UnusableError as error:
        return replace(failed, failure=error.words, outcomes=(error.outcome,))
    except _BROKEN as error:
        outcome = "unreachable" if isinstance(error, OSError | EOFError) else "malformed"
        return replace(
            failed, failure=f"{server[0]}: {error or type(error).__name__}", outcomes=(outcome,)
        )
    except Exception as error:  # noqa: BLE001 - one resolver must not silence others
        return replace(failed, failure=f"{server[0]}: {error!r}", outcomes=("malformed",))


async def _follow(
    server: Server, name: dns.name.Name, kind: dns.rdatatype.RdataType, seconds: float
) -> _Part:
    """Ask for a name, and for the end of its CNAMEs if the server leaves that to us.

    Raises:
        _UnusableError: a response says nothing usable.
    """
    asked = [name]
    aliases, ttl = 0, dns.ttl.MAX_TTL
    marks: tuple[str, ...] = ()
    while True:
        query = dns.message.make_query(asked[-1], kind, use_edns=0, payload=_EDNS_PAYLOAD)
        response, truncated = await exchange(query, server, seconds, _ATTEMPTS)
        marks = ("truncated",) if truncated else marks
        chain = _follow_chain(server[0], response)
        aliases += len(chain.cnames)
        ttl = min(
            ttl, *(alias.ttl for alias in chain.cnames), chain.answer.ttl if chain.answer else ttl
        )
        end = chain.canonical_name
        if chain.answer is not None or end == asked[-1]:
            break
        if end in asked or aliases > _MOST_ALIASES:
            raise _UnusableError(_LOOP.format(server[0]), "loop")
        asked.append(end)
    found = [] if chain.answer is None else [ip_address(record.address) for record in chain.answer]
    odd = ""
    if len(found) > _MOST_ADDRESSES:
        odd = f"{server[0]} gave {len(found)} addresses; the first {_MOST_ADDRESSES} are used"
        marks = (*marks, "too-many")
    outcomes = (
        "answered" if found else "empty",
        *marks,
        *(("ttl-0",) if found and not ttl else ()),
    )
    alias = end.to_text(omit_final_dot=True).lower() if end != name else ""
    family = 4 if kind == dns.rdatatype.A else 6
    ttls = dict.fromkeys(found[:_MOST_ADDRESSES], ttl)
    return _Part(server[0], family, ttls, outcomes=outcomes, alias=alias, odd=odd)


_LOOP = "{}: the names lead in a circle, or over 16 aliases or more"


class _UnusableError(Exception):
    """A response that says nothing usable: why, and the outcome in one word."""

    def __init__(self, words: str, outcome: str) -> None:
        super().__init__(words)
        self.words, self.outcome = words, outcome


def _follow_chain(server: str, response: dns.message.Message) -> dns.message.ChainingResult:
    """Return the CNAMEs and addresses that belong to the question. Raises _UnusableError."""
    if response.rcode() != dns.rcode.NOERROR:
        text = dns.rcode.to_text(response.rcode())
        raise _UnusableError(f"{server} answered {text}", text.lower())
    if not isinstance(response, dns.message.QueryMessage) or len(response.question) != 1:
        raise _UnusableError(f"{server} answered without the question", "malformed")
    try:
        return response.resolve_chaining()
    except dns.message.ChainTooLong:
        raise _UnusableError(_LOOP.format(server), "loop") from None
