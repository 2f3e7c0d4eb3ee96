"""Look-ups by a packet's own fields keep what those by `ct original` keep, and nothing else."""

from dataclasses import replace
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from ecluse.ruleset import program as p
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple
from ecluse.ruleset.packet_lookups import NOT_REDIRECTED
from ecluse.ruleset.simulator import Packet, Simulator
from tests.unit.ruleset import policies as w
from tests.unit.ruleset.packets import cut, flow, packet

INTERFACES = ("care0", "core0", "wlan1", "wan0", "lost0")


POLICIES = st.builds(
    lambda services: Policy(w.SITE, tuple(services)),
    st.lists(
        st.builds(
            lambda number, zones, to, ports: Service(
                f"svc-{number}",
                "",
                "",
                "",
                Criticality.VITAL,
                tuple(zones),
                (),
                (Destination(Direction.OUTBOUND, (), tuple(map(ip_network, to)), tuple(ports)),),
            ),
            st.integers(0, 99),
            st.lists(st.sampled_from(("care", "admin")), min_size=1, unique=True),
            st.lists(st.sampled_from((*w.OUTSIDE, "203.0.113.0/28")), min_size=1, unique=True),
            st.lists(
                st.builds(lambda n: Traffic(6, n, n), st.sampled_from((443, 444))), min_size=1
            ),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one.name,
    ),
)


def without(program):
    """Give the program without the look-ups by the packet's own fields."""
    chains = (
        replace(c, rules=tuple(rule for rule in c.rules if NOT_REDIRECTED not in rule))
        for c in program.chains
    )
    return replace(program, chains=tuple(chains))


def _some(networks, version, other4, other6):
    """Draw an address in one of these networks, or another."""
    found = [n.network_address + min(5, n.num_addresses - 1) for n in networks]
    near = [a for a in found if a.version == version]
    return st.sampled_from([*near, *near, ip_address(other4 if version == 4 else other6)])


@st.composite
def packets(draw, policy):
    """Draw a forwarded packet, bent towards what is kept: translated or not, in both directions."""
    pick = lambda some: draw(st.sampled_from(tuple(some)))
    often = st.sampled_from((True, True, True, False))
    service = pick(policy.services)
    wanted = pick(service.destinations)
    zone = pick([z for z in policy.site.zones if z.name in service.zones] or policy.site.zones)
    traffic = pick(wanted.traffic)
    version = pick(n.version for n in wanted.networks) if wanted.networks else 4
    outside = _some(wanted.networks, version, "198.51.100.9", "2001:db8:ffff::9")
    near = zone.subnets if draw(often) else [n for z in policy.site.zones for n in z.subnets]
    inside = _some(near, version, "198.51.100.10", "2001:db8:ffff::10")
    ports = st.sampled_from((traffic.first or 0, traffic.first or 0, 444, 40000))
    ends = (draw(inside), draw(outside))
    one = Tuple(*(ends if draw(often) else ends[::-1]), 40000, draw(ports))
    answers = Tuple(one.destination, one.source, one.destination_port, one.source_port)
    translated = draw(st.sampled_from(("", "", "source", "destination", "port")))
    if translated == "source":
        answers = replace(answers, destination=draw(outside))
    elif translated == "destination":
        answers = replace(answers, source=draw(outside))
    elif translated == "port":
        answers = replace(answers, source_port=draw(ports))
    protocol = traffic.protocol if draw(often) else pick((6, 17, 132, 1 if version == 4 else 58))
    spoofed = not draw(often)
    entry = ConntrackEntry(protocol, one, answers, spoofed=spoofed)
    direction = draw(st.sampled_from(("original", "reply")))
    # At forward the destination is translated already, the source not yet.
    source, target = (
        (one.source, answers.source) if direction == "original" else (answers.source, one.source)
    )
    from_port, to_port = (
        (one.source_port, answers.source_port)
        if direction == "original"
        else (answers.source_port, one.source_port)
    )
    ours = zone.interfaces[0]
    way = (ours, "wan0") if (direction == "original") == (one.source == ends[0]) else ("wan0", ours)
    if not draw(often):
        way = (pick(INTERFACES), pick(INTERFACES))
    return Packet(
        "forward",
        *way,
        source,
        target,
        protocol,
        entry if draw(often) else None,
        direction,
        from_port,
        to_port,
        slave="" if draw(often) else pick(INTERFACES),
    )


def _homes(policy, link):
    return [z for z in policy.site.zones if any(fnmatchcase(link, i) for i in z.interfaces)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_program_judges_the_same_with_and_without_them(data):
    policy = data.draw(POLICIES)
    program = compile_program(policy, {}, 1)
    levels = {z: data.draw(st.sampled_from(("cut", "cut", "isolate", "open"))) for z in w.ZONES}
    where = switch.switch_targets(policy, 1, levels)
    quick, slow = Simulator(program, where), Simulator(without(program), where)
    for _ in range(10):
        one = data.draw(packets(policy))
        mine, its = quick.judge(one), slow.judge(one)
        assert mine.verdict == its.verdict
        # What goes to the inside passes anyway: it counts only where it is looked up before that.
        if not _homes(policy, one.oif):
            assert bool(mine.service) == bool(its.service)


def test_a_kept_packet_needs_no_look_up_by_its_connection(policy):
    """Both directions are kept where every look-up by `ct original` is gone."""
    simulator = cut(policy)
    by_connection = {p.CT_SADDR4, p.CT_SADDR6, p.CT_REPLY_SADDR4, p.CT_REPLY_SADDR6}
    chains = tuple(
        replace(
            c,
            rules=tuple(
                rule
                for rule in c.rules
                if not any(isinstance(x, p.Match) and x.field in by_connection for x in rule)
            ),
        )
        for c in simulator.program.chains
    )
    quick = Simulator(replace(simulator.program, chains=chains), simulator.targets)
    one = flow("10.10.0.5", "203.0.113.1")
    assert quick.judge(packet(one, source_port=40000, destination_port=443)).verdict == "accept"
    answer = packet(
        one,
        iif="wan0",
        oif="care0",
        direction="reply",
        source=one.original.destination,
        destination=one.original.source,
        source_port=443,
        destination_port=40000,
    )
    assert quick.judge(answer).verdict == "accept"
    assert quick.judge(replace(answer, source_port=444)).verdict == "drop"
    translated = replace(one, reply=replace(one.reply, source=ip_address("198.51.100.3")))
    assert quick.judge(replace(answer, connection=translated)).verdict == "drop"
