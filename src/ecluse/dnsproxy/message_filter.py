"""What of a question leaves, and what of an answer comes back: decisions on DNS messages, without a
socket or a clock.

The question that leaves is made anew: name in lower case, our own options. Neither letters' case
nor an option of the client's carries anything out. The answer is made anew too: the records that
were asked for, and nothing beside them.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from ecluse.dnsproxy import svcb
from ecluse.dnsproxy.dnsmasq_config import CACHED
from ecluse.policy import DnsLimits, IPAddress
from ecluse.policy.special_addresses import private_kind, reserved_kind
from ecluse.ruleset.proxy_config import HEALTH, ProxyConfig

A, AAAA, CNAME = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.CNAME
_ADDRESSES = (A, AAAA)
# Browsers ask for these with every name. What they hint at is judged and learned as an address is.
_BINDINGS = (dns.rdatatype.HTTPS, dns.rdatatype.SVCB)
_MOST_ADDRESSES = 256
"""Addresses of one answer, as of a look-up of the daemon's (resolve/lookup.py): a set has room for
some hundreds of such answers.
"""
MOST_LINKS = 8
"""Names of a chain of aliases that are followed (resolvers give up at about as many)."""
KEYS = (dns.rdatatype.DS, dns.rdatatype.DNSKEY)
"""What a server that validates asks of every zone above a name, beside the name itself (RFC 4035).
"""
_PROOFS = (dns.rdatatype.SOA, dns.rdatatype.NSEC, dns.rdatatype.NSEC3)
"""What proves that something does not exist, in the authority section."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a question does not leave, in a word: `name`, `type`, `length`, `rate`, `form`."""

    why: str


@dataclass(frozen=True, slots=True)
class DnsQuestion:
    """A question that may leave. wildcard: the one that lets it, empty for a name of its own.

    dnssec: with the signatures. keys: for those of a zone, which belong to no service and are
    answered at every level that keeps something.
    """

    name: str
    type: dns.rdatatype.RdataType
    services: tuple[str, ...]
    wildcard: str
    private: bool = False
    dnssec: bool = False
    keys: bool = False

    @property
    def led(self) -> str:
        """What of the orders leads to its answer: the wildcard, else the name."""
        return f"*.{self.wildcard}" if self.wildcard else self.name


def parse_question(query: dns.message.Message) -> tuple[str, dns.rdatatype.RdataType] | None:
    """Give the name (lower case, no dot at the end) and the type of a plain question, None for
    anything else.
    """
    if query.opcode() != 0 or query.flags & dns.flags.QR or len(query.question) != 1:
        return None
    one = query.question[0]
    if one.rdclass != dns.rdataclass.IN:
        return None
    return name_of(query), one.rdtype


def name_of(query: dns.message.Message) -> str:
    """Give the name that is asked for, as `written` has it; `.` is the root."""
    return written(query.question[0].name)


def written(name: dns.name.Name) -> str:
    r"""Write a name in lower case without its last dot, so that each dot parts two labels: one
    within a label is `\046`.

    `evil\.operator.example` has two labels, lies below `example`, and is none of
    `*.operator.example` (RFC 1035, 5.1).
    """
    text = name.to_text(omit_final_dot=True).lower()
    if "\\" not in text:
        return text
    labels = (
        dns.name.Name([label]).to_text().replace("\\.", "\\046") for label in name.labels if label
    )
    return ".".join(labels).lower()


def client(query: dns.message.Message) -> str:
    """Give the address of the machine that the engine asks for, empty when it does not say."""
    return next((str(o.address) for o in query.options if isinstance(o, dns.edns.ECSOption)), "")


def judge(
    name: str, kind: dns.rdatatype.RdataType, orders: ProxyConfig, zones: Container[str] = ()
) -> DnsQuestion | Refusal:
    """Say whether a question may leave: the question; or why not.

    zones: those whose keys may be asked for.
    """
    if kind in KEYS and name in zones:
        return DnsQuestion(name, kind, (), "", keys=True)
    answers = orders.answers(name)
    wildcard = "" if name in orders.names else orders.wildcard_of(name)
    if answers is None and not orders.everything:
        return Refusal("name")
    if name not in orders.names and _too_long(name, wildcard, orders.limits):
        return Refusal("length")
    if answers is None:
        return DnsQuestion(name, kind, (), "")
    always = (*_ADDRESSES, CNAME, *_BINDINGS)
    if kind not in always and dns.rdatatype.to_text(kind) not in answers.records:
        return Refusal("type")
    return DnsQuestion(name, kind, answers.services, wildcard, answers.private)


def _too_long(name: str, wildcard: str, limits: DnsLimits) -> bool:
    """Say whether a machine could carry too much in a name.

    What the site wrote, its wildcards too, it did not invent.

    A wildcard that leaves next to nothing of a whole name's length leaves one part all the same.
    """
    invented = name.removesuffix(f".{wildcard}") if wildcard else name
    room = max(limits.name - (len(wildcard) + 1), limits.label) if wildcard else limits.name
    return len(invented) > room or max(map(len, invented.split("."))) > limits.label


def is_health(name: str) -> str:
    """Give the digest that a question about the gate itself asks for, empty when it is another
    question.
    """
    return name.removesuffix(f".{HEALTH}") if name.endswith(f".{HEALTH}") else ""


def outward(question: DnsQuestion) -> dns.message.Message:
    """Make the question that leaves."""
    name = dns.name.from_text(question.name)
    return dns.message.make_query(
        name, question.type, use_edns=0, payload=1232, want_dnssec=question.dnssec
    )


def empty(
    query: dns.message.Message, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> dns.message.Message:
    """Answer with nothing but a code."""
    reply = dns.message.make_response(query, recursion_available=True)
    reply.set_rcode(rcode)
    if query.ednsflags & dns.flags.DO:
        reply.want_dnssec()
    return reply


@dataclass(frozen=True, slots=True)
class FilteredAnswer:
    """What is given back, the addresses that it names, and how many more were taken out of it.

    dropped: how many service bindings were left out whole.
    """

    reply: dns.message.Message
    addresses: tuple[IPAddress, ...]
    taken_out: int
    dropped: int = 0


def filter_answer(
    query: dns.message.Message,
    answer: dns.message.Message,
    question: DnsQuestion,
    orders: ProxyConfig,
) -> FilteredAnswer:
    """Make the answer anew from what a resolver said: the chain of aliases and the records at its
    end.

    A target of the chain that is asked for by itself is answered from there on; where the kept name
    leads elsewhere by now, with what stands at the end. Signatures and proofs come with it where
    the question wants them: they prove what was not changed here, and nothing else.
    """
    reply = empty(query, answer.rcode())
    wanted, asked = query.question[0].rdtype, query.question[0].name
    kept = [_Kept([])]
    leave = _leave(question, orders)
    chain = links(answer, dns.name.from_text(question.name))
    chain = chain[chain.index(asked) :] if asked in chain else chain[-1:]
    for name in chain:
        found = [
            one for one in answer.answer if one.name == name and one.rdclass == dns.rdataclass.IN
        ]
        alias = next((one for one in found if one.rdtype == CNAME), None)
        signatures = {one.covers: one for one in found if one.rdtype == dns.rdatatype.RRSIG}
        for one in found:
            if one.rdtype == wanted and one is not alias:
                kept.append(_kept(one, name, leave))
                reply.answer.extend(_given(name, one, kept[-1].records, question, signatures))
        if alias is None:
            break
        reply.answer.extend(_given(name, alias, list(alias)[:1], question, signatures))
        if wanted == CNAME:
            break
    if question.dnssec:
        reply.authority = [
            dns.rrset.from_rdata_list(one.name, min(one.ttl, CACHED), list(one))
            for one in answer.authority
            if one.rdtype in _PROOFS or one.covers in _PROOFS
        ]
    reply.answer = [_asked(query, one, chain[0]) for one in reply.answer]
    return FilteredAnswer(
        reply,
        tuple(address for each in kept for address in each.addresses),
        sum(each.taken_out for each in kept),
        sum(each.dropped for each in kept),
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What stays of the records of one name and type."""

    records: list[dns.rdata.Rdata]
    addresses: tuple[IPAddress, ...] = ()
    taken_out: int = 0
    dropped: int = 0


def _kept(one: dns.rrset.RRset, name: dns.name.Name, leave: svcb.Leave) -> _Kept:
    if one.rdtype in _ADDRESSES:
        good = [data for data in one if leave.address(data.address)]
        some = good[:_MOST_ADDRESSES]
        addresses = tuple(ip_address(data.address) for data in some)
        return _Kept(some, addresses, len(one) - len(good))
    if one.rdtype not in _BINDINGS:
        return _Kept(list(one))
    bound = [svcb.filter_binding(data, name, leave) for data in one]
    while sum(len(each.addresses) for each in bound) > _MOST_ADDRESSES:
        bound.pop()
    records = [each.record for each in bound if each.record]
    return _Kept(
        list(records),
        tuple(address for each in bound for address in each.addresses),
        sum(each.taken_out for each in bound),
        len(one) - len(records),
    )


def _given(
    name: dns.name.Name,
    one: dns.rrset.RRset,
    good: list[dns.rdata.Rdata],
    question: DnsQuestion,
    signatures: Mapping[dns.rdatatype.RdataType, dns.rrset.RRset],
) -> Iterator[dns.rrset.RRset]:
    """Give what stays of records, and their signatures."""
    if not good:
        return
    yield dns.rrset.from_rdata_list(name, min(one.ttl, CACHED), good)
    proof = signatures.get(one.rdtype)
    if proof and question.dnssec:
        yield dns.rrset.from_rdata_list(name, min(proof.ttl, CACHED), list(proof))


def links(answer: dns.message.Message, name: dns.name.Name) -> list[dns.name.Name]:
    """Follow the aliases of a name in an answer: the name itself, and every target; a ring ends
    where it closes.
    """
    found = [name]
    while len(found) < MOST_LINKS:
        alias = answer.get_rrset(answer.answer, found[-1], dns.rdataclass.IN, CNAME)
        if alias is None or alias[0].target in found:
            break
        found.append(alias[0].target)
    return found


def _asked(
    query: dns.message.Message, one: dns.rrset.RRset, owner: dns.name.Name
) -> dns.rrset.RRset:
    """Write the first name as the client did: some compare letter by letter."""
    asked = query.question[0].name
    return dns.rrset.from_rdata_list(asked, one.ttl, list(one)) if one.name == owner else one


def _leave(question: DnsQuestion, orders: ProxyConfig) -> svcb.Leave:
    """Say what the client of this question is let do.

    A name that nobody keeps is asked for at open: all is passed then.
    """
    answers = orders.answers(question.name)

    def name(other: dns.name.Name) -> bool:
        there = orders.answers(written(other))
        return not question.services or (
            there is not None and set(question.services) <= set(there.services)
        )

    def port(protocol: int, number: int) -> bool:
        return answers is None or answers.keeps(protocol, number)

    return svcb.Leave(partial(_may_be, question=question, orders=orders), name, port)


def fit(
    addresses: Iterable[IPAddress], question: DnsQuestion, orders: ProxyConfig
) -> list[IPAddress]:
    """Give those addresses that the answer to this question might have."""
    return [one for one in addresses if _may_be(str(one), question, orders)]


def _may_be(text: str, question: DnsQuestion, orders: ProxyConfig) -> bool:
    """Say whether a name of the outside may stand for this address (policy/special_addresses.py);
    never for one of the inside.
    """
    address = ip_address(text)
    inside = any(
        address in subnet for subnet in orders.subnets if subnet.version == address.version
    )
    return not (
        inside or reserved_kind(address) or (private_kind(address) and not question.private)
    )
