"""Answers that are given again: for how long, to whom, and how much memory they take."""

import tracemalloc

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from ecluse.dnsproxy.answer_cache import MOST as HELD
from ecluse.dnsproxy.answer_cache import AnswerCache
from tests.unit.dnsproxy.messages import (
    answer,
    asked,
    reply_to,
)


def test_an_answer_is_given_again_for_its_ttl_to_whoever_asks():
    held, data = AnswerCache(), asked("node.operator.example")
    rows = (
        "node.operator.example. 60 IN CNAME front.operator.example.",
        "front.operator.example. 90 IN A 203.0.113.9",
    )
    held.store(data, reply_to(data, *rows), 100.0, while_open=False)
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
        held.store(data, reply_to(data, *rows), 0.0, while_open=True)
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
    held.store(data, reply, 0.0, while_open=False)
    for age in (1, 2, 59):
        again = dns.message.from_wire(held.find(data, age + 0.5).wire)
        assert [one.ttl for one in again.answer] == [60 - age, 90 - age, 70 - age]
        assert again.answer == reply.answer


def test_what_says_nothing_or_may_not_be_held_is_not():
    held = AnswerCache()
    data = asked("node.operator.example")
    held.store(data, reply_to(data), 0.0, while_open=False)
    held.store(
        data, reply_to(data, "node.operator.example. 0 IN A 203.0.113.9"), 0.0, while_open=False
    )
    many = [f"node.operator.example. 60 IN A 203.0.{n // 250}.{n % 250}" for n in range(300)]
    held.store(data, reply_to(data, *many), 0.0, while_open=False)
    refused = reply_to(data, "node.operator.example. 60 IN A 203.0.113.9")
    refused.set_rcode(dns.rcode.SERVFAIL)
    held.store(data, refused, 0.0, while_open=False)
    assert held.find(data, 0.0) is None
    good = reply_to(data, "node.operator.example. 60 IN A 203.0.113.9")
    held.store(data, good, 0.0, while_open=True)
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
        held.store(asked(f"n{n}.operator.example"), good, 0.0, while_open=False)
    assert held.find(asked("n0.operator.example"), 0.0) is None
    assert held.find(asked(f"n{HELD}.operator.example"), 0.0) is not None


def test_who_can_take_less_is_not_given_what_was_held_for_others():
    held, name = AnswerCache(), "node.operator.example"
    many = [f"{name}. 60 IN A 203.0.113.{n}" for n in range(40)]
    data = asked(name)
    held.store(data, reply_to(data, *many), 0.0, while_open=False)
    assert len(held.find(asked(name, client="10.20.1.5"), 0.0).wire) > 512
    small = asked(name, payload=512)
    assert held.find(small, 0.0) is None
    held.store(small, reply_to(small, *many), 0.0, while_open=False)
    assert held.find(small, 0.0) is None, "the rest comes by TCP, asked for anew"
    plain = dns.message.make_query(name, "A").to_wire()
    held.store(plain, reply_to(plain, *many), 0.0, while_open=False)
    assert held.find(plain, 0.0) is None


PROOF = "operator.example. 60 IN NSEC x.operator.example. A RRSIG NSEC"


def test_who_wants_no_signatures_is_not_given_what_is_held_for_who_does():
    held = AnswerCache()
    queries = [
        dns.message.make_query("x.operator.example", "A", use_edns=0, payload=1232, want_dnssec=do)
        for do in (True, False)
    ]
    signed = dns.message.make_response(queries[0])
    signed.answer = answer("x.operator.example", "A 203.0.113.9").answer
    held.store(queries[0].to_wire(), signed, 0.0, while_open=False)
    assert held.find(queries[0].to_wire(), 0.0) is not None
    assert held.find(queries[1].to_wire(), 0.0) is None
    # That something does not exist is held with its proof, and counted down.
    nothing = dns.message.make_response(queries[0])
    nothing.authority = answer("x.operator.example", "A 203.0.113.9", authority=PROOF).authority
    held.store(queries[0].to_wire(), nothing, 0.0, while_open=False, keys=True)
    found = held.find(queries[0].to_wire(), 10.0)
    assert found.keys
    assert [one.ttl for one in dns.message.from_wire(found.wire).authority] == [50]
