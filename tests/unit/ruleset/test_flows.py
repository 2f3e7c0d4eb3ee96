"""The judge of connections against the oracle: the short way gives what walking all the rules gives."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.flows import FlowJudge
from ecluse.ruleset.compile import compile_program
from tests.unit.ruleset import policies as w


@settings(max_examples=200, deadline=None)
@given(w.policies(), w.addresses, w.levels, st.sampled_from(w.ZONES), st.data())
def test_the_short_way_is_the_whole_way(policy, addresses, levels, zone, data):
    connection, ours = data.draw(w.connections(zone))
    judge = FlowJudge(
        policy, compile_program(policy, addresses, 3), levels, frozenset({"192.0.2.1", "2001:db8:1::1"})
    )
    flow = judge.judge(connection)
    if flow.verdict in {"kept", "refused"}:
        walked = judge._oracle.judge(judge._packet(connection, zone, opened_inside=ours))
        assert (walked.verdict == "accept") == (flow.verdict == "kept")
        assert walked.service.removeprefix("svc_") == flow.service
