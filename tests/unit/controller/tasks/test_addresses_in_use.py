"""Which addresses live connections of a service go to."""

from ipaddress import ip_address, ip_network

import pytest

from ecluse.controller.tasks.addresses_in_use import in_use, learned_in_use
from ecluse.flow_judge import ConntrackEntry, Tuple
from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from tests.unit.ruleset.policies import SITE

OLD, NEW = "203.0.113.9", "203.0.113.10"


HTTPS = (Traffic(6, 443, 443),)


def destination(*hosts, direction=Direction.OUTBOUND, traffic=HTTPS, **more):
    return Destination(direction, hosts, (), traffic, **more)


def service(*destinations, name="lab", zones=("care",), hosts=()):
    inside = tuple(map(ip_network, hosts))
    return Service(name, "", "", "", Criticality.VITAL, zones, inside, destinations)


def policy(*services):
    return Policy(SITE, services or (service(destination("a.example")),))


def line(inside, outside, port=443, protocol=6, *, inbound=False, answered=True):
    a, b = ip_address(inside), ip_address(outside)
    if inbound:
        return ConntrackEntry(
            protocol, Tuple(b, a, 40000, port), Tuple(a, b, port, 40000), answered=answered
        )
    return ConntrackEntry(
        protocol, Tuple(a, b, 40000, port), Tuple(b, a, port, 40000), answered=answered
    )


RESOLVED = {"a.example": (ip_address(OLD), ip_address(NEW)), "b.example": (ip_address(OLD),)}


CASES = {
    "from the zone": (line("10.10.0.5", OLD), True),
    "from another zone": (line("10.30.0.5", OLD), False),
    "to another port": (line("10.10.0.5", OLD, 22), False),
    "by another protocol": (line("10.10.0.5", OLD, protocol=17), False),
    "to another address": (line("10.10.0.5", "203.0.113.77"), False),
    "never answered": (line("10.10.0.5", OLD, answered=False), False),
    "the other way round": (line("10.10.0.5", OLD, inbound=True), False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_live_connection_of_the_service_itself_counts_and_nobody_elses(case):
    connection, counts = CASES[case]
    assert in_use([policy()], RESOLVED, [connection]) == ({"a.example": {OLD}} if counts else {})


def test_who_else_may_use_a_service():
    hosts = policy(service(destination("a.example"), zones=(), hosts=("10.30.0.5/32",)))
    assert in_use([hosts], RESOLVED, [line("10.30.0.5", OLD), line("10.30.0.6", NEW)]) == {
        "a.example": {OLD}
    }
    gateway = policy(service(destination("a.example"), zones=("gateway",)))
    assert in_use([gateway], RESOLVED, [line("192.0.2.2", OLD), line("10.10.0.5", NEW)]) == {
        "a.example": {OLD}
    }
    inbound = policy(service(destination("a.example", direction=Direction.INBOUND)))
    assert in_use(
        [inbound], RESOLVED, [line("10.10.0.5", OLD, inbound=True), line("10.10.0.5", NEW)]
    ) == {"a.example": {OLD}}
    ping = policy(service(destination("c.example", traffic=(Traffic(1),))))
    six = {"c.example": (ip_address("2001:db8:ff::1"),)}
    assert in_use([ping], six, [line("2001:db8:10::5", "2001:db8:ff::1", 0, 58)]) == {
        "c.example": {"2001:db8:ff::1"}
    }


def test_any_policy_that_is_loaded_counts():
    other = policy(service(destination("b.example", traffic=(Traffic(6, 22, 22),))))
    found = in_use(
        [policy(), other], RESOLVED, [line("10.10.0.5", OLD), line("10.10.0.5", OLD, 22)]
    )
    assert found == {"a.example": {OLD}, "b.example": {OLD}}


LEARNED = {
    "dns_svc_lab_4": frozenset({int(ip_address(OLD))}),
    "dns_all_4": frozenset({int(ip_address(OLD))}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_learned_address_is_in_use_by_its_services_own_connections_alone(case):
    connection, counts = CASES[case]
    wild = policy(
        service(Destination(Direction.OUTBOUND, (), (), HTTPS, wildcards=("operator.example",)))
    )
    address = ip_address(OLD)
    wanted = {"dns_svc_lab_4": {address}, "dns_all_4": {address}} if counts else {}
    assert learned_in_use([wild], LEARNED, [connection]) == wanted
    fixed = policy(
        service(Destination(Direction.OUTBOUND, (), (ip_network("203.0.113.0/24"),), HTTPS))
    )
    assert learned_in_use([fixed], LEARNED, [connection]) == {}, "nothing is learned for it"
