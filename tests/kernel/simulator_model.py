"""What should become of a packet.

Where it meets a hook, what the simulator says of it there, and what a witness then sees.
"""

from dataclasses import dataclass, field, replace

from ecluse.policy import GATEWAY as GATEWAY_ZONE
from ecluse.policy import IPAddress, Policy
from ecluse.ruleset import table_names
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple
from ecluse.ruleset.simulator import Packet, Simulator
from tests.kernel import simulator_packets as b
from tests.kernel.simulator_packets import Ends
from tests.kernel.simulator_rig import GATEWAY, LOCAL, WAN, leads_to
from tests.kernel.simulator_world import INSIDE, NOTRACK_PORT, UID, Nat, Probe

_PROTOCOLS = {
    "syn": 6,
    "ack": 6,
    "stray": 6,
    "udp": 17,
    "esp": 50,
    "gre": 47,
    "sctp": 132,
    "l2tp": 115,
    "ospf": 89,
    "vrrp": 112,
}
_UNTRACKED6 = {130, 131, 132, 133, 134, 135, 136, 143}
"""What conntrack never tracks (noct_valid_new in nf_conntrack_proto_icmpv6.c)."""
WITH_PORTS = frozenset({6, 17, 132})


def protocol_of(kind: str, version: int) -> int:
    return _PROTOCOLS.get(kind, b.ICMP if version == 4 else b.ICMPV6)


@dataclass
class Flow:
    """A probe, its connection as conntrack should have it (None: none), and what was seen of it so
    far.

    there: (link, ends as they are on it, bytes) of the opening, where it came out. back: the same
    of the answer.
    """

    probe: Probe
    connection: ConntrackEntry | None
    forwarded: bool = False
    there: tuple[str, Ends, bytes] | None = None
    back: tuple[str, Ends, bytes] | None = None
    verdicts: dict[str, str] = field(default_factory=dict)

    @property
    def untracked(self) -> bool:
        return self.connection is None


def flow_of(probe: Probe, nat: Nat) -> Flow:
    """Say which connection conntrack makes of a probe's opening."""
    one = probe.ends
    protocol = protocol_of(probe.kind, one.source.version)
    if probe.kind in {"stray", "error"} or probe.kind.startswith("icmp6-"):
        return Flow(probe, None)
    if nat.notrack and protocol == 17 and one.destination_port == NOTRACK_PORT:
        return Flow(probe, None)
    ports = (one.source_port, one.destination_port) if protocol in WITH_PORTS else (0, 0)
    server, port = one.destination, ports[1]
    forward = nat.forward(probe.link, protocol, one) if protocol in WITH_PORTS else None
    if forward:
        server, port = forward
    reply = Tuple(server, one.source, port, ports[0])
    return Flow(
        probe,
        ConntrackEntry(protocol, Tuple(one.source, one.destination, *ports), reply),
        bool(forward),
    )


def _hook(link: str, to: IPAddress) -> tuple[str, str, str]:
    """Name the hook, and the interfaces in and out, of a packet that came by a link (or is ours)
    and goes to an address.
    """
    if link == GATEWAY:
        # Ours to ourselves goes by the loopback; what goes to a group goes where the default route
        # leads.
        out = "wan0" if to.is_multicast else leads_to(to) or "lo"
        return "output", "", out
    out = leads_to(to)
    return ("forward", link, out) if out else ("input", link, "")


def opening(flow: Flow) -> Packet:
    """Give the opening as its hook sees it."""
    probe = flow.probe
    one = probe.ends
    to = flow.connection.reply.source if flow.connection else one.destination
    port = flow.connection.reply.source_port if flow.connection else one.destination_port
    hook, iif, oif = _hook(probe.link, to)
    kind = probe.kind
    protocol = protocol_of(kind, one.source.version)
    icmp_type = int(kind.removeprefix("icmp6-")) if kind.startswith("icmp6-") else None
    if icmp_type is None and kind in {"echo", "error"}:
        icmp_type = {("echo", 4): 8, ("echo", 6): 128, ("error", 4): 3, ("error", 6): 1}[
            kind, one.source.version
        ]
    invalid = kind in {"stray", "error"} or (
        icmp_type is not None and kind != "echo" and icmp_type not in _UNTRACKED6
    )
    return Packet(
        hook=hook,
        iif=iif,
        oif=oif,
        source=one.source,
        destination=to,
        protocol=protocol,
        connection=flow.connection,
        source_port=one.source_port if protocol in WITH_PORTS else 0,
        destination_port=port if protocol in WITH_PORTS else 0,
        icmp_type=icmp_type,
        hop_limit=probe.hop_limit,
        uid=probe.uid if hook == "output" else None,
        invalid=invalid,
    )


def answer(flow: Flow, link: str, uid: int) -> Packet:
    """Give the answer as its hook sees it: NAT of its destination is undone before, of its source
    after.
    """
    connection = flow.connection
    assert connection is not None
    to = connection.original.source
    hook, iif, oif = _hook(link, to)
    kinds = {1: 0, 58: 129}
    return Packet(
        hook=hook,
        iif=iif,
        oif=oif,
        source=connection.reply.source,
        destination=to,
        protocol=connection.protocol,
        connection=connection,
        direction="reply",
        source_port=connection.reply.source_port,
        destination_port=connection.original.source_port,
        icmp_type=kinds.get(connection.protocol),
        uid=uid if hook == "output" else None,
    )


def error(
    flow: Flow, link: str, source: IPAddress, direction: str, uid: int, *, too_big: bool
) -> Packet:
    """Give an ICMP error about the flow, travelling in a direction, as its hook sees it."""
    connection = flow.connection
    assert connection is not None
    to = connection.reply.source if direction == "original" else connection.original.source
    hook, iif, oif = _hook(link, to)
    version = source.version
    return Packet(
        hook=hook,
        iif=iif,
        oif=oif,
        source=source,
        destination=to,
        protocol=b.ICMP if version == 4 else b.ICMPV6,
        connection=connection,
        direction=direction,
        icmp_type=3 if version == 4 else (2 if too_big else 1),
        uid=uid if hook == "output" else None,
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """What the simulator's verdict means on the wire.

    out: link by which the packet leaves, GATEWAY when the gateway takes it in; None when nothing of
    it is seen.
    reset, prohibited: link on which the answer to a refusal is seen (None: no such answer).
    limited: how much of the rate limit of answers it spends. evidence: keys of elements of the
    refused sets, as (source, destination, protocol, port).
    """

    verdict: str
    service: str
    counters: tuple[str, ...]
    out: str | None
    reset: str | None = None
    prohibited: str | None = None
    limited: int = 0
    evidence: tuple[tuple[str, str, int, int], ...] = ()


def expected(simulator: Simulator, packet: Packet) -> Expected:
    """Judge a packet, and the answer that its refusal makes the gateway send.

    Such an answer meets our output hook itself, and belongs to the connection that was refused
    (nf_ct_attach).
    """
    judged = simulator.judge(packet)
    counters, evidence = judged.counters, _evidence(packet, judged.counters)
    if judged.verdict == "accept":
        out = packet.oif if packet.hook != "input" and packet.oif != "lo" else GATEWAY
        return Expected("accept", judged.service, counters, out)
    if judged.verdict == "drop" or not _answerable(packet):
        return Expected(
            judged.verdict,
            "",
            counters,
            None,
            limited=int(judged.verdict == "reject"),
            evidence=evidence,
        )
    reset = packet.protocol == b.TCP
    limited = int(not reset)
    link, more = _refusal(packet, reset=reset)
    for one in more:
        again = simulator.judge(one)
        counters += again.counters
        evidence += _evidence(one, again.counters)
        link = link if again.verdict == "accept" else None
        limited += int(again.verdict == "reject" and not reset)
    return Expected(
        "reject",
        "",
        counters,
        None,
        link if reset else None,
        None if reset else link,
        limited,
        evidence,
    )


def _answerable(packet: Packet) -> bool:
    """Whether a host may answer such a packet with an error: never an error, never a group (RFC
    1122, 3.2.2; RFC 4443, 2.4).
    """
    is_error = packet.protocol in {b.ICMP, b.ICMPV6} and packet.icmp_type in {1, 2, 3, 137}
    return not (is_error or packet.destination.is_multicast)


def _refusal(packet: Packet, *, reset: bool) -> tuple[str | None, tuple[Packet, ...]]:
    """Say by which link the answer to a refused packet leaves, and what the output hook sees when
    it has to judge it.
    """
    back = packet.source
    hook, _, oif = _hook(GATEWAY, back)
    if oif == "lo":
        return GATEWAY, ()
    own = packet.destination if reset else WAN[back.version]
    made = replace(
        packet,
        hook=hook,
        iif="",
        oif=oif,
        source=own,
        destination=back,
        protocol=packet.protocol if reset else (b.ICMP if back.version == 4 else b.ICMPV6),
        direction="original" if packet.direction == "reply" else "reply",
        source_port=packet.destination_port,
        destination_port=packet.source_port,
        icmp_type=None if reset else (3 if back.version == 4 else 1),
        hop_limit=64,
        uid=None,
        invalid=packet.connection is None,
    )
    return oif, (made,)


def _evidence(packet: Packet, counters: tuple[str, ...]) -> tuple[tuple[str, str, int, int], ...]:
    if table_names.REFUSED_OUT not in counters:
        return ()
    port = packet.destination_port if packet.protocol in WITH_PORTS else 0
    return ((str(packet.source), str(packet.destination), packet.protocol, port),)


def honest(flow: Flow, policy: Policy) -> bool:
    """Whether what the connection table knows is all that its packets are judged by.

    It knows no link (a spoofed source; an address on an inside link that lies in no zone), no user
    (look-ups are lifeline only for the daemon's) and no hop limit (VRRP, OSPF).
    """
    connection = flow.connection
    assert connection is not None
    one = connection.original
    link = flow.probe.link
    home = "gateway" if one.source in LOCAL else leads_to(one.source)
    homeless = any(
        leads_to(a) in INSIDE and zone_of(policy, a) is None
        for a in (one.source, connection.reply.source)
    )
    if homeless or home != (link or "gateway") or connection.protocol in {b.OSPF, b.VRRP}:
        return False
    asks = (
        link == GATEWAY and one.destination in policy.site.resolvers and one.destination_port == 53
    )
    return not (asks and flow.probe.uid != UID)


def is_spoofed(policy: Policy, link: str, source: IPAddress) -> bool:
    """Whether a source does not live where a packet came from: an outside one inside, an inside one
    outside.
    """
    if link == GATEWAY:
        return False
    listed = zone_of(policy, source) not in {None, GATEWAY_ZONE}
    if link in INSIDE:
        return not listed and leads_to(source) not in INSIDE
    return listed and leads_to(source) in INSIDE


def zone_of(policy: Policy, where: IPAddress) -> str | None:
    """Name the zone that an address lies in, None for outside."""
    if where in LOCAL:
        return GATEWAY_ZONE
    return next(
        (
            z.name
            for z in policy.site.zones
            if any(where.version == s.version and where in s for s in z.subnets)
        ),
        None,
    )
