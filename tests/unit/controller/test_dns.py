"""The DNS gate and the controller: orders, what is said of it, and who is ended when the redirect
changes.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from ecluse.controller import live_state
from ecluse.controller.tasks import dns_proxy
from ecluse.errors import KernelError
from ecluse.flow_judge import FlowJudge
from ecluse.policy import DnsMode, DnsProxySettings
from ecluse.ports import CounterValue, DeniedQuery, DnsReport, RefusedElement, SetReading
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple
from ecluse.ruleset.table_names import BASE_CHAINS, DNS, DNS_LIMITED, is_learned
from tests.golden.cases import HERE, compiled
from tests.unit.controller.machine import Machine

POLICY, _ = compiled(HERE / "10-dns-gate")
PLAIN = replace(
    POLICY,
    site=replace(POLICY.site, dns=DnsProxySettings()),
    services=tuple(
        replace(
            s,
            destinations=tuple(
                replace(d, wildcards=(), hosts=("a.lab.example",)) for d in s.destinations
            ),
        )
        for s in POLICY.services
    ),
)
ZONES = POLICY.zone_names()
CUT, OPEN = dict.fromkeys(ZONES, "cut"), dict.fromkeys(ZONES, "open")
TELLS = DnsReport((), 1, 3, {}, 7, ())


@pytest.fixture
def machine():
    one = Machine(POLICY)
    one.dns.told = TELLS
    one.start()
    yield one
    one.close()


def until(machine: Machine, true) -> None:
    async def wait():
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.01)

    machine.run(wait())


def test_orders_follow_the_level(machine):
    until(machine, lambda: machine.dns.orders is not None)
    machine.set("reduced")
    until(machine, lambda: "console.example" in machine.dns.orders.wildcards)
    machine.set("isolate")
    until(machine, lambda: not machine.dns.orders.wildcards)


def test_a_gate_that_does_not_work_is_said_and_unsaid(machine):
    def said():
        return [w for w in machine.alert_texts() if w.startswith("the DNS gate:")]

    machine.dns.wrong = "it does not answer"
    machine.controller.parts.dns.wake()
    until(machine, said)
    status = machine.run(machine.controller.status())
    assert not status.dns.working
    assert status.dns.refused == 7
    machine.dns.wrong = ""
    machine.controller.parts.dns.wake()
    until(machine, lambda: not said())
    assert machine.run(machine.controller.status()).dns.working


def test_what_the_gate_found_in_its_sets_is_said_once_and_in_the_status(machine):
    told: list[str] = []
    machine.controller.parts.events._log = lambda e: told.append(f"{e.kind}: {e.message}")
    machine.dns.told = replace(
        TELLS, removed=2, removed_last="203.0.113.66 in dns_all_4", adopted=3
    )
    for _ in range(2):
        machine.controller.parts.dns.wake()
        until(machine, lambda: not machine.controller.parts.dns._changed.is_set())
    until(machine, lambda: len(told) >= 2)
    assert (
        len([t for t in told if "203.0.113.66" in t])
        == len([t for t in told if "was lost: 3" in t])
        == 1
    )
    status = machine.run(machine.controller.status())
    assert (status.dns.removed, status.dns.adopted) == (2, 3)
    assert status.dns.working


def test_trouble_that_leaves_names_answered_says_nothing_else(machine):
    told: list[str] = []
    machine.controller.parts.events._log = lambda e: told.append(f"{e.kind}: {e.message}")
    machine.dns.told = replace(
        TELLS, trouble=("learned addresses could not be saved: No space left",)
    )
    machine.controller.parts.dns.wake()
    until(machine, machine.alert_texts)
    assert machine.alert_texts() == (
        "the DNS gate: learned addresses could not be saved: No space left",
    )
    assert machine.run(machine.controller.status()).dns.working
    machine.dns.wrong = "it does not answer"
    machine.controller.parts.dns.wake()
    until(machine, lambda: "names are not answered" in machine.alert_texts()[0])
    assert not machine.run(machine.controller.status()).dns.working
    machine.dns.told, machine.dns.wrong = replace(TELLS, trouble=("a full disk",)), ""
    machine.controller.parts.dns.wake()
    until(machine, lambda: machine.alert_texts() == ("the DNS gate: a full disk",))
    machine.dns.told = TELLS
    machine.controller.parts.dns.wake()
    until(machine, lambda: not machine.alert_texts())
    assert told[-1] == "dns: the DNS gate is without trouble again", "it worked all the while"


def test_the_redirect_is_part_of_the_switch(machine):
    machine.set("cut")
    chains = machine.firewall.table.chains
    assert chains[DNS][0].endswith("_dns")
    assert all("redirect" in rules[0] for name, rules in chains.items() if "_gate.dns." in name)
    machine.set("open")
    assert machine.firewall.table.chains[DNS][0].endswith("_open")


def test_a_policy_without_a_gate_leaves_none_behind_once_it_is_alone(machine):
    machine.set("cut")
    machine.reload(PLAIN)
    assert machine.firewall.table.chains[DNS][0].endswith("_open"), (
        "idle while another policy is held ready"
    )
    program = compile_program(PLAIN, {}, 9)
    held = machine.run(machine.firewall.objects())
    text = switch.removal_text(held, [9], program.counters, program.learned)
    assert f"delete chain inet ecluse {DNS}" in text
    assert all(f"delete set inet ecluse {name}" in text for name in held["set"] if is_learned(name))


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
        (CUT, {STRAIGHT, TO_GATEWAY}),
        (OPEN, {REDIRECTED}),
        (OPEN | {"care": "cut"}, {STRAIGHT, TO_GATEWAY}),
    ],
)
def test_questions_that_go_elsewhere_than_the_level_says_are_ended(levels, ended):
    judge = FlowJudge(POLICY, compile_program(POLICY, {}, 1), levels, frozenset({"10.10.0.1"}))
    every = (STRAIGHT, REDIRECTED, TO_GATEWAY, TO_INSIDE)
    assert {one for one in every if judge.judge(one).verdict == "refused"} == ended


def test_a_learned_address_keeps_a_connection():
    def verdict(learned: str, port: int, zone_source: str = "10.10.4.7") -> str:
        far, near = ip_address("203.0.113.150"), ip_address(zone_source)
        one = ConntrackEntry(
            6, Tuple(near, far, 40000, port), Tuple(far, ip_address("192.0.2.2"), port, 40000)
        )
        held = {name: frozenset({int(far)}) for name in ("dns_all_4", learned)}
        judge = FlowJudge(POLICY, compile_program(POLICY, {}, 1), CUT, frozenset(), learned=held)
        return judge.judge(one).verdict

    assert verdict("dns_svc_secure_mail_4", 443) == "kept"
    assert verdict("dns_svc_secure_mail_4", 8443) == "refused"
    assert verdict("dns_svc_console_4", 443) == "refused", "important, and this is cut"
    assert verdict("nothing", 443) == "refused"


def test_a_tunnel_is_told_as_one():
    asked = [
        DeniedQuery("10.10.4.7", f"n{i}.t.evil.example", "TXT", "name", 1, 100.0) for i in range(9)
    ]
    asked.append(DeniedQuery("10.30.0.9", "www.web.example", "A", "name", 2, 90.0))
    rows = list(dns_proxy.refused_names(asked, POLICY, datetime.fromtimestamp(130, UTC)))
    assert [(r.client, r.zone, r.name, r.times, r.last) for r in rows] == [
        ("10.10.4.7", "care", "*.t.evil.example", 9, 30),
        ("10.30.0.9", "guest-wifi", "www.web.example", 2, 40),
    ]


def test_always_redirects_at_open_too():
    always = replace(
        POLICY, site=replace(POLICY.site, dns=replace(POLICY.site.dns, mode=DnsMode.ALWAYS))
    )
    assert switch.targets(always, 1, OPEN)[DNS] == "k1_dns"
    assert switch.targets(POLICY, 1, OPEN)[DNS] == "k1_open"
    assert DNS not in switch.targets(PLAIN, 1, CUT)
    assert switch.targets(PLAIN, 1, CUT, redirect=True)[DNS] == "k1_open"
    # With it comes the bound of each machine; whoever leaves DNS alone at open looks at nothing
    # there.
    assert switch.targets(always, 1, OPEN)["input"] == "k1_dns.open"
    assert {switch.targets(always, 1, OPEN)[hook] for hook in ("forward", "output")} == {"k1_open"}
    assert {switch.targets(POLICY, 1, OPEN)[hook] for hook in BASE_CHAINS} == {"k1_open"}
    mixed = switch.targets(always, 1, OPEN | {"care": "cut"})
    assert mixed["input"] == "k1_input"
    assert mixed["k1_gate.dns.care"] == "k1_dns.redirect.care"
    assert mixed["k1_gate.dns.guest_wifi"] == "k1_open", (
        "all names are passed on for all or for none"
    )
    assert switch.read_levels(always, switch.targets(always, 1, OPEN)) == OPEN


def test_what_lives_at_open_is_held_for_the_cut(machine):
    """No packet comes by the gate's sets at open: the look at the connections stands in for it."""
    held, idle = ip_address("203.0.113.130"), ip_address("203.0.113.131")
    both = frozenset({int(held), int(idle)})
    machine.firewall.answered = {"dns_svc_secure_mail_4": both, "dns_all_4": both}
    inside = ip_address("10.10.0.5")
    machine.conntrack.table = [
        ConntrackEntry(6, Tuple(inside, held, 40000, 443), Tuple(held, inside, 443, 40000))
    ]
    controller = machine.controller
    machine.run(machine.address_use().look())
    assert machine.firewall.held == {"dns_svc_secure_mail_4": {held}, "dns_all_4": {held}}
    # It is one of our own transactions, and one that needs no comparison of the whole table.
    machine.firewall.fail["fingerprint"] = KernelError("nobody reads the table for it")
    live, gate = controller._live.current, controller._table
    assert machine.run(gate.in_step(live.loaded, live.levels))


def test_what_lives_is_held_between_two_changes_and_not_within_one(machine):
    """A load that met it in its midst would take it for a stranger's, and put the whole table in
    anew.
    """
    held = ip_address("203.0.113.130")
    machine.firewall.answered = {"dns_svc_secure_mail_4": frozenset({int(held)})}
    inside = ip_address("10.10.0.5")
    machine.conntrack.table = [
        ConntrackEntry(6, Tuple(inside, held, 40000, 443), Tuple(held, inside, 443, 40000))
    ]
    controller = machine.controller

    async def main() -> None:
        async with controller._live.lock.hold():
            look = asyncio.create_task(machine.address_use().look())
            await asyncio.sleep(0.1)
            assert not machine.firewall.held
        await look
        assert machine.firewall.held

    machine.run(main())


def test_who_asks_too_much_is_named_with_what_to_type(machine):
    """By the kernel's own count; a server that is under `internal` by now is none of them, nor is
    any when nobody is over.
    """
    over = [RefusedElement(f"10.10.4.{n}", "", 0, 0, 100 * n, 0, 3) for n in range(7, 20)]
    server = RefusedElement("10.10.0.53", "", 0, 0, 99_999, 0, 3)
    link_local = RefusedElement("fe80::7", "", 0, 0, 1, 0, 3)
    machine.firewall.over = SetReading((*over, server, link_local), full=False)
    assert machine.status().dns.limited == ()
    machine.firewall.table.counters[DNS_LIMITED] = CounterValue(5, 500)
    status = machine.status()
    assert [(one.source, one.questions) for one in status.dns.limited] == [
        (f"10.10.4.{n}", 100 * n) for n in range(19, 9, -1)
    ]
    (said,) = [text for text in status.warnings if "questions a second" in text]
    assert "10.10.4.19 (zone care, 1,900 questions), 10.10.4.18" in said
    assert "and others" in said
    assert "internal: servers" in said
    machine.firewall.over = SetReading((link_local,), full=False)
    assert any("fe80::7 (no zone, 1 questions)" in text for text in machine.status().warnings)
    machine.firewall.over = SetReading((), full=False)
    assert not machine.status().dns.limited


def test_rows_that_could_not_be_read_are_counted_beside_those_that_could(machine):
    row = DeniedQuery("10.10.4.7", "evil.example", "A", "name", 3, 1.0)
    machine.dns.told = replace(TELLS, questions=(row,), unread=2)
    machine.firewall.evidence = SetReading((), full=False, unread=1)
    answer = machine.run(machine.controller.refused(10))
    assert [one.name for one in answer.names] == ["evil.example"]
    assert answer.unread == 3


def test_a_cut_says_which_names_servers_inside_may_hold_old_addresses_of(machine):
    """With `mode: cut` the gate learned nothing of wildcards before it: told by the plan and by the
    answer, once.
    """

    def told(warnings):
        return [one for one in warnings if "flush_zone" in one]

    plan = machine.run(
        machine.controller.plan(level="cut", zones=None, rollback=None, reload=False)
    )
    assert len(told(plan.warnings)) == 1
    done = machine.set("cut")
    (said,) = told(done.warnings)
    assert "*.operator.example" in said
    assert "unbound-control flush_zone operator.example" in said
    assert "rndc flushtree operator.example" in said
    assert "console.example" not in said, "not kept"
    assert not told(machine.set("cut").warnings), "it was shut before"
    assert not told(machine.set("reduced").warnings)
    assert not told(machine.set("open").warnings)
    (said,) = told(machine.set("reduced").warnings)
    assert "console.example" in said


def test_where_the_gate_answers_at_open_too_nothing_is_held_that_it_did_not_learn():
    always = replace(
        POLICY, site=replace(POLICY.site, dns=replace(POLICY.site.dns, mode=DnsMode.ALWAYS))
    )
    assert live_state.stale_caches(always, OPEN, always, CUT) == ()
    # Beside a zone that is cut an open one asks past the gate.
    beside = OPEN | {"guest-wifi": "cut"}
    assert len(live_state.stale_caches(always, beside, always, CUT)) == 1
    assert live_state.stale_caches(POLICY, OPEN, POLICY, dict.fromkeys(ZONES, "isolate")) == ()


def test_entries_of_the_connection_table_that_nobody_can_read_are_told(machine):
    machine.conntrack.unread = 2
    machine.set("cut")
    until(machine, lambda: any("2 entries of the connection" in t for t in machine.alert_texts()))
    machine.conntrack.unread = 0
    machine.set("isolate")
    until(machine, lambda: not machine.alert_texts())
