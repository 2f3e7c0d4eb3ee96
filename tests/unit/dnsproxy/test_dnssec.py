"""Inside servers that validate: who they are, and whether the resolvers let them."""

import dns.message
import dns.rcode
import dns.rdatatype

from ecluse.dnsproxy.alias_chains import RECENT
from ecluse.dnsproxy.dnssec import MOST, ValidatingServers
from ecluse.dnsproxy.message_filter import DnsQuestion

KEYS = DnsQuestion("lab.example", dns.rdatatype.DNSKEY, (), "", dnssec=True, keys=True)


def reply(*rows: str) -> dns.message.Message:
    return dns.message.from_text("\n".join(["id 1", "flags QR", ";ANSWER", *rows, ""]))


UNSIGNED = reply("lab.example. 60 IN DNSKEY 256 3 13 AwEAAag=")
SIGNED = reply(
    "lab.example. 60 IN DNSKEY 256 3 13 AwEAAag=",
    "lab.example. 60 IN RRSIG DNSKEY 13 2 60 20310101000000 20260101000000 7 lab.example. AAAA",
)


def test_who_asked_for_keys_in_the_last_hour_validates():
    servers = ValidatingServers()
    servers.add_client("10.10.0.54", 0.0)
    servers.add_client("10.10.0.53", 10.0)
    servers.add_client("", 10.0)
    assert servers.clients(20.0) == ["10.10.0.53", "10.10.0.54"]
    assert servers.clients(RECENT + 5) == ["10.10.0.53"]


def test_only_so_many_are_known_and_the_one_that_asked_longest_ago_goes():
    servers = ValidatingServers()
    for number in range(MOST + 1):
        servers.add_client(f"10.0.0.{number}", 0.0)
    assert len(servers.clients(0.0)) == MOST
    assert "10.0.0.0" not in servers.clients(0.0)


def test_answers_without_signatures_are_trouble_for_servers_that_validate():
    servers = ValidatingServers()
    servers.check_answer(KEYS, UNSIGNED)
    assert not servers.trouble(0.0), "no server validates"
    servers.add_client("10.10.0.53", 0.0)
    assert servers.trouble(0.0).startswith("10.10.0.53: validates DNSSEC")
    refused = reply()
    refused.set_rcode(dns.rcode.REFUSED)
    servers.check_answer(KEYS, refused)
    assert servers.trouble(0.0), "an error says nothing about signatures"
    servers.check_answer(KEYS, SIGNED)
    assert not servers.trouble(0.0)
