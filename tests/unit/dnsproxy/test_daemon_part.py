"""The DNS proxy's part of the daemon: its configuration, its alerts, its part of the status."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ecluse.dnsproxy import daemon_part
from ecluse.dnsproxy.process_report import RefusedQuery
from ecluse.ports import CounterValue, SetReading
from ecluse.results import RefusedFlow
from ecluse.ruleset.table_names import DNS_LIMITED
from tests.unit.controller.dns_site import (
    DNS_POLICY,
    TELLS,
    until,
)
from tests.unit.controller.machine import Machine


@pytest.fixture
def dns_machine():
    one = Machine(DNS_POLICY)
    one.dns.reported = TELLS
    one.start()
    yield one
    one.close()


def part(machine) -> daemon_part.DnsProxyPart:
    return machine.controller.parts.extensions.part("dns_gate")


def test_orders_follow_the_level(dns_machine):
    until(dns_machine, lambda: dns_machine.dns.orders is not None)
    dns_machine.set("reduced")
    until(dns_machine, lambda: "console.example" in dns_machine.dns.orders.wildcards)
    dns_machine.set("isolate")
    until(dns_machine, lambda: not dns_machine.dns.orders.wildcards)


def test_a_gate_that_does_not_work_is_said_and_unsaid(dns_machine):
    def said():
        return [w for w in dns_machine.alert_texts() if w.startswith("the DNS gate:")]

    dns_machine.dns.wrong = "it does not answer"
    part(dns_machine).wake()
    until(dns_machine, said)
    status = dns_machine.run(dns_machine.controller.status())
    assert not status.dns.working
    assert status.dns.refused == 7
    dns_machine.dns.wrong = ""
    part(dns_machine).wake()
    until(dns_machine, lambda: not said())
    assert dns_machine.run(dns_machine.controller.status()).dns.working


def test_what_the_gate_found_in_its_sets_is_said_once_and_in_the_status(dns_machine):
    told: list[str] = []
    dns_machine.controller.parts.events._log = lambda e: told.append(f"{e.kind}: {e.message}")
    dns_machine.dns.reported = replace(
        TELLS, removed=2, removed_last="203.0.113.66 in dns_all_4", adopted=3
    )
    for _ in range(2):
        part(dns_machine).wake()
        until(dns_machine, lambda: not part(dns_machine)._changed.is_set())
    until(dns_machine, lambda: len(told) >= 2)
    assert (
        len([t for t in told if "203.0.113.66" in t])
        == len([t for t in told if "was lost: 3" in t])
        == 1
    )
    status = dns_machine.run(dns_machine.controller.status())
    assert (status.dns.removed, status.dns.adopted) == (2, 3)
    assert status.dns.working


def test_trouble_that_leaves_names_answered_says_nothing_else(dns_machine):
    told: list[str] = []
    dns_machine.controller.parts.events._log = lambda e: told.append(f"{e.kind}: {e.message}")
    dns_machine.dns.reported = replace(
        TELLS, trouble=("learned addresses could not be saved: No space left",)
    )
    part(dns_machine).wake()
    until(dns_machine, dns_machine.alert_texts)
    assert dns_machine.alert_texts() == (
        "the DNS gate: learned addresses could not be saved: No space left",
    )
    assert dns_machine.run(dns_machine.controller.status()).dns.working
    dns_machine.dns.wrong = "it does not answer"
    part(dns_machine).wake()
    until(dns_machine, lambda: "names are not answered" in dns_machine.alert_texts()[0])
    assert not dns_machine.run(dns_machine.controller.status()).dns.working
    dns_machine.dns.reported, dns_machine.dns.wrong = replace(TELLS, trouble=("a full disk",)), ""
    part(dns_machine).wake()
    until(dns_machine, lambda: dns_machine.alert_texts() == ("the DNS gate: a full disk",))
    dns_machine.dns.reported = TELLS
    part(dns_machine).wake()
    until(dns_machine, lambda: not dns_machine.alert_texts())
    assert told[-1] == "dns: the DNS gate is without trouble again", "it worked all the while"


def test_a_tunnel_is_told_as_one():
    asked = [
        RefusedQuery("10.10.4.7", f"n{i}.t.evil.example", "TXT", "name", 1, 100.0) for i in range(9)
    ]
    asked.append(RefusedQuery("10.30.0.9", "www.web.example", "A", "name", 2, 90.0))
    rows = list(daemon_part.refused_names(asked, DNS_POLICY, datetime.fromtimestamp(130, UTC)))
    assert [(r.client, r.zone, r.name, r.times, r.last) for r in rows] == [
        ("10.10.4.7", "care", "*.t.evil.example", 9, 30),
        ("10.30.0.9", "guest-wifi", "www.web.example", 2, 40),
    ]


def test_who_asks_too_much_is_named_with_what_to_type(dns_machine):
    """By the kernel's own count; a server that is under `internal` by now is none of them, nor is
    any when nobody is over.
    """
    over = [RefusedFlow(f"10.10.4.{n}", "", "", 0, 100 * n, 0, 3, "") for n in range(7, 20)]
    server = RefusedFlow("10.10.0.53", "", "", 0, 99_999, 0, 3, "")
    link_local = RefusedFlow("fe80::7", "", "", 0, 1, 0, 3, "")
    dns_machine.firewall.over = SetReading((*over, server, link_local), full=False)
    assert dns_machine.status().dns.limited == ()
    dns_machine.firewall.table.counters[DNS_LIMITED] = CounterValue(5, 500)
    status = dns_machine.status()
    assert [(one.source, one.questions) for one in status.dns.limited] == [
        (f"10.10.4.{n}", 100 * n) for n in range(19, 9, -1)
    ]
    (said,) = [text for text in status.warnings if "questions a second" in text]
    assert "10.10.4.19 (zone care, 1,900 questions), 10.10.4.18" in said
    assert "and others" in said
    assert "internal: servers" in said
    dns_machine.firewall.over = SetReading((link_local,), full=False)
    assert any("fe80::7 (no zone, 1 questions)" in text for text in dns_machine.status().warnings)
    dns_machine.firewall.over = SetReading((), full=False)
    assert not dns_machine.status().dns.limited


def test_rows_that_could_not_be_read_are_counted_beside_those_that_could(dns_machine):
    row = RefusedQuery("10.10.4.7", "evil.example", "A", "name", 3, 1.0)
    dns_machine.dns.reported = replace(TELLS, questions=(row,), unread=2)
    dns_machine.firewall.evidence = SetReading((), full=False, unread=1)
    answer = dns_machine.run(dns_machine.controller.refused(10))
    assert [one.name for one in answer.names] == ["evil.example"]
    assert answer.unread == 3
