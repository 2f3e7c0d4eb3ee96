"""The DNS gate's decisions: what it answers at which level, what leaves, what comes back, how much,
who is told of.
"""

import json
import tracemalloc
from dataclasses import replace
from ipaddress import ip_address

import dns.edns
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.answer_cache import MOST as HELD
from ecluse.dnsproxy.answer_cache import AnswerCache
from ecluse.dnsproxy.denied_queries import MOST, MOST_CLIENTS, TOLD, DeniedQueries
from ecluse.dnsproxy.dnsmasq_config import WORD_OPTION, config_text, servers_text
from ecluse.dnsproxy.message_filter import DnsQuestion, Refusal
from ecluse.dnsproxy.rate_limit import MOST_CLIENTS as MOST_SHARES
from ecluse.dnsproxy.rate_limit import MOST_NAMES, SERVERS_SHARE, SHARE, NewNameLimit
from ecluse.policy import DnsMode, Traffic
from ecluse.ruleset.proxy_config import NamePolicy, ProxyConfig, proxy_config_of
from ecluse.state.codec import canonical, read_json
from tests.golden.cases import HERE, compiled

CASE = HERE / "10-dns-gate"
POLICY, PROGRAM = compiled(CASE)
ZONES = POLICY.zone_names()


def at(level: str, **zones: str):
    return proxy_config_of(
        POLICY, dict.fromkeys(ZONES, level) | {z.replace("_", "-"): v for z, v in zones.items()}
    )


def test_the_engines_files_are_as_accepted():
    orders = at("cut")
    assert (
        config_text(orders, CASE / "servers.conf", "WORD").replace(str(CASE), "RUN_DIR")
        == (CASE / "dnsmasq.conf").read_text()
    )
    assert servers_text(orders) == (CASE / "servers.conf").read_text()


def test_a_level_answers_what_it_keeps_and_open_is_ready_for_a_cut():
    assert set(at("cut").wildcards) == set(at("open").wildcards) == {"operator.example"}
    assert set(at("reduced").wildcards) == {"operator.example", "console.example"}
    assert not at("isolate").wildcards
    assert not at("isolate").names
    # A zone of its own level counts by it: the console is care's alone.
    assert set(at("cut", care="reduced").wildcards) == {"operator.example", "console.example"}
    assert set(at("cut", guest_wifi="reduced").wildcards) == {"operator.example"}
    assert proxy_config_of(compiled(HERE / "01-one-address")[0], {}) is None


def test_everything_is_passed_on_only_while_every_zone_is_open_and_the_site_says_always():
    always = replace(
        POLICY, site=replace(POLICY.site, dns=replace(POLICY.site.dns, mode=DnsMode.ALWAYS))
    )
    assert proxy_config_of(always, dict.fromkeys(ZONES, "open")).everything
    assert not proxy_config_of(always, dict.fromkeys(ZONES, "open") | {"care": "cut"}).everything
    assert not at("open").everything


def test_orders_are_read_back_as_they_were_written():
    orders = at("cut")
    assert read_json(ProxyConfig, canonical(orders)) == orders


def test_orders_from_before_ports_were_told_are_read():
    """An upgrade finds the last orders of the version before it, and a name that they know is
    answered.
    """
    told = json.loads(canonical(at("cut")))
    for answers in (*told["names"].values(), *told["wildcards"].values()):
        del answers["traffic"]
    orders = read_json(ProxyConfig, json.dumps(told).encode())
    assert orders.wildcards["operator.example"].services == ("secure-mail",)
    assert not orders.wildcards["operator.example"].keeps(6, 443)


def test_a_name_below_a_wildcard_is_answered_for_both():
    own = replace(
        POLICY.services[1],
        criticality=POLICY.services[0].criticality,
        destinations=(
            replace(
                POLICY.services[1].destinations[0], hosts=("mx.operator.example",), wildcards=()
            ),
        ),
    )
    orders = proxy_config_of(
        replace(POLICY, services=(POLICY.services[0], own)), dict.fromkeys(ZONES, "cut")
    )
    assert set(orders.answers("mx.operator.example").services) == {"secure-mail", "console"}
    assert orders.answers("x.mx.operator.example").services == ("secure-mail",)


ORDERS = at("cut")


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
    verdict = message_filter.judge(name, dns.rdatatype.from_text(kind), ORDERS)
    said = verdict.why if isinstance(verdict, Refusal) else "leaves"
    assert said == outcome


def test_the_question_that_leaves_is_our_own():
    query = dns.message.make_query("ReSuLtS.lab.example", "A", use_edns=0, options=[])
    name, kind = message_filter.parse_question(query)
    outward = message_filter.outward(message_filter.judge(name, kind, ORDERS))
    assert outward.question[0].name.to_text() == "results.lab.example."
    assert not outward.options
    assert outward.id != query.id or outward.to_wire() != query.to_wire()
    assert (
        message_filter.parse_question(dns.message.make_query("x.example", "A", rdclass="CH"))
        is None
    )


def answered(text: str, name: str = "x.operator.example", kind: str = "A", private=False):
    query = dns.message.make_query(name, kind)
    reply = dns.message.from_text(
        f"id 1\nopcode QUERY\nrcode NOERROR\nflags QR RD RA\n;QUESTION\n{name}. IN {kind}\n;ANSWER\n{text}\n"
        ';ADDITIONAL\nextra.operator.example. 5 IN TXT "carried in"\n'
    )
    question = DnsQuestion(name, dns.rdatatype.from_text(kind), ("secure-mail",), "", private)
    return message_filter.filter_answer(query, reply, question, ORDERS)


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
    """Sixteen answers of 64 KiB would else fill the sets, and no address of any service had room."""
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


def test_new_names_are_bounded_and_known_ones_are_not():
    names = NewNameLimit()
    names.limit(5)
    let = sum(
        names.may(f"n{i}.operator.example", "operator.example", 0.0, f"c{i}") for i in range(200)
    )
    assert let == 50
    assert all(names.may("n1.operator.example", "operator.example", 0.0) for _ in range(100))
    assert (
        sum(
            names.may(f"m{i}.operator.example", "operator.example", 2.0, f"c{i}")
            for i in range(200)
        )
        == 10
    )
    assert names.may("x.other.example", "other.example", 2.0), (
        "each wildcard has a bound of its own"
    )


def test_a_machine_that_asks_for_many_names_leaves_half_for_those_that_ask_for_few():
    names = NewNameLimit()
    names.limit(10)

    def let(client: str, times: int, now: float, share: float = SHARE) -> int:
        return sum(
            names.may(
                f"{client}-{now}-{n}.operator.example", "operator.example", now, client, share
            )
            for n in range(times)
        )

    # Ten that are its own share, then down to half of the hundred; what comes in beyond the half is
    # for anybody.
    assert let("infected", 500, 0.0) == 50
    assert let("infected", 500, 1.0) == 10
    assert [let(f"ward{n}", 10, 1.0) for n in range(4)] == [10] * 4
    assert let("infected", 500, 2.0) == 1, "its share of a second"
    assert let("server", 40, 2.0, SERVERS_SHARE) == 19, (
        "the bound of all together holds: 100 + 2 * 10"
    )
    assert let("ward9", 1, 2.0) == 0
    assert let("ward9", 5, 3.0) == 5
    # Whoever asks for nothing new is not counted, and what is known of machines is bounded.
    assert all(
        names.may("infected-0.0-1.operator.example", "operator.example", 3.0, "ward9")
        for _ in range(50)
    )
    for n in range(MOST_SHARES + 10):
        names.may(f"crowd{n}.operator.example", "operator.example", 4.0, f"client{n}")
    assert len(names._own) == MOST_SHARES


WORD = "0123456789abcdef"
"""What tells the engine's questions from those of others."""


def asked(
    name: str, kind: str = "A", number: int = 7, *, client: str = "10.10.4.7", payload: int = 1232
) -> bytes:
    options = [dns.edns.ECSOption(client, 32), dns.edns.GenericOption(WORD_OPTION, WORD.encode())]
    query = dns.message.make_query(name, kind, use_edns=0, payload=payload, options=options)
    query.id = number
    return query.to_wire()


def reply_to(data: bytes, *rows: str) -> dns.message.Message:
    reply = dns.message.make_response(dns.message.from_wire(data), recursion_available=True)
    reply.answer = dns.message.from_text("id 1\n;ANSWER\n" + "\n".join(rows) + "\n").answer
    return reply


def test_an_answer_is_given_again_for_its_ttl_to_whoever_asks():
    held, data = AnswerCache(), asked("node.operator.example")
    rows = (
        "node.operator.example. 60 IN CNAME front.operator.example.",
        "front.operator.example. 90 IN A 203.0.113.9",
    )
    held.keep(data, reply_to(data, *rows), 100.0, while_open=False)
    other = asked("NoDe.Operator.example", number=4711, client="10.20.1.5")
    found = held.find(other, 120.5)
    assert found is not None
    assert not found.while_open
    again = dns.message.from_wire(found.wire)
    assert again.id == 4711
    assert (
        again.question[0].name.to_text()
        == again.answer[0].name.to_text()
        == "NoDe.Operator.example."
    )
    assert [one.ttl for one in again.answer] == [40, 70]
    assert again.rcode() == 0
    assert dns.message.from_wire(other).is_response(again)
    assert held.find(asked("node.operator.example", "AAAA"), 120.5) is None
    assert held.find(asked("node2.operator.example"), 120.5) is None
    assert held.find(data, 160.0) is None, "over"
    assert held.find(data, 120.0) is None, "and gone"


def test_what_is_held_is_little_more_than_the_bytes_of_an_answer():
    """As many as may be held, of many records each, go by far into the 256 MiB of the unit."""
    held, several = AnswerCache(), 50
    rows = [f"a.evil.example. 300 IN NS n{n}.a.evil.example." for n in range(65)]
    tracemalloc.start()
    for number in range(several):
        data = asked(f"a{number}.evil.example", "NS")
        held.keep(data, reply_to(data, *rows), 0.0, while_open=True)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    wire = held.find(asked("a0.evil.example", "NS"), 0.0).wire
    assert len(wire) > 1000
    assert used < several * 3000


def test_every_second_counts_every_ttl_down_whatever_the_record():
    held, data = AnswerCache(), asked("node.operator.example", "HTTPS")
    rows = (
        "node.operator.example. 60 IN CNAME front.operator.example.",
        "front.operator.example. 90 IN HTTPS 1 . alpn=h2 ipv4hint=203.0.113.9",
        ". 70 IN TXT one two",
    )
    reply = reply_to(data, *rows)
    held.keep(data, reply, 0.0, while_open=False)
    for age in (1, 2, 59):
        again = dns.message.from_wire(held.find(data, age + 0.5).wire)
        assert [one.ttl for one in again.answer] == [60 - age, 90 - age, 70 - age]
        assert again.answer == reply.answer


def test_what_says_nothing_or_may_not_be_held_is_not():
    held = AnswerCache()
    data = asked("node.operator.example")
    held.keep(data, reply_to(data), 0.0, while_open=False)
    held.keep(
        data, reply_to(data, "node.operator.example. 0 IN A 203.0.113.9"), 0.0, while_open=False
    )
    many = [f"node.operator.example. 60 IN A 203.0.{n // 250}.{n % 250}" for n in range(300)]
    held.keep(data, reply_to(data, *many), 0.0, while_open=False)
    refused = reply_to(data, "node.operator.example. 60 IN A 203.0.113.9")
    refused.set_rcode(dns.rcode.SERVFAIL)
    held.keep(data, refused, 0.0, while_open=False)
    assert held.find(data, 0.0) is None
    good = reply_to(data, "node.operator.example. 60 IN A 203.0.113.9")
    held.keep(data, good, 0.0, while_open=True)
    found = held.find(data, 0.0)
    assert found is not None
    assert found.while_open
    # Nothing that is no plain question, whole, is looked for; nor does anything break it.
    for cut in range(len(data)):
        held.find(data[:cut], 0.0)
    assert held.find(data[:2] + b"\x81" + data[3:], 0.0) is None, "an answer"
    assert held.find(data[:12] + b"\xc0" + data[13:], 0.0) is None, "a pointer"
    held.clear()
    assert held.find(data, 0.0) is None
    for n in range(HELD + 5):
        held.keep(asked(f"n{n}.operator.example"), good, 0.0, while_open=False)
    assert held.find(asked("n0.operator.example"), 0.0) is None
    assert held.find(asked(f"n{HELD}.operator.example"), 0.0) is not None


def test_who_can_take_less_is_not_given_what_was_held_for_others():
    held, name = AnswerCache(), "node.operator.example"
    many = [f"{name}. 60 IN A 203.0.113.{n}" for n in range(40)]
    data = asked(name)
    held.keep(data, reply_to(data, *many), 0.0, while_open=False)
    assert len(held.find(asked(name, client="10.20.1.5"), 0.0).wire) > 512
    small = asked(name, payload=512)
    assert held.find(small, 0.0) is None
    held.keep(small, reply_to(small, *many), 0.0, while_open=False)
    assert held.find(small, 0.0) is None, "the rest comes by TCP, asked for anew"
    plain = dns.message.make_query(name, "A").to_wire()
    held.keep(plain, reply_to(plain, *many), 0.0, while_open=False)
    assert held.find(plain, 0.0) is None


def test_the_engine_says_who_asks():
    assert message_filter.client(dns.message.from_wire(asked("a.operator.example"))) == "10.10.4.7"
    six = dns.message.make_query("a.", "A", options=[dns.edns.ECSOption("2001:db8:10::4:7", 128)])
    assert message_filter.client(dns.message.from_wire(six.to_wire())) == "2001:db8:10::4:7"
    assert message_filter.client(dns.message.make_query("a.", "A")) == ""
    outward = message_filter.outward(DnsQuestion("a.operator.example", dns.rdatatype.A, (), ""))
    assert outward.options == (), "it stays between the engine and us"


def tally() -> DeniedQueries:
    return DeniedQueries(lambda name, _kind: None if name == "kept.example" else Refusal("name"))


def test_the_tally_counts_who_asked_across_pieces_of_the_log():
    told = tally()
    line = b"dnsmasq[7]: 12 10.10.4.7/4000 query[TXT] Evil.example from 10.10.4.7\ndnsmasq[7]: 12 10.10.4.7/4000 config error is REFUSED\n"
    told.count_line(line[:40])
    told.count_line(line[40:] + line.replace(b"Evil", b"kept") + line)
    assert [(r["client"], r["name"], r["type"], r["times"]) for r in told.told()] == [
        ("10.10.4.7", "evil.example", "TXT", 2)
    ]
    assert told.total == 2


def test_the_tally_is_bounded_and_what_is_asked_often_stays():
    told = tally()
    often = b"dnsmasq[7]: 3 10.10.4.8/4000 query[A] often.example from 10.10.4.8\n"
    told.count_line(often * 50)
    line = b"dnsmasq[7]: 3 10.10.4.9/4000 query[TXT] n%d.tunnel.example from 10.10.4.9\n"
    told.count_line(b"".join(line % n for n in range(3 * MOST)))
    assert len(told._asked) <= MOST
    assert told.told()[0]["name"] == "often.example"
    assert told.clients["10.10.4.9"] == 3 * MOST


def machine(number: int) -> tuple[int, int, int]:
    return number % 100_000 >> 16, number % 100_000 >> 8 & 255, number & 255


def test_a_million_names_of_a_hundred_thousand_machines_are_held_within_the_bounds():
    """What memory a flood can take: counted, not timed.

    All that the gate's process keys by what a machine chose.
    """
    told, names = tally(), NewNameLimit()
    names.limit(10_000)
    most = {"pairs": 0, "machines": 0, "names": 0, "rest": 0}
    for start in range(0, 1_000_000, 20_000):
        numbers = range(start, start + 20_000)
        told.count_line(
            b"\n"
            + b"".join(
                b"dnsmasq[7]: 1 10.%d.%d.%d/7 query[A] n%d.nobody.example from 10.%d.%d.%d\n"
                % (*machine(n), n, *machine(n))
                for n in numbers
            )
            + b"x" * 5_000
        )
        for n in numbers:
            names.may(f"n{n}.operator.example", "operator.example", start / 10_000)
        now = (len(told._asked), len(told.clients), len(names._seen), len(told._rest))
        most = {key: max(before, one) for (key, before), one in zip(most.items(), now, strict=True)}
    assert told.total == 1_000_000, "none is passed over"
    assert most["pairs"] <= MOST
    assert most["machines"] == MOST_CLIENTS
    assert MOST_NAMES <= most["names"] <= MOST_NAMES + 1
    assert most["rest"] <= 1_000
    assert len(names._buckets) == 1
    assert len(told.told()) == TOLD


def test_answers_are_joined_without_doubles():
    orders = at("reduced")
    assert orders.wildcards["operator.example"] == NamePolicy(
        ("secure-mail",), ("MX",), traffic=(Traffic(6, 443, 443), Traffic(17, 500, 510))
    )
