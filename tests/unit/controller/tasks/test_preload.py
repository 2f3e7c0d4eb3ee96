"""Policies beside the live one: a load gives way to closings, and not for ever."""

from ipaddress import ip_network

import pytest

from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from tests.unit.controller.machine import Machine, simple
from tests.unit.ruleset.policies import SITE


def test_a_reload_does_not_starve_behind_closings_without_end(machine):
    """It gives way to each at every step, and begins again; after some times it goes through."""
    machine.controller._live.lock.urgent_waiting.is_set = lambda: True
    assert machine.reload(simple(("svc-0", "svc-1"))).changed


OLD, NEW = "203.0.113.9", "203.0.113.10"


HTTPS = (Traffic(6, 443, 443),)


def destination(*hosts, direction=Direction.OUTBOUND, traffic=HTTPS, **more):
    return Destination(direction, hosts, (), traffic, **more)


def service(*destinations, name="lab", zones=("care",), hosts=()):
    inside = tuple(map(ip_network, hosts))
    return Service(name, "", "", "", Criticality.VITAL, zones, inside, destinations)


def policy(*services):
    return Policy(SITE, services or (service(destination("a.example")),))


@pytest.fixture
def machine():
    made = Machine(policy(), {"a.example": [OLD, NEW]})
    made.start()
    yield made
    made.close()


def test_names_that_may_be_private_are_asked_for_as_such(machine):
    allowed = policy(service(destination("a.example", private=True)))
    machine.reload(allowed)
    assert machine.resolver.private == {"a.example"}
