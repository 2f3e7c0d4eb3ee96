"""One name asked of real servers that answer, fail, lie and stay silent."""

import asyncio
import itertools
from ipaddress import ip_address

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

from ecluse.resolve.lookup import look_up, refusal
from tests.unit.resolve.server import (
    Server,
    changed,
    drop,
    framed,
    rcode,
    records,
    truncated_on_udp,
)

NAME = "lab.example"


@pytest.fixture
async def server():
    async with Server() as server:
        yield server


@pytest.fixture
async def other():
    async with Server() as server:
        yield server


def texts(answer):
    return {str(address): ttl for address, ttl in answer.ttls.items()}


async def test_both_families_and_the_ttl(server):
    server.put(NAME, "203.0.113.10", "203.0.113.11", "2001:db8::10", ttl=77)
    answer = await look_up(NAME, [server.address], 2)
    assert texts(answer) == {"203.0.113.10": 77, "203.0.113.11": 77, "2001:db8::10": 77}
    assert (answer.answered, answer.failures) == ({4, 6}, ())


async def test_the_ttl_is_the_least_of_the_chain(server):
    server.answers[NAME] = records(
        (NAME, 300, "a.example"), ("a.example", 20, "b.example"), ("b.example", 900, "203.0.113.10")
    )
    assert texts(await look_up(NAME, [server.address], 2)) == {"203.0.113.10": 20}


async def test_all_servers_at_once_and_their_answers_united(server, other):
    server.put(NAME, "203.0.113.10", ttl=60)
    other.put(NAME, "203.0.113.10", "203.0.113.11", ttl=50)
    # Whichever is slow: the other is asked before it says anything.
    for slow, quick in ((server, other), (other, server)):
        slow.delay, quick.delay = 0.3, 0.0
        quick.asked.clear()
        asked_meanwhile = []
        says = slow.answers[NAME]
        slow.answers[NAME] = lambda *given, q=quick, s=says, a=asked_meanwhile: (
            a.append(+q.asked) or s(*given)
        )
        answer = await look_up(NAME, [server.address, other.address], 5)
        slow.answers[NAME] = says
        assert asked_meanwhile
        assert all(asked_meanwhile)
    assert texts(answer) == {"203.0.113.10": 60, "203.0.113.11": 50}


@pytest.mark.parametrize(
    "bad", [drop, rcode(dns.rcode.SERVFAIL), rcode(dns.rcode.NXDOMAIN), rcode(dns.rcode.REFUSED)]
)
async def test_one_server_that_answers_is_enough(server, other, bad):
    server.answers[NAME] = bad
    other.put(NAME, "203.0.113.10")
    answer = await look_up(NAME, [server.address, other.address], 0.4)
    assert texts(answer) == {"203.0.113.10": 300}
    assert answer.failures == ()


@pytest.mark.parametrize(
    "bad, words",
    [
        (drop, "127.0.0.1 did not answer within 0.4 s"),
        (rcode(dns.rcode.SERVFAIL), "127.0.0.1 answered SERVFAIL"),
        (rcode(dns.rcode.NXDOMAIN), "127.0.0.1 answered NXDOMAIN"),
        (rcode(dns.rcode.REFUSED), "127.0.0.1 answered REFUSED"),
        (records((NAME, 9, "a.example"), ("a.example", 9, NAME)), "circle"),
        (records((NAME, 9, NAME)), "circle"),
        (lambda q, t: b"\x00" * 40, "did not answer"),
        (lambda q, t: b"", "did not answer"),
        (truncated_on_udp(drop), "127.0.0.1"),
        (truncated_on_udp(lambda q, t: b"\xff\xff123"), "127.0.0.1"),
        (truncated_on_udp(lambda q, t: framed(b"garbage that is no message")), "127.0.0.1"),
    ],
)
async def test_each_failure_in_words(server, bad, words):
    server.answers[NAME] = bad
    answer = await look_up(NAME, [server.address], 0.4)
    assert answer.ttls == {} and answer.answered == set()
    assert len(answer.failures) == 1 and words in answer.failures[0]


async def test_nobody_there(server):
    async with Server() as gone:
        port = gone.port
    answer = await look_up(NAME, [("127.0.0.1", port)], 0.3)
    assert len(answer.failures) == 1 and answer.answered == set()


async def test_a_name_without_addresses_is_answered_and_empty(server):
    server.answers[NAME] = records()
    answer = await look_up(NAME, [server.address], 1)
    assert (answer.ttls, answer.answered, answer.failures) == ({}, {4, 6}, ())


async def test_fifteen_aliases_pass_and_sixteen_do_not(server):
    def chain(length):
        names = [NAME, *(f"a{n}.example" for n in range(1, length + 1))]
        rows = [(one, 60, two) for one, two in itertools.pairwise(names)]
        return records(*rows, (names[-1], 60, "203.0.113.10"))

    server.answers[NAME] = chain(15)
    assert texts(await look_up(NAME, [server.address], 1)) == {"203.0.113.10": 60}
    server.answers[NAME] = chain(16)
    answer = await look_up(NAME, [server.address], 1)
    assert answer.ttls == {} and "16 aliases" in answer.failures[0]


async def test_a_name_that_the_server_leaves_to_us_is_followed_with_the_least_ttl(server):
    server.answers[NAME] = records((NAME, 20, "a.example"))
    server.answers["a.example"] = records(("A.example", 300, "B.example"))
    server.put("b.example", "203.0.113.10", "2001:db8::10", ttl=900)
    answer = await look_up(NAME, [server.address], 1)
    assert texts(answer) == {"203.0.113.10": 20, "2001:db8::10": 20}
    assert answer.alias == "b.example"


async def test_a_circle_of_several_answers_and_an_alias_of_nothing(server):
    server.answers[NAME] = records((NAME, 9, "a.example"))
    server.answers["a.example"] = records(("a.example", 9, NAME))
    answer = await look_up(NAME, [server.address], 1)
    assert "circle" in answer.failures[0] and answer.answered == set()
    server.answers["a.example"] = rcode(dns.rcode.NXDOMAIN)
    answer = await look_up(NAME, [server.address], 1)
    assert answer.failures == ("127.0.0.1 answered NXDOMAIN",)
    server.answers["a.example"] = records()
    answer = await look_up(NAME, [server.address], 1)
    assert (answer.answered, answer.ttls) == ({4, 6}, {})


async def test_no_more_than_fifteen_aliases_over_several_answers(server):
    for n in range(16):
        server.answers[f"a{n}.example"] = records((f"a{n}.example", 60, f"a{n + 1}.example"))
    server.put("a16.example", "203.0.113.10")
    assert texts(await look_up("a1.example", [server.address], 2)) == {"203.0.113.10": 60}
    assert "16 aliases" in (await look_up("a0.example", [server.address], 2)).failures[0]


OUTCOMES = {
    "answered": records((NAME, 60, "203.0.113.10"), (NAME, 60, "2001:db8::10")),
    "empty": records(),
    "timeout": drop,
    "nxdomain": rcode(dns.rcode.NXDOMAIN),
    "servfail": rcode(dns.rcode.SERVFAIL),
    "refused": rcode(dns.rcode.REFUSED),
    "loop": records((NAME, 9, NAME)),
    "malformed": truncated_on_udp(lambda q, t: framed(b"garbage that is no message")),
    "unreachable": truncated_on_udp(lambda q, t: b"\xff"),
    "refused-address": records((NAME, 60, "127.0.0.1"), (NAME, 60, "fe80::1")),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_each_outcome_has_its_word(server, outcome):
    server.answers[NAME] = OUTCOMES[outcome]
    # Only silence is waited for; a busy machine answers late.
    answer = await look_up(NAME, [server.address], 0.4 if outcome == "timeout" else 10)
    assert answer.outcomes == (("127.0.0.1", outcome),) * 2


async def test_what_was_answered_oddly_is_said_beside_it(server):
    server.put(NAME, "203.0.113.10", ttl=0)
    answer = await look_up(NAME, [server.address], 1)
    assert answer.outcomes == (
        ("127.0.0.1", "answered"),
        ("127.0.0.1", "ttl-0"),
        ("127.0.0.1", "empty"),
    )
    server.answers[NAME] = truncated_on_udp(
        records((NAME, 60, "203.0.113.10"), (NAME, 60, "10.0.0.1"))
    )
    answer = await look_up(NAME, [server.address], 1)
    assert [word for _, word in answer.outcomes] == [
        *("answered", "truncated", "refused-address"),
        *("empty", "truncated"),
    ]


async def test_who_gave_an_address_and_whether_they_disagree(server, other):
    server.put(NAME, "203.0.113.10")
    other.put(NAME, "203.0.113.10", "203.0.113.11", "2001:db8::10")
    answer = await look_up(NAME, [server.address, other.address], 1)
    assert {str(a): len(by) for a, by in answer.by.items()} == {
        "203.0.113.10": 2,
        "203.0.113.11": 1,
        "2001:db8::10": 1,
    }
    assert answer.split
    server.put(NAME, "203.0.113.10", "203.0.113.11")
    assert not (await look_up(NAME, [server.address, other.address], 1)).split, (
        "one family that is silent is no other"
    )


async def test_a_long_answer_comes_by_tcp(server):
    addresses = [f"203.0.113.{n}" for n in range(200)]
    server.answers[NAME] = truncated_on_udp(records(*((NAME, 60, a) for a in addresses)))
    answer = await look_up(NAME, [server.address], 2)
    assert set(texts(answer)) == set(addresses)
    assert server.asked[NAME, "A", "tcp"] == 1


async def test_one_resolver_that_gives_thousands_does_not_crowd_out_the_others(server, other):
    crowd = [str(ip_address("198.51.0.0") + n) for n in range(3000)]  # sent in any order
    server.answers[NAME] = truncated_on_udp(records(*((NAME, 60, a) for a in crowd)))
    other.put(NAME, "203.0.113.10")
    answer = await look_up(NAME, [server.address, other.address], 5)
    assert len(answer.ttls) == 257 and "203.0.113.10" in texts(answer)
    assert answer.failures == ("127.0.0.1 gave 3000 addresses; the first 256 are used",)
    assert [word for _, word in answer.outcomes][:3] == ["answered", "truncated", "too-many"]


async def test_what_one_resolver_sets_off_in_the_parser_does_not_silence_the_others(
    server, other, monkeypatch
):
    real = dns.asyncquery.udp

    async def fragile(query, address, **options):
        if options["port"] == server.port:
            raise AttributeError("what nobody thought of")
        return await real(query, address, **options)

    monkeypatch.setattr(dns.asyncquery, "udp", fragile)
    other.put(NAME, "203.0.113.10")
    answer = await look_up(NAME, [server.address, other.address], 1)
    assert set(texts(answer)) == {"203.0.113.10"}
    assert ("127.0.0.1", "malformed") in answer.outcomes
    alone = await look_up(NAME, [server.address], 1)
    assert alone.failures == ("127.0.0.1: AttributeError('what nobody thought of')",)


class _TwoVoices(asyncio.DatagramProtocol):
    """A server beside which somebody else answers first, from another port, with the right id and
    question.
    """

    def __init__(self, stranger):
        self.stranger = stranger

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        query = dns.message.from_wire(data)
        self.stranger.sendto(records((NAME, 60, "198.51.100.66"))(query, "udp").to_wire(), peer)
        self.transport.sendto(records((NAME, 60, "203.0.113.10"))(query, "udp").to_wire(), peer)


async def test_an_answer_from_elsewhere_is_not_taken_and_does_not_end_the_wait():
    here = {"local_addr": ("127.0.0.1", 0)}
    loop = asyncio.get_running_loop()
    stranger, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **here)
    server, _ = await loop.create_datagram_endpoint(lambda: _TwoVoices(stranger), **here)
    answer = await look_up(NAME, [server.get_extra_info("sockname")], 1)
    assert texts(answer) == {"203.0.113.10": 60}
    server.close()
    stranger.close()


async def test_a_circle_is_noticed_when_it_closes(server):
    server.answers[NAME] = records((NAME, 9, "a.example"))
    server.answers["a.example"] = records(("a.example", 9, NAME))
    await look_up(NAME, [server.address], 1)
    assert server.asked[NAME, "A", "udp"] == 1


async def test_a_lost_datagram_is_asked_for_again(server):
    truth = records((NAME, 60, "203.0.113.10"))
    server.answers[NAME] = lambda q, t: truth(q, t) if server.asked[NAME, "A", "udp"] > 1 else None
    assert texts(await look_up(NAME, [server.address], 1)) == {"203.0.113.10": 60}


async def test_a_slow_answer_is_heard_for_the_whole_time_and_a_later_one_is_not(server):
    server.put(NAME, "203.0.113.10")
    server.delay = 0.7
    assert texts(await look_up(NAME, [server.address], 1)) == {"203.0.113.10": 300}
    answer = await look_up(NAME, [server.address], 0.4)
    assert (answer.ttls, answer.failures) == ({}, ("127.0.0.1 did not answer within 0.4 s",))
    await asyncio.sleep(0.5)  # it comes now, and nobody is hurt
    server.delay = 0
    assert texts(await look_up(NAME, [server.address], 0.4)) == {"203.0.113.10": 300}


async def test_a_server_from_before_edns(server):
    truth = records((NAME, 60, "203.0.113.10"))
    formerr = rcode(dns.rcode.FORMERR)
    server.answers[NAME] = lambda q, t: formerr(q, t) if q.edns >= 0 else truth(q, t)
    assert texts(await look_up(NAME, [server.address], 1)) == {"203.0.113.10": 60}


def other_id(message):
    message.id ^= 1


def other_question(message):
    message.question = [dns.rrset.from_text("evil.example.", 0, "IN", "A")]


def no_question(message):
    message.question = []


def a_query(message):
    message.flags &= ~dns.flags.QR


@pytest.mark.parametrize("forgery", [other_id, other_question, no_question, a_query])
async def test_a_forged_answer_is_not_taken_and_does_not_end_the_wait(server, forgery):
    server.answers[NAME] = changed(records((NAME, 60, "203.0.113.10")), forgery)
    assert texts(await look_up(NAME, [server.address], 1)) == {"203.0.113.10": 60}
    server.answers[NAME] = changed(drop, forgery)
    assert (await look_up(NAME, [server.address], 0.4)).ttls == {}


async def test_records_of_other_names_are_not_taken(server):
    server.answers[NAME] = records(
        ("evil.example", 60, "198.51.100.66"),
        (NAME, 60, "a.example"),
        ("b.example", 60, "198.51.100.67"),
    )
    assert (await look_up(NAME, [server.address], 1)).ttls == {}


REFUSED = [
    "0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.1.2.3", "255.255.255.255",
    "240.0.0.1", "10.0.0.1",
    "172.31.255.255", "192.168.1.1", "100.64.0.1", "::", "::1", "fe80::1", "ff02::1", "fd00::1",
    "fec0::1",
    "::ffff:203.0.113.10", "::ffff:10.0.0.1", "198.18.0.1", "192.0.0.8", "100::1",
    "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:c0a8:101::1", "2002:7f00:1::",
]  # fmt: skip
ALLOWED = [
    "203.0.113.10",
    "198.51.100.1",
    "192.0.2.1",
    "172.32.0.1",
    "100.128.0.1",
    "9.9.9.9",
    "2001:db8::1",
    "2620:fe::fe",
    "64:ff9b::203.0.113.10",
    "2002:cb00:710a::1",
]


def test_what_is_no_destination_outside():
    assert all(refusal(ip_address(address)) for address in REFUSED)
    assert not any(refusal(ip_address(address)) for address in ALLOWED)


@pytest.mark.parametrize("address", REFUSED)
async def test_a_refused_address_is_told_and_counts_as_a_failure(server, address):
    server.put(NAME, address)
    answer = await look_up(NAME, [server.address], 1)
    family = ip_address(address).version
    assert answer.ttls == {}
    assert answer.answered == {10 - family}
    assert f"refused {ip_address(address)} (a" in answer.failures[0]
    server.put(NAME, address, "203.0.113.10", "2001:db8::10")
    answer = await look_up(NAME, [server.address], 1)
    assert set(texts(answer)) == {"203.0.113.10", "2001:db8::10"}
    assert answer.answered == {4, 6} and len(answer.failures) == 1


PRIVATE = [
    "10.0.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "fd00::1",
    "fec0::1",
]
PRIVATE += ["64:ff9b::a00:1", "64:ff9b:1::1", "2002:c0a8:101::1"]


@pytest.mark.parametrize("address", REFUSED)
async def test_private_addresses_pass_where_the_destination_says_so_and_nothing_else_does(
    server, address
):
    server.put(NAME, address)
    answer = await look_up(NAME, [server.address], 1, may_be_private=True)
    assert set(texts(answer)) == ({address} if address in PRIVATE else set())
    refused = await look_up(NAME, [server.address], 1)
    assert ("'private: true'" in refused.failures[0]) == (address in PRIVATE), (
        "no cure is offered that is none"
    )


@pytest.mark.parametrize(
    "name", ["", ".", "a" * 64 + ".example", "..", "a." * 200, "bad\\999.example"]
)
async def test_no_host_name_is_a_failure_not_an_error(server, name):
    answer = await look_up(name, [server.address], 0.5)
    assert answer.ttls == {}
    assert answer.failures


async def test_cancelling_ends_it_at_once(server):
    server.answers[NAME] = drop
    task = asyncio.ensure_future(look_up(NAME, [server.address], 30))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)
