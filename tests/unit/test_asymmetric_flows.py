"""Services of which the gateway sees one half alone are told before a cut."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ecluse.asymmetric_flows import one_sided_services
from ecluse.flow_judge import ConntrackEntry, FlowJudge, Tuple
from ecluse.ruleset.compile import compile_program
from tests.unit.ruleset import policies as w
from tests.unit.test_flow_judge import exact


def connection(source, to, source_port=40000, port=443, *, answered=False, protocol=6):
    one, other = ip_address(source), ip_address(to)
    return ConntrackEntry(
        protocol,
        Tuple(one, other, source_port, port),
        Tuple(other, one, port, source_port),
        answered=answered,
    )


@pytest.fixture
def judge():
    policy = exact("203.0.113.1/32", "203.0.113.2/32")
    return FlowJudge(
        policy, compile_program(policy, {}, 1), dict.fromkeys(w.ZONES, "cut"), frozenset()
    )


OUT = connection("10.10.0.5", "203.0.113.1")
BACK = connection("203.0.113.1", "10.10.0.5", 443, 40000)


@pytest.mark.parametrize("half", [OUT, BACK])
def test_either_half_is_told(judge, half):
    assert one_sided_services(judge, [half, replace(half, handle=b"2")]) == {"lab": 2}


@pytest.mark.parametrize(
    "beside",
    [
        [connection("10.10.0.5", "203.0.113.1", 40001, answered=True), OUT],
        [replace(OUT, answered=True)],
        [connection("10.10.0.5", "203.0.113.9")],
        [connection("10.20.0.5", "203.0.113.1")],
        [connection("10.10.0.5", "203.0.113.1", 0, 0, protocol=50)],
    ],
    ids=["these two do talk", "whole", "not kept", "another zone", "no TCP"],
)
def test_nothing_is_told_of(judge, beside):
    assert one_sided_services(judge, beside) == {}
    assert one_sided_services(judge, [*beside, connection("10.10.0.7", "203.0.113.2")]), (
        "positive control"
    )
