"""Filter for DNS messages: which queries leave, and which records come back. Pure.

A query is rebuilt before it leaves: name in lower case, our own options, so that neither the case
of letters nor a client's options carry data out. An answer is rebuilt too: the records that were
asked for, and no others.
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
from ecluse.dnsproxy.dnsmasq_config import MAX_TTL
from ecluse.dnsproxy.proxy_config import HEALTH, ProxyConfig
from ecluse.policy import DnsLimits, IPAddress
from ecluse.policy.special_addresses import private_kind, reserved_kind

A, AAAA, CNAME = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.CNAME
_ADDRESSES = (A, AAAA)
# Browsers ask for these with every name. What they hint at is judged and learned as an address is.
_BINDINGS = (dns.rdatatype.HTTPS, dns.rdatatype.SVCB)
_MOST_ADDRESSES = 256
"""Addresses of one answer, as in `resolve.lookup`: a set can hold some hundreds of such answers."""
MOST_LINKS = 8
"""Names of a chain of aliases; resolvers give up at about as many."""
KEYS = (dns.rdatatype.DS, dns.rdatatype.DNSKEY)
"""What a validating server asks of every zone above a name (RFC 4035, section 5)."""
_PROOFS = (dns.rdatatype.SOA, dns.rdatatype.NSEC, dns.rdatatype.NSEC3)
"""What proves that something does not exist, in the authority section."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a question does not leave, in a word: `name`, `type`, `length`, `rate`, `form`."""

    why: str


@dataclass(frozen=True, slots=True)
class DnsQuestion:
    """A question that may leave.

    wildcard: the one that permits it, empty for a name of the allowlist itself.
    dnssec: with signatures. keys: for the keys of a zone, which belong to no service and are
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
    def origin(self) -> str:
        """The entry of the allowlist that leads to its answer: the wildcard, else the name."""
        return f"*.{self.wildcard}" if self.wildcard else self.name


def parse_question(query: dns.message.Message) -> tuple[str, dns.rdatatype.RdataType] | None:
    """Return name (see `canonical_name`) and type of a plain query, None for any other message."""
    if query.opcode() != 0 or query.flags & dns.flags.QR or len(query.question) != 1:
        return None
    one = query.question[0]
    if one.rdclass != dns.rdataclass.IN:
        return None
    return name_of(query), one.rdtype


def name_of(query: dns.message.Message) -> str:
    """Return the name that is asked for (see `canonical_name`); `.` is the root."""
    return canonical_name(query.question[0].name)


def canonical_name(name: dns.name.Name) -> str:
    r"""Return a name in lower case without its last dot; a dot within a label is `\046`.

    So `evil\.operator.example` has two labels, lies below `example`, and is none of
    `*.operator.example` (RFC 1035, 5.1).
    """
    text = name.to_text(omit_final_dot=True).lower()
    if "\\" not in text:
        return text
    labels = (
        dns.name.Name([label]).to_text().replace("\\.", "\\046") for label in name.labels if label
    )
    return ".".join(labels).lower()


def client_address(query: dns.message.Message) -> str:
    """Return the address of the machine that dnsmasq asks for, empty if it does not say."""
    return next((str(o.address) for o in query.options if isinstance(o, dns.edns.ECSOption)), "")


def judge(
    name: str, kind: dns.rdatatype.RdataType, config: ProxyConfig, zones: Container[str] = ()
) -> DnsQuestion | Refusal:
    """Return the question that may leave, or why it may not.

    zones: those whose keys may be asked for.
    """
    if kind in KEYS and name in zones:
        return DnsQuestion(name, kind, (), "", keys=True)
    answers = config.policy_for(name)
    wildcard = "" if name in config.names else config.wildcard_of(name)
    if answers is None and not config.everything:
        return Refusal("name")
    if name not in config.names and _too_long(name, wildcard, config.limits):
        return Refusal("length")
    if answers is None:
        return DnsQuestion(name, kind, (), "")
    always = (*_ADDRESSES, CNAME, *_BINDINGS)
    if kind not in always and dns.rdatatype.to_text(kind) not in answers.records:
        return Refusal("type")
    return DnsQuestion(name, kind, answers.services, wildcard, answers.private)


def _too_long(name: str, wildcard: str, limits: DnsLimits) -> bool:
    """Say whether a machine could carry too much data out in a name.

    Only the part that it invents counts: what the site wrote, wildcards too, does not. Below a long
    wildcard it may still use one label.
    """
    invented = name.removesuffix(f".{wildcard}") if wildcard else name
    most = max(limits.name - (len(wildcard) + 1), limits.label) if wildcard else limits.name
    return len(invented) > most or max(map(len, invented.split("."))) > limits.label


def health_digest(name: str) -> str:
    """Return the digest that a health query asks for (see `health`), empty for another name."""
    return name.removesuffix(f".{HEALTH}") if name.endswith(f".{HEALTH}") else ""


def outgoing_query(question: DnsQuestion) -> dns.message.Message:
    """Return the query that leaves."""
    name = dns.name.from_text(question.name)
    return dns.message.make_query(
        name, question.type, use_edns=0, payload=1232, want_dnssec=question.dnssec
    )


def empty_reply(
    query: dns.message.Message, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> dns.message.Message:
    """Return a reply without records."""
    reply = dns.message.make_response(query, recursion_available=True)
    reply.set_rcode(rcode)
    if query.ednsflags & dns.flags.DO:
        reply.want_dnssec()
    return reply


@dataclass(frozen=True, slots=True)
class FilteredAnswer:
    """A reply, its addresses, and how many more were taken out of it.

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
    config: ProxyConfig,
) -> FilteredAnswer:
    """Rebuild a resolver's answer: the chain of aliases and the records at its end.

    A query for a target of the chain gets the chain from there on; if the kept name leads elsewhere
    by now, the records at the end. Signatures and proofs are copied if the question wants them:
    they prove only what was not changed here.

    Args:
        query: the client's.
        answer: the resolver's, to `question`.
        question: the one that left: for the kept name, which may differ from the query's.
        config: what the proxy works by.
    """
    reply = empty_reply(query, answer.rcode())
    wanted, asked = query.question[0].rdtype, query.question[0].name
    filtered = [_FilteredRecords([])]
    allowed = _permissions(question, config)
    chain = alias_chain(answer, dns.name.from_text(question.name))
    chain = chain[chain.index(asked) :] if asked in chain else chain[-1:]
    for name in chain:
        found = [
            one for one in answer.answer if one.name == name and one.rdclass == dns.rdataclass.IN
        ]
        alias = next((one for one in found if one.rdtype == CNAME), None)
        signatures = {one.covers: one for one in found if one.rdtype == dns.rdatatype.RRSIG}
        for one in found:
            if one.rdtype == wanted and one is not alias:
                filtered.append(_filter_records(one, name, allowed))
                reply.answer.extend(
                    _with_signatures(name, one, filtered[-1].records, question, signatures)
                )
        if alias is None:
            break
        reply.answer.extend(_with_signatures(name, alias, list(alias)[:1], question, signatures))
        if wanted == CNAME:
            break
    if question.dnssec:
        reply.authority = [
            dns.rrset.from_rdata_list(one.name, min(one.ttl, MAX_TTL), list(one))
            for one in answer.authority
            if one.rdtype in _PROOFS or one.covers in _PROOFS
        ]
    reply.answer = [_spelled_as_asked(query, one, chain[0]) for one in reply.answer]
    return FilteredAnswer(
        reply,
        tuple(address for each in filtered for address in each.addresses),
        sum(each.taken_out for each in filtered),
        sum(each.dropped for each in filtered),
    )


@dataclass(frozen=True, slots=True)
class _FilteredRecords:
    """The records of one name and type that stay."""

    records: list[dns.rdata.Rdata]
    addresses: tuple[IPAddress, ...] = ()
    taken_out: int = 0
    dropped: int = 0


def _filter_records(
    one: dns.rrset.RRset, name: dns.name.Name, allowed: svcb.Permissions
) -> _FilteredRecords:
    if one.rdtype in _ADDRESSES:
        good = [data for data in one if allowed.address(data.address)]
        some = good[:_MOST_ADDRESSES]
        addresses = tuple(ip_address(data.address) for data in some)
        return _FilteredRecords(some, addresses, len(one) - len(good))
    if one.rdtype not in _BINDINGS:
        return _FilteredRecords(list(one))
    bound = [svcb.filter_binding(data, name, allowed) for data in one]
    while sum(len(each.addresses) for each in bound) > _MOST_ADDRESSES:
        bound.pop()
    records = [each.record for each in bound if each.record]
    return _FilteredRecords(
        list(records),
        tuple(address for each in bound for address in each.addresses),
        sum(each.taken_out for each in bound),
        len(one) - len(records),
    )


def _with_signatures(
    name: dns.name.Name,
    one: dns.rrset.RRset,
    good: list[dns.rdata.Rdata],
    question: DnsQuestion,
    signatures: Mapping[dns.rdatatype.RdataType, dns.rrset.RRset],
) -> Iterator[dns.rrset.RRset]:
    """Yield the records that stay, and their signatures."""
    if not good:
        return
    yield dns.rrset.from_rdata_list(name, min(one.ttl, MAX_TTL), good)
    proof = signatures.get(one.rdtype)
    if proof and question.dnssec:
        yield dns.rrset.from_rdata_list(name, min(proof.ttl, MAX_TTL), list(proof))


def alias_chain(answer: dns.message.Message, name: dns.name.Name) -> list[dns.name.Name]:
    """Return the name itself and every target of its aliases; a loop ends where it closes."""
    found = [name]
    while len(found) < MOST_LINKS:
        alias = answer.get_rrset(answer.answer, found[-1], dns.rdataclass.IN, CNAME)
        if alias is None or alias[0].target in found:
            break
        found.append(alias[0].target)
    return found


def _spelled_as_asked(
    query: dns.message.Message, one: dns.rrset.RRset, owner: dns.name.Name
) -> dns.rrset.RRset:
    """Spell the first name as the client did: some compare the case of letters."""
    asked = query.question[0].name
    return dns.rrset.from_rdata_list(asked, one.ttl, list(one)) if one.name == owner else one


def _permissions(question: DnsQuestion, config: ProxyConfig) -> svcb.Permissions:
    """Return what the client of this question may do.

    A name that is not kept is only asked for at `open`, where everything passes.
    """
    answers = config.policy_for(question.name)

    def name(other: dns.name.Name) -> bool:
        there = config.policy_for(canonical_name(other))
        return not question.services or (
            there is not None and set(question.services) <= set(there.services)
        )

    def port(protocol: int, number: int) -> bool:
        return answers is None or answers.keeps(protocol, number)

    return svcb.Permissions(partial(_may_stand_for, question=question, config=config), name, port)


def allowed_addresses(
    addresses: Iterable[IPAddress], question: DnsQuestion, config: ProxyConfig
) -> list[IPAddress]:
    """Return the addresses that an answer to this question may have."""
    return [one for one in addresses if _may_stand_for(str(one), question, config)]


def _may_stand_for(text: str, question: DnsQuestion, config: ProxyConfig) -> bool:
    """Say whether a name may stand for this address; never for an inside or local one."""
    address = ip_address(text)
    inside = any(
        address in subnet for subnet in config.subnets if subnet.version == address.version
    )
    return not (
        inside or reserved_kind(address) or (private_kind(address) and not question.private)
    )
