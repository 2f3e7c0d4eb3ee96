"""Finds kept services of whose TCP connections the gateway sees one direction only. Pure.

They pass at `open` and are refused at a cut: where the other direction takes another router
(asymmetric routing), conntrack calls all packets after the first invalid, and no level can tell
whose they are. A partner that is silent looks the same; both are worth a look before a cut.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ecluse.flow_judge import ConntrackEntry, FlowJudge
from ecluse.policy import IPAddress

TCP = 6


def one_sided_services(
    judge: FlowJudge, connections: Iterable[ConntrackEntry]
) -> Mapping[str, int]:
    """Count unanswered TCP connections by service, between ends that never talk.

    Args:
        judge: at the levels that are meant; services that they do not keep are not told.
        connections: the whole connection table.

    The direction from outside is found, too: conntrack takes it for a connection from the service's
    port, so each entry is judged turned round as well.
    """
    talking: set[frozenset[IPAddress]] = set()
    silent: dict[frozenset[IPAddress], list[ConntrackEntry]] = {}
    for one in connections:
        if one.protocol == TCP:
            ends = frozenset((one.original.source, one.reply.source))
            if one.answered:
                talking.add(ends)
            else:
                silent.setdefault(ends, []).append(one)
    found: Counter[str] = Counter()
    for ends in silent.keys() - talking:
        for one in silent[ends]:
            turned = replace(one, original=one.reply, reply=one.original)
            flows = map(judge.judge, (one, turned))
            found.update(next(((f.service,) for f in flows if f.verdict == "kept"), ()))
    return dict(sorted(found.items()))
