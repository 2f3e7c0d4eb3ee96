"""Questions that the values answer themselves."""

from dataclasses import replace
from ipaddress import ip_address

from ecluse.policy import Policy
from tests.unit.state.samples import LAB, POLICY, SITE


def test_the_zone_of_an_address():
    assert SITE.zone_of(ip_address("10.10.0.7")) == "care"
    assert SITE.zone_of(ip_address("2001:db8:10::7")) == "care"
    assert SITE.zone_of(ip_address("10.11.0.7")) == ""


def test_the_gateway_is_the_last_zone():
    assert POLICY.zone_names() == ("care", "gateway")


def test_host_names_come_sorted_and_once_and_private_ones_apart():
    named = replace(LAB.destinations[0], hosts=("b.example", "a.example"))
    inside = replace(named, hosts=("c.example", "a.example"), private=True)
    policy = Policy(SITE, (replace(LAB, destinations=(named, inside)),))
    assert policy.host_names() == ("a.example", "b.example", "c.example")
    assert policy.private_names() == {"a.example", "c.example"}
