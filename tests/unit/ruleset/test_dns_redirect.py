"""The DNS proxy in the ruleset: which zones are redirected, which sets there are, and where to."""

from dataclasses import replace

import pytest

from ecluse.policy import DnsMode
from ecluse.ruleset import table_names
from ecluse.ruleset.dns_redirect import (
    asked_here,
    client_jump,
    dnsmasq_guard,
    everywhere_open,
    is_on,
    learned_sets,
    open_input,
    redirect_gate,
    redirect_targets,
    redirects,
)
from tests.golden.cases import HERE, compiled

POLICY, _ = compiled(HERE / "10-dns-gate")
PLAIN, _ = compiled(HERE / "01-one-address")
ALWAYS = replace(
    POLICY, site=replace(POLICY.site, dns=replace(POLICY.site.dns, mode=DnsMode.ALWAYS))
)
ZONES = POLICY.zone_names()
CUT, OPEN, ISOLATE = (dict.fromkeys(ZONES, level) for level in ("cut", "open", "isolate"))


@pytest.mark.parametrize(
    ("policy", "levels", "redirected"),
    [
        (POLICY, CUT, True),
        (POLICY, OPEN, False),
        (POLICY, ISOLATE, False),  # nothing is kept, so no name is answered
        (POLICY, OPEN | {"care": "cut"}, True),
        (ALWAYS, OPEN, True),
        # All names are passed on for all zones or for none.
        (ALWAYS, OPEN | {"guest-wifi": "cut"}, False),
    ],
)
def test_whose_dns_is_redirected(policy, levels, redirected):
    assert redirects(policy, levels, "care") is redirected
    target = redirect_targets(policy, 3, levels)[redirect_gate(3, "care")]
    assert target.endswith("open") is not redirected


def test_everywhere_open_means_the_gateway_too():
    assert everywhere_open(POLICY, OPEN)
    assert not everywhere_open(POLICY, OPEN | {"gateway": "cut"})


def test_one_set_for_all_services_and_one_for_each_that_is_known_by_name():
    sets = learned_sets(POLICY)
    assert {"dns_all_4", "dns_all_6", "dns_svc_secure_mail_4", "dns_svc_console_6"} <= set(sets)
    assert all(table_names.is_learned_set(name) for name in sets)


def test_a_site_without_the_proxy_has_nothing_of_it():
    assert not is_on(PLAIN)
    levels = dict.fromkeys(PLAIN.zone_names(), "cut")
    assert learned_sets(PLAIN) == asked_here(PLAIN) == client_jump(PLAIN, 1) == ()
    assert dnsmasq_guard(PLAIN) == ()
    assert redirect_targets(PLAIN, 1, levels) == {}
    assert open_input(PLAIN, 1).endswith("open")


def test_at_open_packets_to_dnsmasq_are_limited_where_the_proxy_answers_then():
    assert open_input(POLICY, 1) == "k1_open"
    assert open_input(ALWAYS, 1) == "k1_dns.open"
