"""Which questions leave, and which records come back."""

from dataclasses import replace
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.dnsmasq_config import own_zones
from ecluse.dnsproxy.message_filter import DnsQuestion, Refusal
from tests.unit.dnsproxy.messages import (
    CONFIG,
    answer,
    answered,
    asked,
)


@pytest.mark.parametrize(
    ("name", "kind", "outcome"),
    [
        ("results.lab.example", "A", "leaves"),
        ("results.lab.example", "AAAA", "leaves"),
        ("results.lab.example", "MX", "leaves"),
        ("a.b.operator.example", "CNAME", "leaves"),
        ("results.lab.example", "HTTPS", "leaves"),
        ("x.operator.example", "SVCB", "leaves"),
        ("results.lab.example", "TXT", "type"),
        ("x.operator.example", "NULL", "type"),
        ("x.operator.example", "ANY", "type"),
        ("x.operator.example", "SRV", "type"),
        ("operator.example", "A", "name"),
        ("x.results.lab.example", "A", "name"),
        ("xoperator.example", "A", "name"),
        ("nobody.example", "HTTPS", "name"),
        (f"{'a' * 49}.operator.example", "A", "length"),
        (f"{'a.' * 60}operator.example", "A", "length"),
    ],
)  # fmt: skip
def test_what_leaves(name, kind, outcome):
    verdict = message_filter.judge(name, dns.rdatatype.from_text(kind), CONFIG)
    said = verdict.why if isinstance(verdict, Refusal) else "leaves"
    assert said == outcome


def test_the_question_that_leaves_is_our_own():
    query = dns.message.make_query("ReSuLtS.lab.example", "A", use_edns=0, options=[])
    name, kind = message_filter.parse_question(query)
    outward = message_filter.outgoing_query(message_filter.judge(name, kind, CONFIG))
    assert outward.question[0].name.to_text() == "results.lab.example."
    assert not outward.options
    assert outward.id != query.id or outward.to_wire() != query.to_wire()
    assert (
        message_filter.parse_question(dns.message.make_query("x.example", "A", rdclass="CH"))
        is None
    )


def test_the_answer_holds_what_was_asked_for_and_nothing_beside():
    found = answered(
        "x.operator.example. 86400 IN CNAME y.cdn.example.\ny.cdn.example. 60 IN A 203.0.113.9\n"
        'z.cdn.example. 60 IN A 203.0.113.10\ny.cdn.example. 60 IN TXT "more"'
    )
    assert found.addresses == (ip_address("203.0.113.9"),)
    assert [(r.name.to_text(), r.ttl) for r in found.reply.answer] == [
        ("x.operator.example.", 300),
        ("y.cdn.example.", 60),
    ]
    assert not found.reply.additional


@pytest.mark.parametrize(("kind", "records", "dropped"), [("A", 256, 0), ("HTTPS", 2, 27)])
def test_of_one_answer_only_so_many_addresses_are_learned_and_given(kind, records, dropped):
    """Else sixteen answers of 64 KiB fill the sets, and no address of a service has room."""
    every = [f"198.51.{n // 200}.{n % 200}" for n in range(3000)]
    hints = [f"{n} . ipv4hint={','.join(every[n * 100 :][:100])}" for n in range(1, 30)]
    data = every if kind == "A" else hints
    found = answered(
        "\n".join(f"x.operator.example. 60 IN {kind} {one}" for one in data), kind=kind
    )
    assert 200 <= len(found.addresses) <= 256
    assert (len(found.reply.answer[0]), found.dropped) == (records, dropped)


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "127.0.0.1", "169.254.0.9", "0.0.0.0", "224.0.0.1", "10.30.0.7"]
)
def test_no_name_of_the_outside_stands_for_the_inside(address):
    found = answered(
        f"x.operator.example. 60 IN A {address}\nx.operator.example. 60 IN A 203.0.113.9"
    )
    assert found.addresses == (ip_address("203.0.113.9"),)
    assert found.taken_out == 1
    assert address not in found.reply.to_text()


def test_a_service_may_have_private_addresses_of_its_own():
    found = answered("x.operator.example. 60 IN A 10.200.0.7", private=True)
    assert found.addresses == (ip_address("10.200.0.7"),)


def test_a_ring_of_aliases_ends():
    ring = "x.operator.example. 60 IN CNAME y.example.\ny.example. 60 IN CNAME x.operator.example."
    assert answered(ring).addresses == ()


def test_the_engine_says_who_asks():
    assert (
        message_filter.client_address(dns.message.from_wire(asked("a.operator.example")))
        == "10.10.4.7"
    )
    six = dns.message.make_query("a.", "A", options=[dns.edns.ECSOption("2001:db8:10::4:7", 128)])
    assert message_filter.client_address(dns.message.from_wire(six.to_wire())) == "2001:db8:10::4:7"
    assert message_filter.client_address(dns.message.make_query("a.", "A")) == ""
    outward = message_filter.outgoing_query(
        DnsQuestion("a.operator.example", dns.rdatatype.A, (), "")
    )
    assert outward.options == (), "it stays between the engine and us"


ANSWERS = CONFIG.names["results.lab.example"]


LONG_LABEL = f"{'a' * 57}.partner.example"


LONG_NAME = ".".join(["b" * 40] * 5) + ".partner.example"


LONG_DOMAIN = ".".join(["c" * 60] * 3) + ".operator.example"


WRITTEN = replace(
    CONFIG,
    names={**CONFIG.names, LONG_LABEL: ANSWERS, LONG_NAME: ANSWERS},
    wildcards={**CONFIG.wildcards, LONG_DOMAIN: ANSWERS},
)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        (LONG_LABEL, "leaves"),
        (LONG_NAME, "leaves"),
        (f"x.{LONG_LABEL}", "name"),
        (f"node.{LONG_DOMAIN}", "leaves"),
        (f"{'s' * 48}.{LONG_DOMAIN}", "leaves"),
        (f"{'s' * 49}.{LONG_DOMAIN}", "length"),
        (f"{'s' * 24}.{'s' * 24}.{LONG_DOMAIN}", "length"),
        (f"{'s' * 30}.{'s' * 30}.{'s' * 30}.operator.example", "leaves"),
        (f"{'s' * 40}.{'s' * 40}.{'s' * 40}.operator.example", "length"),
    ],
)
def test_what_the_site_wrote_is_never_too_long(name: str, outcome: str):
    verdict = message_filter.judge(name, dns.rdatatype.A, WRITTEN)
    assert (verdict.why if isinstance(verdict, Refusal) else "leaves") == outcome


A, DS, DNSKEY = dns.rdatatype.A, dns.rdatatype.DS, dns.rdatatype.DNSKEY


@given(
    st.lists(st.text("abcxyz0-", min_size=1, max_size=12), min_size=1, max_size=4),
    st.sampled_from(
        ["", "lab.example", "results.lab.example", "operator.example", "example", "nobody.example"]
    ),
    st.sampled_from([DS, DNSKEY]),
)
def test_no_name_that_a_machine_invents_leaves_as_a_question_for_keys(labels, domain, kind):
    name = ".".join([*labels, domain]).strip(".")
    zones = own_zones(CONFIG)
    if name not in zones:
        assert isinstance(message_filter.judge(name, kind, CONFIG, zones), Refusal)


SIGNED = "A 13 3 60 20310101000000 20260101000000 7 operator.example. AAAA"


PROOF = "operator.example. 60 IN NSEC x.operator.example. A RRSIG NSEC"


@pytest.mark.parametrize("dnssec", [False, True])
def test_signatures_and_proofs_come_back_where_they_are_wanted(dnssec):
    name = "x.operator.example"
    query = dns.message.make_query(name, "A", want_dnssec=dnssec)
    rows = ("A 203.0.113.9", f"{name}. 600 IN RRSIG {SIGNED}")
    authority = (
        PROOF + '\noperator.example. 60 IN NS ns.example.\noperator.example. 60 IN TXT "carried in"'
    )
    question = DnsQuestion(name, A, ("secure-mail",), "operator.example", dnssec=dnssec)
    assert bool(message_filter.outgoing_query(question).ednsflags & dns.flags.DO) is dnssec
    found = message_filter.filter_answer(
        query, answer(name, *rows, authority=authority), question, CONFIG
    )
    assert found.addresses == (ip_address("203.0.113.9"),)
    kinds = [
        dns.rdatatype.to_text(one.rdtype) for one in (*found.reply.answer, *found.reply.authority)
    ]
    assert kinds == (["A", "RRSIG", "NSEC"] if dnssec else ["A"])
