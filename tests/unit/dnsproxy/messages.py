"""DNS messages and the configuration that the tests of the DNS proxy share."""

import dns.edns
import dns.message
import dns.rcode
import dns.rdatatype

from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.dnsmasq_config import SECRET_OPTION
from ecluse.dnsproxy.message_filter import DnsQuestion
from ecluse.dnsproxy.proxy_config import proxy_config_of
from tests.golden.cases import HERE, compiled

CASE = HERE / "10-dns-gate"


POLICY, PROGRAM = compiled(CASE)


ZONES = POLICY.zone_names()


def at(level: str, **zones: str):
    return proxy_config_of(
        POLICY, dict.fromkeys(ZONES, level) | {z.replace("_", "-"): v for z, v in zones.items()}
    )


CONFIG = at("cut")


SECRET = "0123456789abcdef"
"""What tells the engine's questions from those of others."""


def asked(
    name: str, kind: str = "A", number: int = 7, *, client: str = "10.10.4.7", payload: int = 1232
) -> bytes:
    options = [
        dns.edns.ECSOption(client, 32),
        dns.edns.GenericOption(SECRET_OPTION, SECRET.encode()),
    ]
    query = dns.message.make_query(name, kind, use_edns=0, payload=payload, options=options)
    query.id = number
    return query.to_wire()


def reply_to(data: bytes, *rows: str) -> dns.message.Message:
    reply = dns.message.make_response(dns.message.from_wire(data), recursion_available=True)
    reply.answer = dns.message.from_text("id 1\n;ANSWER\n" + "\n".join(rows) + "\n").answer
    return reply


def answered(text: str, name: str = "x.operator.example", kind: str = "A", private=False):
    query = dns.message.make_query(name, kind)
    reply = dns.message.from_text(
        "id 1\nopcode QUERY\nrcode NOERROR\nflags QR RD RA\n"
        f";QUESTION\n{name}. IN {kind}\n;ANSWER\n{text}\n"
        ';ADDITIONAL\nextra.operator.example. 5 IN TXT "carried in"\n'
    )
    question = DnsQuestion(name, dns.rdatatype.from_text(kind), ("secure-mail",), "", private)
    return message_filter.filter_answer(query, reply, question, CONFIG)


def answer(name: str, *rows: str, kind: str = "A", authority: str = "") -> dns.message.Message:
    first, *rest = rows
    head = [
        "id 1",
        "opcode QUERY",
        "rcode NOERROR",
        "flags QR RD RA",
        ";QUESTION",
        f"{name}. IN {kind}",
    ]
    records = [";ANSWER", f"{name}. 600 IN {first}", *rest, ";AUTHORITY", authority]
    return dns.message.from_text("\n".join([*head, *records, ""]))
