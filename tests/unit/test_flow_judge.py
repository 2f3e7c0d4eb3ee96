"""The judge of connections: its short way gives what walking all the rules gives."""

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.controller import live_state as lv
from ecluse.flow_judge import ConntrackEntry, FlowJudge, Tuple
from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from ecluse.ruleset import simulator
from ecluse.ruleset.compile import compile_program
from tests.effort import examples
from tests.unit.ruleset import policies as w


@settings(max_examples=examples(200))
@given(w.policies(), w.addresses, w.levels, st.sampled_from(w.ZONES), st.data())
def test_the_short_way_is_the_whole_way(policy, addresses, levels, zone, data):
    connection, ours = data.draw(w.connections(zone))
    connection = replace(connection, spoofed=data.draw(st.sampled_from([False, False, True])))
    judge = FlowJudge(
        policy,
        compile_program(policy, addresses, 3),
        levels,
        frozenset({"192.0.2.1", "2001:db8:1::1"}),
    )
    flow = judge.judge(connection)
    if flow.verdict in {"kept", "refused"}:
        walked = judge._simulator.judge(judge._packet(connection, zone, opened_inside=ours))
        assert (walked.verdict == "accept") == (flow.verdict == "kept")
        assert walked.service.removeprefix("svc_") == flow.service
        assert not (connection.spoofed and flow.verdict == "kept")


def exact(*addresses, hosts=()):
    one = Destination(
        Direction.OUTBOUND,
        hosts,
        tuple(w.net(a) for a in addresses),
        (Traffic(6, 443, 443), Traffic(50)),
    )
    return Policy(w.SITE, (Service("lab", "", "", "", Criticality.VITAL, ("care",), (), (one,)),))


def test_a_judge_looks_in_the_program_itself_and_keeps_what_it_made_for_the_next(monkeypatch):
    """The purge comes after each cut: it must not read the allowlist, and a changed address is one
    small map.
    """
    made = []
    really = simulator._Index.__init__
    monkeypatch.setattr(
        simulator._Index,
        "__init__",
        lambda self, named: (made.append(named.name), really(self, named))[1],
    )
    policy = exact("203.0.113.1/32", "198.51.100.0/24", hosts=("a.example",))
    known = {"a.example": (ip_address("203.0.113.9"),)}
    loaded = lv.compiled(policy, "sha256:0", known, 1, (0,))
    cut = dict.fromkeys(w.ZONES, "cut")

    def verdict(of, to):
        ends = Tuple(ip_address("10.10.0.5"), ip_address(to), 40000, 443)
        back = Tuple(ip_address(to), ip_address("10.10.0.5"), 443, 40000)
        return of.judge(cut, frozenset(), 0, {}).judge(ConntrackEntry(6, ends, back)).verdict

    assert [verdict(loaded, to) for to in ("203.0.113.1", "203.0.113.9", "203.0.113.10")] == [
        "kept",
        "kept",
        "refused",
    ]
    assert len(made) == len(set(made)) > 1
    del made[:]
    moved = lv.with_addresses(loaded, {"a.example": (ip_address("203.0.113.10"),)})
    assert [
        verdict(moved, to) for to in ("203.0.113.1", "203.0.113.9", "203.0.113.10", "198.51.100.7")
    ] == [
        "kept",
        "refused",
        "kept",
        "kept",
    ]
    assert made
    assert all("names" in name for name in made)
