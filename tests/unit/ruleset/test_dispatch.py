"""From the interfaces of a forwarded packet to its gate: any order of asking gives one verdict."""

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.policy import Policy
from ecluse.ruleset import program as p
from ecluse.ruleset import switch, table_names
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple
from ecluse.ruleset.families import FAMILIES
from ecluse.ruleset.inside_blocks import inside_blocks
from ecluse.ruleset.simulator import Packet, Simulator
from tests.effort import examples
from tests.unit.ruleset import policies as w

LINKS = ("care0", "core0", "wlan3", "wan0", "lost0")
ADDRESSES = st.sampled_from(
    [ip_address(a) for some in (*w.INSIDE.values(), w.OUTSIDE, ["10.99.0.1"]) for a in some]
)


def one_order(program):
    """Give the program without rules that only choose what is asked first."""
    early = {
        (p.Match(p.NFPROTO, (family.nfproto,)), p.Match(end, (block,)))
        for family in FAMILIES
        for end in (family.source, family.destination)
        for block in inside_blocks(Policy(w.SITE, ()), family)
    }
    chains = tuple(
        replace(c, rules=tuple(r for r in c.rules if r[:2] not in early)) if _orders(c) else c
        for c in program.chains
    )
    return replace(program, chains=chains)


def _orders(chain):
    return chain.name == "k1_forward" or chain.name.endswith(table_names.OWN_LINK)


@st.composite
def packets(draw):
    source, target = draw(ADDRESSES), draw(ADDRESSES)
    if source.version != target.version:
        target = draw(ADDRESSES.filter(lambda a: a.version == source.version))
    ports = draw(st.sampled_from(w.PORTS)), draw(st.sampled_from(w.PORTS))
    one, back = Tuple(source, target, *ports), Tuple(target, source, *ports[::-1])
    way = draw(st.sampled_from(("original", "reply")))
    entry = ConntrackEntry(
        6, *((one, back) if way == "original" else (back, one)), spoofed=draw(st.booleans())
    )
    slave = draw(st.sampled_from(("", "", *LINKS)))
    links = draw(st.sampled_from(LINKS)), draw(st.sampled_from(LINKS))
    known = draw(st.sampled_from((entry, entry, entry, None)))
    return Packet("forward", *links, source, target, 6, known, way, *ports, slave=slave)


@settings(max_examples=examples(100), deadline=None)
@given(w.policies(), w.levels, st.lists(packets(), min_size=1, max_size=20))
def test_the_order_of_asking_changes_no_verdict(policy, levels, sent):
    program = compile_program(policy, {}, 1)
    where = switch.switch_targets(policy, 1, levels)
    policy_ = switch.base_chain_policy(policy, levels)
    ordered = Simulator(program, where, policy_)
    plain = Simulator(one_order(program), where, policy_)
    assert program != one_order(program)
    for one in sent:
        assert ordered.judge(one).verdict == plain.judge(one).verdict


@settings(max_examples=examples(60), deadline=None)
@given(w.policies(), w.levels, packets())
def test_inside_to_inside_passes_whatever_the_levels(policy, levels, one):
    judge = Simulator(compile_program(policy, {}, 1), switch.switch_targets(policy, 1, levels))
    for source in ("care0", "core0", "wlan3"):
        for target in ("care0", "core0", "wlan3"):
            for slave in ("", source):
                sent = replace(one, iif="vrf0" if slave else source, oif=target, slave=slave)
                assert judge.judge(sent).verdict == "accept"


def test_more_interfaces_than_are_compared_have_a_map():
    many = replace(w.CARE, interfaces=tuple(f"care{n}" for n in range(9)))
    policy = Policy(replace(w.SITE, zones=(many, *w.SITE.zones[1:])), ())
    program = compile_program(policy, {}, 1)
    forward = next(c for c in program.chains if c.name == "k1_forward.from")
    assert (p.Match(p.SDIF, (0,)), p.VerdictMap((p.IIFNAME,), "k1_from")) in forward.rules
    levels = dict.fromkeys(w.ZONES, "cut") | {"care": "open"}
    judge = Simulator(program, switch.switch_targets(policy, 1, levels))
    here, there = ip_address("10.10.0.5"), ip_address("203.0.113.1")
    sent = Packet("forward", "care7", "wan0", here, there, 6, None)
    assert judge.judge(sent).verdict == "accept"
    assert judge.judge(replace(sent, iif="lost0")).verdict == "drop"
    assert judge.judge(replace(sent, iif="core0")).verdict != "accept"


def test_few_ways_lead_to_the_refusal_whatever_the_number_of_zones(policy):
    """Older kernels check in each transaction what stands at the end of a way, for every way."""
    program = compile_program(policy, {}, 1)
    refusal = p.goto(table_names.gate_chain(1, table_names.ELSEWHERE))
    ends = {c.name for c in program.chains if any(refusal in rule for rule in c.rules)}
    assert ends == {"k1_forward", "k1_forward.from", "k1_vrf"}


def test_a_table_whose_gates_nobody_has_set_passes_what_is_inside_alone(policy):
    """So it is while the real table is loaded (`switch.interim_text`)."""
    judge = Simulator(compile_program(policy, {}, 1), {"forward": "k1_forward"})
    here, there = ip_address("10.10.0.5"), ip_address("10.20.0.5")
    sent = Packet("forward", "care0", "core0", here, there, 6, None)
    assert judge.judge(sent).verdict == "accept"
    assert judge.judge(replace(sent, oif="wan0")).verdict == "reject"
    assert judge.judge(replace(sent, iif="wan0")).verdict == "drop"
