"""What answers lead to: targets of aliases are answered as the kept name, keys of zones within a
list that nobody adds to.
"""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.alias_chains import LATELY, MOST, AliasChains
from ecluse.dnsproxy.answer_cache import AnswerCache
from ecluse.dnsproxy.dnsmasq_config import own_zones, servers_text
from ecluse.dnsproxy.forwarder import Forwarder
from ecluse.dnsproxy.message_filter import DnsQuestion, Refusal
from ecluse.policy import Traffic
from ecluse.ruleset.proxy_config import NamePolicy, ProxyConfig
from tests.unit.dnsproxy.test_dnsgate import ORDERS

A, DS, DNSKEY = dns.rdatatype.A, dns.rdatatype.DS, dns.rdatatype.DNSKEY
TWO = replace(
    ORDERS,
    names={
        "pay.treasury.example": NamePolicy(("treasury",), (), traffic=(Traffic(6, 443, 443),)),
        "portal.lab.example": NamePolicy(("laboratory",), ()),
    },
)
CHAIN = ("CNAME front.cdn.example.", "front.cdn.example. 60 IN A 203.0.113.20")


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


class Kernel:
    """Stands for the kernel's sets: what was learned, by service."""

    def __init__(self) -> None:
        self.learned: set[tuple[str, str, str]] = set()

    def is_open(self) -> bool:
        return False

    def learn(self, services, addresses, led) -> None:
        self.learned |= {(service, str(one), led) for service in services for one in addresses}


class Outside:
    """Stands for the resolvers: answers as it is told, and counts."""

    def __init__(self) -> None:
        self.says: dict[str, tuple[str, ...]] = {}
        self.asked: list[str] = []

    async def first_answer(self, question: DnsQuestion, orders: ProxyConfig) -> dns.message.Message:
        self.asked.append(question.name)
        return answer(question.name, *self.says[question.name])


async def strainer_of(
    monkeypatch, orders: ProxyConfig = TWO
) -> tuple[Forwarder, Kernel, Outside, list[frozenset[str]]]:
    kernel, outside, told = Kernel(), Outside(), []

    async def reach(chains: AliasChains) -> None:
        told.append(chains.targets(0.0))

    strainer = Forwarder(kernel, "word", reach)
    strainer._port = orders.port + 1
    await strainer.obey(orders, "digest")
    monkeypatch.setattr(strainer, "_first_answer", outside.first_answer)
    return strainer, kernel, outside, told


def ask(strainer: Forwarder, name: str, kind: str = "A"):
    return strainer._answer(dns.message.make_query(name, kind, use_edns=0).to_wire())


def test_a_target_is_answered_from_what_is_held_for_the_same_services_and_nothing_leaves(
    monkeypatch,
):
    async def main() -> None:
        strainer, kernel, outside, told = await strainer_of(monkeypatch)
        outside.says["pay.treasury.example"] = CHAIN
        assert (await ask(strainer, "front.cdn.example")).rcode() == dns.rcode.REFUSED, (
            "nothing led there yet"
        )
        await ask(strainer, "pay.treasury.example")
        assert told, "the engine knows before the answer is given"
        kernel.learned.clear()
        reply = await ask(strainer, "FRONT.cdn.example")
        assert [str(one) for one in reply.answer] == ["FRONT.cdn.example. 60 IN A 203.0.113.20"]
        assert kernel.learned == {("treasury", "203.0.113.20", "pay.treasury.example")}
        assert outside.asked == ["pay.treasury.example"]
        for name, kind in (
            ("x.front.cdn.example", "A"),
            ("cdn.example", "A"),
            ("front.cdn.example", "TXT"),
        ):
            assert (await ask(strainer, name, kind)).rcode() == dns.rcode.REFUSED
        assert strainer.why("front.cdn.example", A) is None, "nor is it told as refused"
        # Another kept name leads to the same target: its address is kept for both.
        outside.says["portal.lab.example"] = CHAIN
        await ask(strainer, "portal.lab.example")
        kernel.learned.clear()
        await ask(strainer, "front.cdn.example", "AAAA")
        await ask(strainer, "front.cdn.example")
        assert {service for service, _, _ in kernel.learned} == {"treasury", "laboratory"}
        assert set(outside.asked) == {"pay.treasury.example", "portal.lab.example"}

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_target_that_the_kept_name_left_is_answered_with_where_it_leads_now(monkeypatch):
    async def main() -> None:
        strainer, kernel, outside, _ = await strainer_of(monkeypatch)
        outside.says["pay.treasury.example"] = (
            "CNAME front.cdn.example.",
            "front.cdn.example. 0 IN A 203.0.113.20",
        )
        await ask(strainer, "pay.treasury.example")
        outside.says["pay.treasury.example"] = (
            "CNAME other.cdn.example.",
            "other.cdn.example. 9 IN A 203.0.113.21",
        )
        reply = await ask(strainer, "front.cdn.example")
        assert [str(one) for one in reply.answer] == ["front.cdn.example. 9 IN A 203.0.113.21"]
        assert ("treasury", "203.0.113.21", "pay.treasury.example") in kernel.learned
        # Names that are given up take their targets along.
        await strainer.obey(replace(TWO, names={}), "other")
        assert (await ask(strainer, "front.cdn.example")).rcode() == dns.rcode.REFUSED

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_private_address_is_learned_for_who_may_have_it_alone(monkeypatch):
    async def main() -> None:
        names = {
            name: replace(one, private=name.startswith("pay")) for name, one in TWO.names.items()
        }
        strainer, kernel, outside, _ = await strainer_of(monkeypatch, replace(TWO, names=names))
        both = ("CNAME front.cdn.example.", "front.cdn.example. 60 IN A 10.200.0.7")
        outside.says = dict.fromkeys(("portal.lab.example", "pay.treasury.example"), both)
        await ask(strainer, "portal.lab.example")
        await ask(strainer, "pay.treasury.example")
        await ask(strainer, "front.cdn.example")
        assert {service for service, _, _ in kernel.learned} == {"treasury"}

    asyncio.run(asyncio.wait_for(main(), 10))


WRITTEN = own_zones(ORDERS)


def test_the_zones_are_what_the_files_name_and_all_above():
    assert {".", "example", "lab.example", "results.lab.example", "operator.example"} == WRITTEN
    for zone in WRITTEN:
        for kind in (DS, DNSKEY):
            question = message_filter.judge(zone, kind, ORDERS, WRITTEN)
            assert isinstance(question, DnsQuestion)
            assert (question.services, question.keys) == ((), True)
    assert isinstance(message_filter.judge("lab.example", A, ORDERS, WRITTEN), Refusal)


@given(
    st.lists(st.text("abcxyz0-", min_size=1, max_size=12), min_size=1, max_size=4),
    st.sampled_from(
        ["", "lab.example", "results.lab.example", "operator.example", "example", "nobody.example"]
    ),
    st.sampled_from([DS, DNSKEY]),
)
def test_no_name_that_a_machine_invents_leaves_as_a_question_for_keys(labels, domain, kind):
    name = ".".join([*labels, domain]).strip(".")
    if name not in WRITTEN:
        assert isinstance(message_filter.judge(name, kind, ORDERS, WRITTEN), Refusal)


def test_below_a_wildcard_keys_are_asked_of_what_has_left_already():
    chains = AliasChains()
    asked = DnsQuestion("a.b.operator.example", A, ("secure-mail",), "operator.example")
    found = answer(asked.name, "A 203.0.113.9")
    chains.note(asked, found, 0.0)
    assert not chains.zones(0.0), "who does not validate asks for no keys"
    assert not chains.note(replace(asked, dnssec=True), found, 0.0), (
        "the engine lets all of it through"
    )
    assert chains.zones(0.0) == {"a.b.operator.example", "b.operator.example"}
    assert chains.is_zone("b.operator.example", LATELY - 1)
    assert not chains.is_zone("b.operator.example", LATELY + 1)


def test_what_names_below_wildcards_lead_to_pushes_out_nothing_of_the_sites_own():
    chains = AliasChains()
    own = DnsQuestion("pay.treasury.example", A, ("treasury",), "", dnssec=True)
    assert chains.note(own, answer(own.name, *CHAIN), 0.0)
    assert not chains.note(own, answer(own.name, *CHAIN), 0.0), "known"
    for n in range(MOST + 50):
        asked = DnsQuestion(
            f"n{n}.operator.example", A, ("secure-mail",), "operator.example", dnssec=True
        )
        chains.note(asked, answer(asked.name, f"CNAME t{n}.cdn.example."), 1.0)
    assert chains.heads("front.cdn.example", 1.0) == ("pay.treasury.example",)
    assert chains.held(own, 1.0) is not None
    assert chains.is_zone("front.cdn.example", 1.0)
    assert len(chains.targets(1.0)) == MOST + 1
    assert len(chains.zones(1.0)) < 2 * MOST
    assert not chains.heads("front.cdn.example", LATELY + 1)


@pytest.mark.parametrize("target", [r"a/nobody.b", r"a\.b", r"a\010server", "a#b"])
def test_a_target_that_is_no_plain_name_never_reaches_the_engines_list(target):
    chains = AliasChains()
    own = DnsQuestion("pay.treasury.example", A, ("treasury",), "", dnssec=True)
    assert not chains.note(own, answer(own.name, f"CNAME {target}.example."), 0.0)
    assert not chains.targets(0.0)
    assert not chains.zones(0.0)


def test_the_engine_lets_a_zone_through_and_nothing_below_it():
    text = servers_text(
        ORDERS, frozenset({"front.cdn.example"}), frozenset({"cdn.example"})
    ).splitlines()
    for zone in ("example", "lab.example", "cdn.example", "front.cdn.example"):
        assert f"server=/{zone}/127.0.0.1#5311" in text
        assert f"server=/*.{zone}/127.0.0.2#5311" in text
    assert "server=/*.operator.example/127.0.0.1#5311" in text
    assert "server=/*.operator.example/127.0.0.2#5311" not in text
    assert text[-1] == "server=127.0.0.1#5311", (
        "the root alone: all that ends in a letter is refused"
    )
    nothing = replace(ORDERS, names={}, wildcards={})
    assert not [
        one
        for one in servers_text(nothing, frozenset({"a.b"})).splitlines()
        if "a.b" in one or "=1" in one
    ]


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
    assert bool(message_filter.outward(question).ednsflags & dns.flags.DO) is dnssec
    found = message_filter.filter_answer(
        query, answer(name, *rows, authority=authority), question, ORDERS
    )
    assert found.addresses == (ip_address("203.0.113.9"),)
    kinds = [
        dns.rdatatype.to_text(one.rdtype) for one in (*found.reply.answer, *found.reply.authority)
    ]
    assert kinds == (["A", "RRSIG", "NSEC"] if dnssec else ["A"])


def test_who_wants_no_signatures_is_not_given_what_is_held_for_who_does():
    held = AnswerCache()
    queries = [
        dns.message.make_query("x.operator.example", "A", use_edns=0, payload=1232, want_dnssec=do)
        for do in (True, False)
    ]
    signed = dns.message.make_response(queries[0])
    signed.answer = answer("x.operator.example", "A 203.0.113.9").answer
    held.keep(queries[0].to_wire(), signed, 0.0, while_open=False)
    assert held.find(queries[0].to_wire(), 0.0) is not None
    assert held.find(queries[1].to_wire(), 0.0) is None
    # That something does not exist is held with its proof, and counted down.
    nothing = dns.message.make_response(queries[0])
    nothing.authority = answer("x.operator.example", "A 203.0.113.9", authority=PROOF).authority
    held.keep(queries[0].to_wire(), nothing, 0.0, while_open=False, keys=True)
    found = held.find(queries[0].to_wire(), 10.0)
    assert found.keys
    assert [one.ttl for one in dns.message.from_wire(found.wire).authority] == [50]
