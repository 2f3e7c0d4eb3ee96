"""What of a question leaves, and what of an answer comes back: decisions on DNS messages, without a socket or a clock.

The question that leaves is made anew: name in lower case, our own options. Neither letters' case nor an option of the
client's carries anything out. The answer is made anew too: the records that were asked for, and nothing beside them.
"""

from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from ecluse.dnsgate import bindings
from ecluse.dnsgate.engine_text import CACHED
from ecluse.policy import IPAddress
from ecluse.policy.ranges import never_outside, private
from ecluse.ruleset.dnsorders import HEALTH, Orders

A, AAAA, CNAME = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.CNAME
_ADDRESSES = (A, AAAA)
# Browsers ask for these with every name. What they hint at is judged and learned as an address is.
_BINDINGS = (dns.rdatatype.HTTPS, dns.rdatatype.SVCB)
_MOST_ADDRESSES = 256
"""Addresses of one answer, as of a look-up of the daemon's (resolve/lookup.py): a set has room for some hundreds of such answers."""
_ROUND = 8
"""Links of a chain of aliases that are followed (resolvers give up at about as many)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a question does not leave, in a word: `name`, `type`, `length`, `rate`, `form`."""

    why: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question that may leave. wildcard: the one that lets it, empty for a name of its own."""

    name: str
    type: dns.rdatatype.RdataType
    services: tuple[str, ...]
    wildcard: str
    private: bool = False

    @property
    def led(self) -> str:
        """What of the orders leads to its answer: the wildcard, else the name."""
        return f"*.{self.wildcard}" if self.wildcard else self.name


def read(query: dns.message.Message) -> tuple[str, dns.rdatatype.RdataType] | None:
    """Give the name (lower case, no dot at the end) and the type of a plain question, None for anything else."""
    if query.opcode() != 0 or query.flags & dns.flags.QR or len(query.question) != 1:
        return None
    one = query.question[0]
    if one.rdclass != dns.rdataclass.IN:
        return None
    return written(one.name), one.rdtype


def written(name: dns.name.Name) -> str:
    r"""Write a name in lower case without its last dot, so that each dot parts two labels: one within a label is `\046`.

    `evil\.operator.example` has two labels, lies below `example`, and is none of `*.operator.example` (RFC 1035, 5.1).
    """
    text = name.to_text(omit_final_dot=True).lower()
    if "\\" not in text:
        return text
    labels = (dns.name.Name([label]).to_text().replace("\\.", "\\046") for label in name.labels if label)
    return ".".join(labels).lower()


def client(query: dns.message.Message) -> str:
    """Give the address of the machine that the engine asks for, empty when it does not say."""
    return next((str(o.address) for o in query.options if isinstance(o, dns.edns.ECSOption)), "")


def judge(name: str, kind: dns.rdatatype.RdataType, orders: Orders) -> Question | Refusal:
    """Say whether a question may leave: the question; or why not."""
    labels = name.split(".")
    if len(name) > orders.limits.name or max(map(len, labels)) > orders.limits.label:
        return Refusal("length")
    answers = orders.answers(name)
    if answers is None and not orders.everything:
        return Refusal("name")
    always = (*_ADDRESSES, CNAME, *_BINDINGS)
    if answers and kind not in always and dns.rdatatype.to_text(kind) not in answers.records:
        return Refusal("type")
    wildcard = "" if name in orders.names else orders.wildcard_of(name)
    if answers is None:
        return Question(name, kind, (), "")
    return Question(name, kind, answers.services, wildcard, answers.private)


def is_health(name: str) -> str:
    """Give the digest that a question about the gate itself asks for, empty when it is another question."""
    return name.removesuffix(f".{HEALTH}") if name.endswith(f".{HEALTH}") else ""


def outward(question: Question) -> dns.message.Message:
    """Make the question that leaves."""
    return dns.message.make_query(dns.name.from_text(question.name), question.type, use_edns=0, payload=1232)


def empty(query: dns.message.Message, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> dns.message.Message:
    """Answer with nothing but a code."""
    reply = dns.message.make_response(query, recursion_available=True)
    reply.set_rcode(rcode)
    return reply


@dataclass(frozen=True, slots=True)
class Strained:
    """What is given back, the addresses that it names, and how many more were taken out of it.

    dropped: how many service bindings were left out whole.
    """

    reply: dns.message.Message
    addresses: tuple[IPAddress, ...]
    taken_out: int
    dropped: int = 0


def strained(
    query: dns.message.Message, answer: dns.message.Message, question: Question, orders: Orders
) -> Strained:
    """Make the answer anew from what a resolver said: the chain of aliases and the records at its end."""
    reply = empty(query, answer.rcode())
    wanted = query.question[0].rdtype
    name, addresses, taken_out, dropped = query.question[0].name, list[IPAddress](), 0, 0
    leave = _leave(question, orders)
    for _ in range(_ROUND):
        found = [one for one in answer.answer if one.name == name and one.rdclass == dns.rdataclass.IN]
        alias = next((one for one in found if one.rdtype == CNAME), None)
        for one in found:
            if one.rdtype != wanted or one is alias:
                continue
            good = list(one)
            if wanted in _ADDRESSES:
                good = [data for data in one if leave.address(data.address)]
                taken_out += len(one) - len(good)
                good = good[:_MOST_ADDRESSES]
                addresses += [ip_address(data.address) for data in good]
            elif wanted in _BINDINGS:
                bound = [bindings.strained(data, name, leave) for data in one]
                while sum(len(each.addresses) for each in bound) > _MOST_ADDRESSES:
                    bound.pop()
                good = [each.record for each in bound if each.record]
                dropped += len(one) - len(good)
                taken_out += sum(each.taken_out for each in bound)
                addresses += [address for each in bound for address in each.addresses]
            if good:
                reply.answer.append(dns.rrset.from_rdata_list(name, min(one.ttl, CACHED), good))
        if alias is None:
            break
        reply.answer.append(dns.rrset.from_rdata_list(name, min(alias.ttl, CACHED), list(alias)[:1]))
        if wanted == CNAME:
            break
        name = alias[0].target
    reply.answer = [_asked(query, one) for one in reply.answer]
    return Strained(reply, tuple(addresses), taken_out, dropped)


def _asked(query: dns.message.Message, one: dns.rrset.RRset) -> dns.rrset.RRset:
    """Write the first name as the client did: some compare letter by letter."""
    asked = query.question[0].name
    return dns.rrset.from_rdata_list(asked, one.ttl, list(one)) if one.name == asked else one


def _leave(question: Question, orders: Orders) -> bindings.Leave:
    """Say what the client of this question is let do. A name that nobody keeps is asked for at open: all is passed then."""
    answers = orders.answers(question.name)

    def name(other: dns.name.Name) -> bool:
        there = orders.answers(written(other))
        return not question.services or (there is not None and set(question.services) <= set(there.services))

    def port(protocol: int, number: int) -> bool:
        return answers is None or answers.keeps(protocol, number)

    return bindings.Leave(partial(_may_be, question=question, orders=orders), name, port)


def _may_be(text: str, question: Question, orders: Orders) -> bool:
    """Say whether a name of the outside may stand for this address (policy/ranges.py); never for one of the inside."""
    address = ip_address(text)
    inside = any(address in subnet for subnet in orders.subnets if subnet.version == address.version)
    return not (inside or never_outside(address) or (private(address) and not question.private))
