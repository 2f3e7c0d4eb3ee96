"""Kept services of whose TCP connections the gateway sees one half alone: they pass at `open` and
are refused at a cut.

Where answers come, or go, by another router (asymmetric routing), conntrack calls what follows the
first packet invalid, and no level can tell whose it is. Only a partner that is silent looks the
same: both are worth a look before a cut.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ecluse.flow_judge import ConntrackEntry, FlowJudge
from ecluse.policy import IPAddress

TCP = 6


def half_seen(judge: FlowJudge, connections: Iterable[ConntrackEntry]) -> Mapping[str, int]:
    """Count the unanswered TCP connections of each service that has some.

    Only between ends none of whose connections is answered.

    judge: at the levels that are meant; what they do not keep is not told. Also found is the half
    that comes from outside: to conntrack it is a connection from the service's port.
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
