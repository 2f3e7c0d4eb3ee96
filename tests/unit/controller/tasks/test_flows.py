"""Connections that are not kept: ended once, told, and tried again."""

import asyncio
from ipaddress import ip_address

import pytest

from ecluse.controller.context import Options
from ecluse.controller.tasks import supervisor
from ecluse.errors import KernelError
from ecluse.flow_judge import ConntrackEntry, FlowJudge, Tuple
from ecluse.ruleset.compile import compile_program
from tests.unit.controller import machine as machines
from tests.unit.controller.dns_site import (
    DNS_CUT,
    DNS_OPEN,
    DNS_POLICY,
    until,
)
from tests.unit.controller.machine import Machine, allowlist, command

NO_THREAD = RuntimeError(
    "can't start new thread"
)  # what asyncio.to_thread raises where clone(2) says ENOMEM or EAGAIN


@pytest.fixture
def ticking(monkeypatch):
    monkeypatch.setattr(supervisor, "_CALM", 0.05)
    monkeypatch.setattr(machines, "Options", lambda **given: Options(**(given | {"tick": 0.05})))
    made = Machine(allowlist())
    made.start()
    yield made
    made.close()


def warned(machine: Machine, words: str) -> bool:
    return any(words in text for text in machine.status().warnings)


async def no_warning(machine: Machine, words: str) -> None:
    while any(words in text for text in machine.alert_texts()):
        await asyncio.sleep(0.005)


def test_connections_that_could_not_be_ended_are_ended_at_the_regular_look(ticking):
    care, web = ip_address("10.10.0.7"), ip_address("198.51.100.80")
    ticking.conntrack.table = [
        ConntrackEntry(6, Tuple(care, web, 1, 443), Tuple(web, care, 443, 1))
    ]
    ticking.conntrack.fail["connections"] = NO_THREAD
    ticking.set("cut")
    assert warned(
        ticking, "old connections could not be ended (RuntimeError: can't start new thread"
    )
    assert len([e for e in ticking.events if "could not be ended" in e.message]) == 1
    del ticking.conntrack.fail["connections"]
    ticking.run(no_warning(ticking, "could not be ended"))
    assert (
        ticking.controller.purge(ticking.controller._live.current.generation.number).state == "done"
    )
    assert not ticking.conntrack.table


def test_links_that_cannot_be_read_end_nothing(machine):
    machine.links.fail["read_links"] = KernelError("dump interrupted")
    machine.links.change("interface stick0 is up")
    machine.settle()
    assert machine.controller.alive
    assert any("dump interrupted" in warning for warning in machine.status().warnings)


def test_a_purge_that_was_overtaken_ends_nothing_that_is_open_again(machine):
    care, web = ip_address("10.10.0.7"), ip_address("198.51.100.80")
    there, back = Tuple(care, web, 1, 443), Tuple(web, care, 443, 1)
    line = ConntrackEntry(6, there, back)
    machine.conntrack.table = [line]
    listed = machine.conntrack.connections

    opened = asyncio.Event()

    async def slowly():
        found = await listed()
        await opened.wait()
        return found

    machine.conntrack.connections = slowly

    async def both():
        for level in ("cut", "open"):
            await machine.controller.set_level(level, None, command())
            await asyncio.sleep(0.05)
        opened.set()

    machine.run(both())
    machine.settle()
    assert machine.conntrack.table == [line]
    machine.set("cut")
    assert machine.conntrack.table == [], "positive control"


def question(server: str, reply_from: str, reply_port: int) -> ConntrackEntry:
    client = ip_address("10.10.4.7")
    return ConntrackEntry(
        17,
        Tuple(client, ip_address(server), 40000, 53),
        Tuple(ip_address(reply_from), client, reply_port, 40000),
    )


STRAIGHT = question("192.0.2.53", "192.0.2.53", 53)


REDIRECTED = question("192.0.2.53", "10.10.0.1", 5310)


TO_GATEWAY = question("10.10.0.1", "10.10.0.1", 53)


TO_INSIDE = question("10.30.0.9", "10.30.0.9", 53)


@pytest.mark.parametrize(
    ("levels", "ended"),
    [
        (DNS_CUT, {STRAIGHT, TO_GATEWAY}),
        (DNS_OPEN, {REDIRECTED}),
        (DNS_OPEN | {"care": "cut"}, {STRAIGHT, TO_GATEWAY}),
    ],
)
def test_questions_that_go_elsewhere_than_the_level_says_are_ended(levels, ended):
    judge = FlowJudge(
        DNS_POLICY, compile_program(DNS_POLICY, {}, 1), levels, frozenset({"10.10.0.1"})
    )
    every = (STRAIGHT, REDIRECTED, TO_GATEWAY, TO_INSIDE)
    assert {one for one in every if judge.judge(one).verdict == "refused"} == ended


def test_a_learned_address_keeps_a_connection():
    def verdict(learned: str, port: int, zone_source: str = "10.10.4.7") -> str:
        far, near = ip_address("203.0.113.150"), ip_address(zone_source)
        one = ConntrackEntry(
            6, Tuple(near, far, 40000, port), Tuple(far, ip_address("192.0.2.2"), port, 40000)
        )
        held = {name: frozenset({int(far)}) for name in ("dns_all_4", learned)}
        judge = FlowJudge(
            DNS_POLICY, compile_program(DNS_POLICY, {}, 1), DNS_CUT, frozenset(), learned=held
        )
        return judge.judge(one).verdict

    assert verdict("dns_svc_secure_mail_4", 443) == "kept"
    assert verdict("dns_svc_secure_mail_4", 8443) == "refused"
    assert verdict("dns_svc_console_4", 443) == "refused", "important, and this is cut"
    assert verdict("nothing", 443) == "refused"


def test_entries_of_the_connection_table_that_nobody_can_read_are_told(dns_machine):
    dns_machine.conntrack.unread = 2
    dns_machine.set("cut")
    until(
        dns_machine,
        lambda: any("2 entries of the connection" in t for t in dns_machine.alert_texts()),
    )
    dns_machine.conntrack.unread = 0
    dns_machine.set("isolate")
    until(dns_machine, lambda: not dns_machine.alert_texts())
