"""One query to one server: how often it is sent, what is ignored, and when TCP follows."""

import dns.exception
import dns.message
import dns.rcode
import pytest

from ecluse.dns_exchange import exchange
from tests.unit.resolve.server import Server, changed, drop, rcode, records, truncated_on_udp

NAME = "lab.example"
TRUTH = records((NAME, 60, "203.0.113.10"))


@pytest.fixture
async def server():
    async with Server() as server:
        yield server


def query(**edns):
    return dns.message.make_query(NAME, "A", **edns)


async def addresses(server, *, seconds=1.0, attempts=1):
    reply, by_tcp = await exchange(query(use_edns=0), server.address, seconds, attempts)
    return [record.address for rrset in reply.answer for record in rrset], by_tcp


async def test_a_response_by_udp(server):
    server.answers[NAME] = TRUTH
    assert await addresses(server) == (["203.0.113.10"], False)
    assert server.asked == {(NAME, "A", "udp"): 1}


async def test_a_truncated_response_is_fetched_by_tcp(server):
    server.answers[NAME] = truncated_on_udp(TRUTH)
    assert await addresses(server) == (["203.0.113.10"], True)
    assert server.asked == {(NAME, "A", "udp"): 1, (NAME, "A", "tcp"): 1}


async def test_a_silent_server_is_asked_as_often_as_said_and_then_it_is_a_timeout(server):
    server.answers[NAME] = drop
    with pytest.raises(dns.exception.Timeout):
        await addresses(server, seconds=0.3, attempts=3)
    assert server.asked == {(NAME, "A", "udp"): 3}


async def test_a_forged_response_does_not_end_the_wait(server):
    def other_id(message):
        message.id ^= 1

    server.answers[NAME] = changed(TRUTH, other_id)
    assert await addresses(server) == (["203.0.113.10"], False)


@pytest.mark.parametrize("code", [dns.rcode.FORMERR, dns.rcode.NOTIMP])
async def test_without_edns_where_the_server_does_not_know_it_and_an_attempt_is_left(server, code):
    refused = rcode(code)
    server.answers[NAME] = lambda q, t: refused(q, t) if q.edns >= 0 else TRUTH(q, t)
    assert await addresses(server, attempts=2) == (["203.0.113.10"], False)
    reply, _ = await exchange(query(use_edns=0), server.address, 1.0)
    assert reply.rcode() == code, "the last attempt's response is the response"
