"""dnsmasq's files: as accepted, and with zones that are let through alone."""

from dataclasses import replace

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.dnsmasq_config import config_text, own_zones, servers_text
from ecluse.dnsproxy.message_filter import DnsQuestion, Refusal
from tests.unit.dnsproxy.messages import CASE, CONFIG, at


def test_the_engines_files_are_as_accepted():
    config = at("cut")
    assert (
        config_text(config, CASE / "servers.conf", "WORD").replace(str(CASE), "RUN_DIR")
        == (CASE / "dnsmasq.conf").read_text()
    )
    assert servers_text(config) == (CASE / "servers.conf").read_text()


A, DS, DNSKEY = dns.rdatatype.A, dns.rdatatype.DS, dns.rdatatype.DNSKEY


WRITTEN = own_zones(CONFIG)


def test_the_zones_are_what_the_files_name_and_all_above():
    assert {".", "example", "lab.example", "results.lab.example", "operator.example"} == WRITTEN
    for zone in WRITTEN:
        for kind in (DS, DNSKEY):
            question = message_filter.judge(zone, kind, CONFIG, WRITTEN)
            assert isinstance(question, DnsQuestion)
            assert (question.services, question.keys) == ((), True)
    assert isinstance(message_filter.judge("lab.example", A, CONFIG, WRITTEN), Refusal)


def test_the_engine_lets_a_zone_through_and_nothing_below_it():
    text = servers_text(
        CONFIG, frozenset({"front.cdn.example"}), frozenset({"cdn.example"})
    ).splitlines()
    for zone in ("example", "lab.example", "cdn.example", "front.cdn.example"):
        assert f"server=/{zone}/127.0.0.1#5311" in text
        assert f"server=/*.{zone}/127.0.0.2#5311" in text
    assert "server=/*.operator.example/127.0.0.1#5311" in text
    assert "server=/*.operator.example/127.0.0.2#5311" not in text
    assert text[-1] == "server=127.0.0.1#5311", (
        "the root alone: all that ends in a letter is refused"
    )
    nothing = replace(CONFIG, names={}, wildcards={})
    assert not [
        one
        for one in servers_text(nothing, frozenset({"a.b"})).splitlines()
        if "a.b" in one or "=1" in one
    ]
