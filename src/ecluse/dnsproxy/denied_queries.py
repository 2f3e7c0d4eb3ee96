"""Who asked for what and was refused, how often: read from the engine's own log.

Bounded, whatever is asked.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from ecluse.dnsproxy.message_filter import Refusal

MOST = 2000
"""Pairs of client and name that are held; the rarest gives way."""
MOST_CLIENTS = 4096
TOLD = 200

_ASKED = re.compile(rb"^\S+ \d+ \S+ query\[", re.MULTILINE)
_QUERY = re.compile(
    rb"^dnsmasq(?:\[\d{1,10}\])?: \d{1,10} ([0-9a-fA-F:.]{2,45})(?:%[^/ ]{1,15})?/\d{1,5} "
    rb"query\[([!-Z^-~]{1,32})\] ([ -~]{1,300}) from \1$",
    re.MULTILINE,
)
"""A question, whole: `dnsmasq[7]: 12 10.10.4.7/4000 query[A] some.name from 10.10.4.7`
(log-queries=extra, dnsmasq 2.90).

A name may hold anything printable, ` from 10.10.9.9` too: who asks is what dnsmasq wrote before the
name, and again behind it.
"""
_LONGEST = 1000
"""Bytes of a line; dnsmasq writes none as long about a question."""


@lru_cache(MOST_CLIENTS)
def _address(text: bytes) -> str:
    """Give an address as we write it, nothing for what is none."""
    try:
        return str(ip_address(text.decode()))
    except ValueError:
        return ""


@dataclass(slots=True)
class DeniedName:
    """One client's questions for one name."""

    kind: str
    why: str
    times: int = 0
    last: float = 0.0


class DeniedQueries:
    """Counts what was refused.

    judge: says of a name and type why it is refused, None when it is not.

    unread: lines about questions that are not written as dnsmasq writes them, and count for nobody.
    """

    def __init__(self, judge: Callable[[str, str], Refusal | None]) -> None:
        self._judge = judge
        self._asked: dict[tuple[str, str], DeniedName] = {}
        self.clients: Counter[str] = Counter()
        self.total = self.unread = 0
        self._rest = b""
        self._torn = False

    def count_line(self, data: bytes) -> None:
        """Take a piece of the log as it came."""
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        if newline and self._torn:  # the end of a line whose beginning was let go
            whole, self._torn = whole.partition(b"\n")[2], False
        self._torn = self._torn or len(rest) > _LONGEST
        self._rest = b"" if self._torn else rest
        now = time.time()
        found = _QUERY.findall(whole)
        self.unread += len(_ASKED.findall(whole)) - len(found)
        for client, kind, name in found:
            asker = _address(client)
            if asker:
                self._note(asker, name.decode().lower(), kind.decode(), now)
            else:
                self.unread += 1

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
            entry = self._asked[client, name] = DeniedName(kind, refusal.why)
        entry.times += 1
        entry.last = now

    def _make_room(self) -> None:
        """Forget the rarer half: a tunnel never asks for a name twice, and must not push out who
        else is at it.
        """
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
