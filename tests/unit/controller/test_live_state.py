"""Which wildcards may have addresses in caches inside that were never learned."""

from dataclasses import replace

from ecluse.controller import live_state
from ecluse.policy import DnsMode
from tests.unit.controller.dns_site import (
    DNS_CUT,
    DNS_OPEN,
    DNS_POLICY,
    DNS_ZONES,
)


def test_a_cut_says_which_names_servers_inside_may_hold_old_addresses_of(dns_machine):
    """With `mode: cut` the gate learned nothing of wildcards before it: told by the plan and by the
    answer, once.
    """

    def told(warnings):
        return [one for one in warnings if "flush_zone" in one]

    plan = dns_machine.run(
        dns_machine.controller.plan(level="cut", zones=None, rollback=None, reload=False)
    )
    assert len(told(plan.warnings)) == 1
    done = dns_machine.set("cut")
    (said,) = told(done.warnings)
    assert "*.operator.example" in said
    assert "unbound-control flush_zone operator.example" in said
    assert "rndc flushtree operator.example" in said
    assert "console.example" not in said, "not kept"
    assert not told(dns_machine.set("cut").warnings), "it was shut before"
    assert not told(dns_machine.set("reduced").warnings)
    assert not told(dns_machine.set("open").warnings)
    (said,) = told(dns_machine.set("reduced").warnings)
    assert "console.example" in said


def test_where_the_gate_answers_at_open_too_nothing_is_held_that_it_did_not_learn():
    always = replace(
        DNS_POLICY,
        site=replace(DNS_POLICY.site, dns=replace(DNS_POLICY.site.dns, mode=DnsMode.ALWAYS)),
    )
    assert live_state.stale_caches(always, DNS_OPEN, always, DNS_CUT) == ()
    # Beside a zone that is cut an open one asks past the gate.
    beside = DNS_OPEN | {"guest-wifi": "cut"}
    assert len(live_state.stale_caches(always, beside, always, DNS_CUT)) == 1
    assert (
        live_state.stale_caches(
            DNS_POLICY, DNS_OPEN, DNS_POLICY, dict.fromkeys(DNS_ZONES, "isolate")
        )
        == ()
    )
