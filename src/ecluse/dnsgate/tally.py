"""Who asked for what and was refused, how often: read from the engine's own log. Bounded, whatever is asked."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ecluse.dnsgate.strain import Refusal

MOST = 2000
"""Pairs of client and name that are held; the rarest gives way."""
MOST_CLIENTS = 4096
TOLD = 200

_QUERY = re.compile(rb"query\[([^\]]{1,32})\] (\S{1,300}) from ([0-9a-fA-F:.]{2,45})")


@dataclass(slots=True)
class Asked:
    """One client's questions for one name."""

    kind: str
    why: str
    times: int = 0
    last: float = 0.0


class Tally:
    """Counts what was refused. judge: says of a name and type why it is refused, None when it is not."""

    def __init__(self, judge: Callable[[str, str], Refusal | None]) -> None:
        self._judge = judge
        self._asked: dict[tuple[str, str], Asked] = {}
        self.clients: Counter[str] = Counter()
        self.total = 0
        self._rest = b""

    def read(self, data: bytes) -> None:
        """Take a piece of the log as it came."""
        data = self._rest + data
        whole, newline, rest = data.rpartition(b"\n")
        self._rest = rest[-1000:]
        if not newline:
            return
        now = time.time()
        for kind, name, client in _QUERY.findall(whole):
            self._note(
                client.decode(), name.decode(errors="replace").lower(), kind.decode(errors="replace"), now
            )

    def _note(self, client: str, name: str, kind: str, now: float) -> None:
        refusal = self._judge(name, kind)
        if refusal is None:
            return
        self.total += 1
        if client in self.clients or len(self.clients) < MOST_CLIENTS:
            self.clients[client] += 1
        entry = self._asked.get((client, name))
        if entry is None:
            if len(self._asked) >= MOST:
                self._make_room()
            entry = self._asked[client, name] = Asked(kind, refusal.why)
        entry.times += 1
        entry.last = now

    def _make_room(self) -> None:
        """Forget the rarer half: a tunnel never asks for a name twice, and must not push out who else is at it."""
        often = sorted(self._asked.items(), key=lambda item: (-item[1].times, -item[1].last))
        self._asked = dict(often[: MOST // 2])

    def told(self) -> list[dict[str, object]]:
        """Give the most frequent, most often first."""
        often = sorted(self._asked.items(), key=lambda item: (-item[1].times, item[0]))
        return [
            {
                "client": client,
                "name": name,
                "type": one.kind,
                "why": one.why,
                "times": one.times,
                "last": one.last,
            }
            for (client, name), one in often[:TOLD]
        ]
