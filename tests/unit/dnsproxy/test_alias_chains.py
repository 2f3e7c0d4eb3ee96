"""Targets of aliases and zones of keys: known by answers to kept names alone, and bounded."""

from dataclasses import replace

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from ecluse.dnsproxy.alias_chains import MOST, RECENT, AliasChains
from ecluse.dnsproxy.message_filter import DnsQuestion
from tests.unit.dnsproxy.messages import answer

A, DS, DNSKEY = dns.rdatatype.A, dns.rdatatype.DS, dns.rdatatype.DNSKEY


CHAIN = ("CNAME front.cdn.example.", "front.cdn.example. 60 IN A 203.0.113.20")


def test_below_a_wildcard_keys_are_asked_of_what_has_left_already():
    chains = AliasChains()
    asked = DnsQuestion("a.b.operator.example", A, ("secure-mail",), "operator.example")
    found = answer(asked.name, "A 203.0.113.9")
    chains.add_answer(asked, found, 0.0)
    assert not chains.zones(0.0), "who does not validate asks for no keys"
    assert not chains.add_answer(replace(asked, dnssec=True), found, 0.0), (
        "the engine lets all of it through"
    )
    assert chains.zones(0.0) == {"a.b.operator.example", "b.operator.example"}
    assert chains.is_zone("b.operator.example", RECENT - 1)
    assert not chains.is_zone("b.operator.example", RECENT + 1)


def test_what_names_below_wildcards_lead_to_pushes_out_nothing_of_the_sites_own():
    chains = AliasChains()
    own = DnsQuestion("pay.treasury.example", A, ("treasury",), "", dnssec=True)
    assert chains.add_answer(own, answer(own.name, *CHAIN), 0.0)
    assert not chains.add_answer(own, answer(own.name, *CHAIN), 0.0), "known"
    for n in range(MOST + 50):
        asked = DnsQuestion(
            f"n{n}.operator.example", A, ("secure-mail",), "operator.example", dnssec=True
        )
        chains.add_answer(asked, answer(asked.name, f"CNAME t{n}.cdn.example."), 1.0)
    assert chains.kept_names("front.cdn.example", 1.0) == ("pay.treasury.example",)
    assert chains.cached_answer(own, 1.0) is not None
    assert chains.is_zone("front.cdn.example", 1.0)
    assert len(chains.targets(1.0)) == MOST + 1
    assert len(chains.zones(1.0)) < 2 * MOST
    assert not chains.kept_names("front.cdn.example", RECENT + 1)


@pytest.mark.parametrize("target", [r"a/nobody.b", r"a\.b", r"a\010server", "a#b"])
def test_a_target_that_is_no_plain_name_never_reaches_the_engines_list(target):
    chains = AliasChains()
    own = DnsQuestion("pay.treasury.example", A, ("treasury",), "", dnssec=True)
    assert not chains.add_answer(own, answer(own.name, f"CNAME {target}.example."), 0.0)
    assert not chains.targets(0.0)
    assert not chains.zones(0.0)
