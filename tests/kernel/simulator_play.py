"""Plays one example on the rig, in three acts, and holds all that is seen against the simulator.

1. at the first levels, every flow is opened; 2. those that passed are answered, and errors about
   them come back;
3. the gate is switched, and every flow goes on: its next packet, the next answer, errors both ways;
   what did not
pass is opened again.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from ecluse.flow_judge import FlowJudge, protocol_name
from ecluse.policy import level_named
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.program import Program
from ecluse.ruleset.simulator import Packet, Simulator
from tests.kernel import simulator_packets as b
from tests.kernel.simulator_meaning import is_error, meaning
from tests.kernel.simulator_model import (
    Flow,
    answer,
    error,
    expected,
    flow_of,
    honest,
    is_spoofed,
    opening,
    zone_of,
)
from tests.kernel.simulator_packets import Ends, address
from tests.kernel.simulator_rig import GATEWAY, LOCAL, WAN, Rig, leads_to
from tests.kernel.simulator_traffic import BARRIER, Said, Talk, Witnessed
from tests.kernel.simulator_world import INSIDE, UID, Case

SLOT = 3


@dataclass(frozen=True, slots=True)
class Spoil:
    """What to put wrong, so that the comparison shows that it sees it: the compiled program, or the
    kernel's text of it alone.
    """

    program: Callable[[Program], Program] = lambda program: program
    text: Callable[[str], str] = lambda text: text


class Play:
    """One example under way.

    `tally` counts what was compared, so that a test can see that it saw enough.
    """

    def __init__(
        self, rig: Rig, case: Case, tally: Counter[str], spoil: Spoil | None = None
    ) -> None:
        self.rig, self.case, self.tally = rig, case, tally
        self.spoil = spoil or Spoil()
        self.program = self.spoil.program(
            compile_program(case.policy, case.addresses, SLOT, (UID,))
        )
        self.flows = [flow_of(probe, case.nat) for probe in case.probes]
        self.levels = case.levels
        self.counted: Counter[str] = Counter()
        self.recorded: Counter[tuple[str, str, str, int]] = Counter()
        self.wrong: list[str] = []
        self.talk = Talk(rig)

    def run(self) -> None:
        """Play all three acts.

        AssertionError naming every packet that the kernel and the simulator see differently.
        """
        case = self.case
        self.rig.forget_connections()
        self.rig.nft(
            case.nat.text()
            + self.spoil.text(switch.table_text(self.program))
            + switch.switch_text(case.policy, SLOT, case.levels)
        )
        self.rig.seen()
        simulator = Simulator(self.program, switch.switch_targets(case.policy, SLOT, case.levels))
        self._act("opened", [self._opening(simulator, flow) for flow in self.flows])
        followed = [flow for flow in self.flows if flow.there and flow.connection]
        self._act(
            "answered", [said for flow in followed for said in self._answers(simulator, flow)]
        )
        self.rig.nft(switch.switch_text(case.policy, SLOT, case.then))
        self.levels = case.then
        judged = self._judge_connections(followed)
        simulator = Simulator(self.program, switch.switch_targets(case.policy, SLOT, case.then))
        self._act("went on", [said for flow in self.flows for said in self._next(simulator, flow)])
        self._compare_flow_judge(judged)
        assert not self.wrong, "\n".join(["the kernel and the simulator differ:", *self.wrong])

    # -- what is said

    def _said(
        self,
        simulator: Simulator,
        flow: Flow,
        what: str,
        link: str,
        data: bytes,
        packet: Packet,
        *,
        uid: int = 0,
    ) -> Said:
        packet = self._come_in(simulator, flow, what, packet)
        return Said(flow, what, link, data, packet, expected(simulator, packet), uid)

    def _come_in(self, simulator: Simulator, flow: Flow, what: str, packet: Packet) -> Packet:
        """Give a packet as it is once it was asked where its source lives; the simulator has to say
        the same of that.
        """
        if packet.iif == GATEWAY:
            return packet
        policy = self.case.policy
        packet = replace(packet, route=leads_to(packet.source))
        spoofed = is_spoofed(policy, packet.iif, packet.source)
        shut = not all(
            level_named(policy.site, self.levels[z]).passes_all for z in policy.zone_names()
        )
        tracked = not (spoofed and shut and packet.iif in INSIDE) or is_error(packet)
        if (simulator.is_tracked(packet), simulator.is_spoofed(packet)) != (tracked, spoofed):
            self.wrong.append(f"{what}: the simulator mistakes the source of {packet}")
        if not tracked:
            self.tally["untracked"] += 1
            if what == "opening":
                flow.connection = None
            return replace(packet, connection=None, invalid=False)
        if what == "opening" and flow.connection and spoofed:
            self.tally["spoofed"] += 1
            flow.connection = replace(flow.connection, spoofed=True)
            packet = replace(packet, connection=flow.connection)
        return packet

    def _opening(self, simulator: Simulator, flow: Flow, turn: int = b.OPENING) -> Said:
        probe = flow.probe
        if probe.kind == "error":
            lost = b.message("udp", probe.ends.turned(), b.OPENING, self.talk.number())
            data = b.error_about(lost, probe.ends, self.talk.number(), too_big=False)
        else:
            data = b.message(probe.kind, probe.ends, turn, self.talk.number(), probe.hop_limit)
        return self._said(
            simulator,
            flow,
            "opening" if turn == b.OPENING else "next",
            probe.link,
            data,
            opening(flow),
            uid=probe.uid,
        )

    def _answer(self, simulator: Simulator, flow: Flow, turn: int) -> Said:
        link, ends, _ = flow.there
        data = b.message(flow.probe.kind, ends.turned(), turn, self.talk.number())
        return self._said(simulator, flow, "answer", link, data, answer(flow, link, 0))

    def _error(self, simulator: Simulator, flow: Flow, direction: str, *, too_big: bool) -> Said:
        """An error about the opening comes from where that went to; one about the answer from where
        the flow began.
        """
        if direction == "reply":
            link, ends, quoted = flow.there
            back = ends.turned()
        else:
            link, uid = flow.probe.link, flow.probe.uid
            _, ends, quoted = flow.back
            back = ends.turned()
        uid = flow.probe.uid if direction == "original" else 0
        data = b.error_about(
            quoted, Ends(back.source, back.destination), self.talk.number(), too_big=too_big
        )
        packet = error(flow, link, back.source, direction, uid, too_big=too_big)
        return self._said(simulator, flow, f"error ({direction})", link, data, packet, uid=uid)

    def _told(self, simulator: Simulator, flow: Flow) -> list[Said]:
        """The gateway itself tells the outside end of a forwarded flow that its packet was too
        large for the link inside.

        It quotes the packet as it would have sent it on, its destination translated.
        """
        where, (far, _, opened), (_, _, answered) = flow.probe.link, flow.there, flow.back
        if GATEWAY in {where, far} or (where in INSIDE) == (far in INSIDE):
            return []
        direction, quoted = ("original", answered) if where in INSIDE else ("reply", opened)
        outside = b.read(quoted).ends.source
        own = WAN[outside.version]
        data = b.error_about(quoted, Ends(own, outside), self.talk.number(), too_big=True)
        packet = error(flow, GATEWAY, own, direction, 0, too_big=True)
        return [self._said(simulator, flow, "told", GATEWAY, data, packet)]

    def _answers(self, simulator: Simulator, flow: Flow) -> list[Said]:
        if flow.probe.ends.destination.is_multicast:
            return []
        return [
            self._error(simulator, flow, "reply", too_big=False),
            self._answer(simulator, flow, b.ANSWER),
        ]

    def _next(self, simulator: Simulator, flow: Flow) -> list[Said]:
        if not (flow.there and flow.connection):
            return [self._opening(simulator, flow)]
        said = [self._opening(simulator, flow, b.NEXT)]
        if flow.back:
            said += [
                self._answer(simulator, flow, b.NEXT_ANSWER),
                self._error(simulator, flow, "reply", too_big=True),
            ]
            said.append(self._error(simulator, flow, "original", too_big=False))
            said += self._told(simulator, flow)
        return said

    # -- saying it, and holding it against what was expected

    def _act(self, when: str, said: list[Said]) -> None:
        witnessed = self.talk.exchange(said)
        for one in said:
            self._hold(when, one, witnessed)
        strange = [
            f"{link or 'gateway'}: {ends}" for (link, ends), n in witnessed.resets.items() if n > 0
        ]
        if witnessed.strange:
            self.wrong.append(f"{when}: packets that nobody sent: {witnessed.strange}")
        if strange:
            self.wrong.append(f"{when}: resets that nobody expected: {strange}")
        numbers = {b.read(one.data).numbers[-1] for one in said}
        stray = {n: seen for n, seen in witnessed.passed.items() if n not in numbers}
        if stray:
            self.wrong.append(f"{when}: packets from nowhere: {stray}")
        self._hold_books(when)

    def _hold(self, when: str, one: Said, witnessed: Witnessed) -> None:
        number = b.read(one.data).numbers[-1]
        seen = witnessed.passed.get(number, [])
        links = [link for link, _, _ in seen]
        wanted = one.expected
        told = witnessed.prohibited.get(number, [])
        turned = Ends(
            one.packet.destination,
            one.packet.source,
            one.packet.destination_port,
            one.packet.source_port,
        )
        resets = [
            link
            for (link, ends), n in witnessed.resets.items()
            if ends == turned and n > 0 and one.packet.protocol == b.TCP
        ]
        expected_links = [] if wanted.out is None else [wanted.out]
        if (links, resets, told) != (
            expected_links,
            [] if wanted.reset is None else [wanted.reset],
            [] if wanted.prohibited is None else [wanted.prohibited],
        ):
            self.wrong.append(
                f"{when}, {one.what} of {one.flow.probe}\n  as {one.packet}\n  expected {wanted}\n"
                f"  came out on {links}, resets on {resets}, prohibited on {told}"
            )
        passes, services = meaning(self.case.policy, self.case.addresses, self.levels, one.packet)
        if passes != bool(links) or (
            wanted.service not in services if services and links else wanted.service
        ):
            self.wrong.append(
                f"{when}, {one.what} of {one.flow.probe}\n  as {one.packet}\n  is meant to "
                f"{'pass' if passes else 'be refused'} for {services}; came out on {links}, "
                f"counted for {wanted.service!r}"
            )
        for link in resets:
            witnessed.resets[link, turned] -= 1
        self.counted.update(wanted.counters)
        for source, destination, protocol, port in wanted.evidence:
            key = _gateway_as_one(source), destination, protocol_name(protocol), port
            self.recorded[key] += 1
        if one.what in {"opening", "next"}:
            one.flow.verdicts[when] = "accept" if links else "refused"
        if one.what == "opening" and links and not one.flow.there:
            one.flow.there = (links[0], seen[0][2].ends, seen[0][1])
        if one.what == "answer" and links and not one.flow.back:
            one.flow.back = (links[0], seen[0][2].ends, seen[0][1])
        kind = "service" if wanted.service else ""
        family = f"v{one.packet.source.version}"
        self.tally.update(
            [
                f"{one.packet.hook} {wanted.verdict} {kind}".strip(),
                f"{one.flow.probe.kind.partition('-')[0]} {family} {wanted.verdict}",
                f"{one.what} {wanted.verdict}",
                "packets",
            ]
        )

    def _hold_books(self, when: str) -> None:
        """Compare every named counter and every record of a refused flow and host."""
        counters = self.rig.counters()
        wanted = {n: c for n, c in self.counted.items() if c}
        if counters != wanted:
            self.wrong.append(f"{when}: counters {counters}, expected {wanted}")
        elements, full, _ = self.rig.refused()
        flows: Counter[tuple[str, str, str, int]] = Counter()
        hosts: Counter[str] = Counter()
        by_host: Counter[str] = Counter()
        for e in elements:
            if e.destination:
                flows[_gateway_as_one(e.source), e.destination, e.protocol, e.port] += e.packets
            else:
                hosts[_gateway_as_one(e.source)] += e.packets
        for (source, *_), count in self.recorded.items():
            by_host[source] += count
        if flows != self.recorded or hosts != by_host or full:
            odd = {
                k: (flows.get(k), self.recorded.get(k))
                for k in flows.keys() | self.recorded.keys()
                if flows.get(k) != self.recorded.get(k)
            }
            self.wrong.append(
                f"{when}: recorded, as (found, expected): {odd}; hosts {hosts}, "
                f"expected {by_host}; full: {full}"
            )
        self.tally["records"] += len(flows)

    # -- what the connection table and its judge say

    def _judge_connections(self, followed: list[Flow]) -> list[tuple[Flow, str]]:
        """Check that conntrack has the connections that the model has, and judge each at the levels
        to come.
        """
        table = {(c.protocol, c.original): c for c in self.rig.connections()}
        local = frozenset(map(str, LOCAL))
        judge = FlowJudge(self.case.policy, self.program, self.case.then, local, UID)
        judged = []
        for flow in followed:
            found = table.get((flow.connection.protocol, flow.connection.original))
            if found is None or (found.reply.source, found.reply.source_port) != (
                flow.connection.reply.source,
                flow.connection.reply.source_port,
            ):
                self.wrong.append(f"conntrack has {found} where the model has {flow.connection}")
                continue
            if found.spoofed != flow.connection.spoofed:
                self.wrong.append(
                    f"conntrack says of the opener of {flow.connection}: spoofed: {found.spoofed}"
                )
            judged.append((flow, judge.judge(found).verdict))
        known = {(f.connection.protocol, f.connection.original) for f in followed}
        more = [key for key in table if key not in known and key[1].source != BARRIER.source]
        if more:
            self.wrong.append(f"connections that the model does not have: {more}")
        return judged

    def _compare_flow_judge(self, judged: list[tuple[Flow, str]]) -> None:
        policy = self.case.policy
        for flow, verdict in judged:
            one = flow.connection
            ends = [zone_of(policy, one.original.source), zone_of(policy, one.reply.source)]
            self.tally[f"flow {verdict}"] += 1
            # Of the gateway with a neighbour of no zone's subnets conntrack does not tell by which
            # interface.
            inside = any(end not in {None, "gateway"} for end in ends)
            if (verdict == "unknown" and inside) or (verdict != "unknown" and ends == [None, None]):
                self.wrong.append(f"FlowJudge says {verdict} of {one}, whose ends lie in {ends}")
            if verdict == "unknown" or not honest(flow, policy):
                continue
            kept = verdict in {"inside", "open", "kept", "lifeline"}
            if kept != (flow.verdicts["went on"] == "accept"):
                self.wrong.append(
                    f"FlowJudge says {verdict} of {one}; "
                    f"the kernel's next packet: {flow.verdicts['went on']}"
                )


def _gateway_as_one(source: str) -> str:
    """Say `gateway`'s own errors all come from one address: which of its own it picks is routing's
    business (RFC 6724).
    """
    one = address(source)
    return str(WAN[one.version]) if one in LOCAL else source
