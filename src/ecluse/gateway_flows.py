"""What the gateway itself uses now and a level would end: NTP, syslog, a backup, a tunnel. Pure."""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from ecluse.flow_judge import ConntrackEntry, FlowJudge, protocol_name
from ecluse.policy import GATEWAY
from ecluse.results import GatewayFlow

MOST_ROWS = 20
"""Rows that are listed; those with most packets come first."""
MOST_PEERS = 2000
"""Private addresses of which routes are asked, to tell outside from inside: 20 ms."""

OUTWARD, INWARD = "out", "in"


def ended_flows(
    after: FlowJudge, connections: Iterable[ConntrackEntry], now: FlowJudge | None = None
) -> tuple[GatewayFlow, ...]:
    """Group the gateway's own connections that a level refuses, most packets first.

    after, now: judge at the levels to come, and at those of now; None: whatever passes now.
    """
    groups: dict[tuple[str, int, int, str], tuple[int, int]] = {}
    for one in connections:
        flow = after.judge(one)
        if flow.zone != GATEWAY or flow.verdict != "refused":
            continue
        if now is not None and now.judge(one).verdict == "refused":
            continue
        outward = after.is_gateways(one.original.source)
        peer = one.reply.source if outward else one.original.source
        row = (
            str(peer),
            one.protocol,
            one.original.destination_port,
            OUTWARD if outward else INWARD,
        )
        count, packets = groups.get(row, (0, 0))
        groups[row] = count + 1, packets + one.packets
    rows = (
        GatewayFlow(peer, protocol_name(protocol), port, direction, count, packets)
        for (peer, protocol, port, direction), (count, packets) in groups.items()
    )
    return tuple(sorted(rows, key=attrgetter("packets", "connections", "peer"), reverse=True))


def describe(row: GatewayFlow) -> str:
    """Say one row in words: `udp/123 to 203.0.113.5 (3 connections, 120 packets)`."""
    what = f"{row.protocol}/{row.port}" if row.port else row.protocol
    way = "to" if row.direction == OUTWARD else "from"
    many = f"{row.connections} connection{'s' * (row.connections != 1)}"
    return f"{what} {way} {row.peer} ({many}, {row.packets:,} packet{'s' * (row.packets != 1)})"


def ended_warnings(rows: Sequence[GatewayFlow], level: str) -> tuple[str, ...]:
    """Say of each row that a level ends it; of many the first, and how many more there are."""
    told = [
        f"the gateway itself uses {describe(row)}, which level '{level}' ends: list it for zone "
        "gateway if care needs it"
        for row in rows[:MOST_ROWS]
    ]
    if len(rows) > MOST_ROWS:
        told.append(f"the gateway itself uses {len(rows) - MOST_ROWS} more that '{level}' ends")
    return tuple(told)
