"""Our table over fakes: loaded beside what is live, switched, restored from whatever it is."""

from dataclasses import replace

import pytest

from ecluse.policy import DnsMode
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.table_names import BASE_CHAINS, DNS, is_learned_set
from tests.unit.controller.dns_site import (
    DNS_CUT,
    DNS_OPEN,
    DNS_PLAIN,
    DNS_POLICY,
)
from tests.unit.controller.machine import CUT, Machine, simple


def test_killed_while_the_line_is_held():
    machine = Machine(simple())
    machine.start()
    machine.set("cut")
    machine.kill()
    machine.firewall.table = None
    machine.run(machine.firewall.apply(switch.interim_text(simple(), 7)))
    assert machine.run(machine.firewall.policies())["forward"] == "drop"
    machine.start()
    assert machine.kernel() == CUT
    assert dict(machine.status().levels) == CUT
    machine.close()


@pytest.mark.parametrize(
    "meddling", [{"dormant": True}, {"hooks": {"forward": "filter forward 300"}}]
)
def test_a_closing_into_a_table_that_judges_nothing_puts_it_in_anew(meddling):
    """Nobody told of it yet: the switch is taken, and all that it shows is as it should be."""
    machine = Machine(simple())
    machine.start()
    for name, value in meddling.items():
        setattr(machine.firewall.table, name, value)
    assert machine.set("cut").verified
    assert machine.run(machine.firewall.read_switch([])).hooks == switch.HOOKS
    assert machine.kernel() == CUT
    machine.close()


def test_a_cut_puts_the_table_in_anew_when_somebody_has_just_deleted_it(machine):
    machine.firewall.table = None
    answer = machine.set("cut")
    assert answer.verified
    assert machine.kernel() == CUT


def test_a_switch_that_only_a_text_could_make_is_made_and_said(machine):
    machine.firewall.refusal = "the kernel refused the switch (busy), and took it from libnftables"
    assert machine.set("cut").verified
    assert machine.kernel() == CUT
    assert [e.message for e in machine.events if e.kind == "warning"] == [machine.firewall.refusal]


def test_the_redirect_is_part_of_the_switch(dns_machine):
    dns_machine.set("cut")
    chains = dns_machine.firewall.table.chains
    assert chains[DNS][0].endswith("_dns")
    assert all("redirect" in rules[0] for name, rules in chains.items() if "_gate.dns." in name)
    dns_machine.set("open")
    assert dns_machine.firewall.table.chains[DNS][0].endswith("_open")


def test_a_policy_without_a_gate_leaves_none_behind_once_it_is_alone(dns_machine):
    dns_machine.set("cut")
    dns_machine.reload(DNS_PLAIN)
    assert dns_machine.firewall.table.chains[DNS][0].endswith("_open"), (
        "idle while another policy is held ready"
    )
    program = compile_program(DNS_PLAIN, {}, 9)
    held = dns_machine.run(dns_machine.firewall.objects())
    text = switch.removal_text(held, [9], program.counters, program.learned)
    assert f"delete chain inet ecluse {DNS}" in text
    assert all(
        f"delete set inet ecluse {name}" in text for name in held["set"] if is_learned_set(name)
    )


def test_always_redirects_at_open_too():
    always = replace(
        DNS_POLICY,
        site=replace(DNS_POLICY.site, dns=replace(DNS_POLICY.site.dns, mode=DnsMode.ALWAYS)),
    )
    assert switch.switch_targets(always, 1, DNS_OPEN)[DNS] == "k1_dns"
    assert switch.switch_targets(DNS_POLICY, 1, DNS_OPEN)[DNS] == "k1_open"
    assert DNS not in switch.switch_targets(DNS_PLAIN, 1, DNS_CUT)
    assert switch.switch_targets(DNS_PLAIN, 1, DNS_CUT, redirect=True)[DNS] == "k1_open"
    # With it comes the bound of each dns_machine; whoever leaves DNS alone at open looks at nothing
    # there.
    assert switch.switch_targets(always, 1, DNS_OPEN)["input"] == "k1_dns.open"
    assert switch.switch_targets(always, 1, DNS_OPEN)["forward"] == "k1_open"
    # At output our own look-ups get their label, for a cut in the middle of one.
    at_open = switch.switch_targets(DNS_POLICY, 1, DNS_OPEN)
    assert {hook: at_open[hook] for hook in BASE_CHAINS} == {
        "forward": "k1_open",
        "input": "k1_open",
        "output": "k1_open.output",
        "postrouting": "k1_open",
    }
    assert at_open["raw"] == ""
    mixed = switch.switch_targets(always, 1, DNS_OPEN | {"care": "cut"})
    assert mixed["input"] == "k1_input"
    assert mixed["k1_gate.dns.care"] == "k1_dns.redirect.care"
    assert mixed["k1_gate.dns.guest_wifi"] == "k1_open", (
        "all names are passed on for all or for none"
    )
    assert switch.levels_of_targets(always, switch.switch_targets(always, 1, DNS_OPEN)) == DNS_OPEN


def test_a_guard_stands_before_anything_is_asked_and_goes_with_the_healing():
    machine = Machine(simple())
    machine.start()
    machine.set("cut")
    seen = []
    survey = machine.firewall.objects

    async def objects():
        seen.append(machine.firewall.table and dict(machine.firewall.table.policies))
        return await survey()

    machine.firewall.objects = objects
    machine.firewall.tamper("flush ruleset")
    machine.settle()
    assert seen[0] == dict.fromkeys(BASE_CHAINS, "drop")
    assert machine.kernel() == CUT
    assert not any("guard" in chain for chain in machine.run(machine.firewall.chains()))
    machine.set("open")
    machine.firewall.tamper("flush ruleset")
    assert machine.firewall.table is None, "at open nothing is shut"
    machine.settle()
    machine.close()


def test_things_of_others_in_our_table_go_even_if_they_cannot_be_named_in_a_text():
    machine = Machine(simple())
    machine.start()
    machine.set("cut")
    for name in ("theirs", "x } flush"):
        machine.firewall.table.chains[name] = ["accept"]
        machine.firewall.tamper("flush chain inet ecluse forward")
        machine.settle()
        assert machine.kernel() == CUT
        assert name not in machine.run(machine.firewall.chains())
    machine.close()


def test_what_others_put_into_our_table_is_taken_out_by_kind():
    held = {
        "chain": ("forward", "k0_guard", "k2_open", "theirs"),
        "map": ("k2_from", "theirs_map"),
        "set": ("refused4", "theirs_set"),
        "counter": ("refused_out", "svc_lab", "svc_old", "theirs_counter"),
        "ct helper": ("ftp",),
        "flowtable": ("fast",),
    }
    text = switch.removal_text(held, {2}, {"svc_lab"})
    assert [line.replace(" inet ecluse", "") for line in text.splitlines()] == [
        "flush chain k0_guard",
        "flush chain theirs",
        "delete map theirs_map",
        "delete chain k0_guard",
        "delete chain theirs",
        "delete set theirs_set",
        "delete counter svc_old",
        "delete counter theirs_counter",
        "delete ct helper ftp",
        "delete flowtable fast",
    ]
    assert switch.removal_text({"chain": ("forward", "k2_open")}, {2}, ()) == ""
    for name in ("x } ; flush ruleset", "", "é"):
        with pytest.raises(ValueError, match="no name that nft can read"):
            switch.removal_text({"chain": (name,)}, {2}, ())
