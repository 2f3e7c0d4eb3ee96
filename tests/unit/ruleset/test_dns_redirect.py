"""Which zones' questions the DNS proxy answers, and which sets it fills."""

import pytest

from ecluse.config.load import load_policy
from ecluse.ruleset import dns_redirect
from tests.golden.cases import HERE


@pytest.fixture(params=["10-dns-gate", "11-dns-always"])
def policy(request):
    return load_policy(HERE / request.param)


def test_a_site_without_it_has_no_sets_and_no_redirect():
    plain = load_policy(HERE / "01-one-address")
    cut = dict.fromkeys(plain.zone_names(), "cut")
    assert not dns_redirect.is_on(plain)
    assert dns_redirect.learned_sets(plain) == ()
    assert not any(dns_redirect.redirects(plain, cut, zone) for zone in cut)


def test_a_closed_zone_asks_the_proxy_and_an_isolated_one_nobody(policy):
    for level, answers in (("cut", True), ("isolate", False)):
        levels = dict.fromkeys(policy.zone_names(), level)
        assert all(dns_redirect.redirects(policy, levels, zone) is answers for zone in levels)


def test_while_all_is_open_only_a_site_that_always_wants_it_asks_the_proxy():
    for name, answers in (("10-dns-gate", False), ("11-dns-always", True)):
        policy = load_policy(HERE / name)
        levels = dict.fromkeys(policy.zone_names(), "open")
        assert all(dns_redirect.redirects(policy, levels, zone) is answers for zone in levels)


def test_an_open_zone_beside_a_closed_one_asks_as_if_there_were_no_proxy(policy):
    first, *others = policy.zone_names()
    levels = {first: "open", **dict.fromkeys(others, "cut")}
    assert not dns_redirect.redirects(policy, levels, first)


def test_each_service_by_name_has_a_set_for_each_family_beside_that_of_all(policy):
    by_name = [service for service in policy.services if dns_redirect.by_name(service)]
    sets = dns_redirect.learned_sets(policy)
    assert by_name
    assert len(set(sets)) == len(sets) == 2 * (1 + len(by_name))
