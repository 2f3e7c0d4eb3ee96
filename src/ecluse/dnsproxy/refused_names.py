"""Names that were refused, by client, with counts: read from dnsmasq's log, and bounded."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from ecluse.dnsproxy.message_filter import Refusal

MOST = 2000
"""Pairs of client and name; the rarer half is dropped."""
MOST_CLIENTS = 4096
MOST_ROWS = 200

_ASKED = re.compile(rb"^\S+ \d+ \S+ query\[", re.MULTILINE)
_QUERY = re.compile(
    rb"^dnsmasq(?:\[\d{1,10}\])?: \d{1,10} ([0-9a-fA-F:.]{2,45})(?:%[^/ ]{1,15})?/\d{1,5} "
    rb"query\[([!-Z^-~]{1,32})\] ([ -~]{1,300}) from \1$",
    re.MULTILINE,
)
"""A query: `dnsmasq[7]: 12 10.10.4.7/4000 query[A] some.name from 10.10.4.7` (dnsmasq 2.90).

A name may have anything printable in it, ` from 10.10.9.9` too. The client is the address that
dnsmasq wrote before the name, and again after it.
"""
_LONGEST = 1000
"""Bytes of a line; no line about a query is as long."""


@lru_cache(MOST_CLIENTS)
def _address(text: bytes) -> str:
    """Return an address in its usual form, empty for any other text."""
    try:
        return str(ip_address(text.decode()))
    except ValueError:
        return ""


@dataclass(slots=True)
class RefusedName:
    """One client's queries for one name."""

    kind: str
    why: str
    times: int = 0
    last: float = 0.0


class RefusedNames:
    """Counts refused queries.

    judge: returns why a name and type are refused, None if they are not.
    unread: how many lines about queries have another form than dnsmasq's, and are not counted.
    """

    def __init__(self, judge: Callable[[str, str], Refusal | None]) -> None:
        self._judge = judge
        self._asked: dict[tuple[str, str], RefusedName] = {}
        self.clients: Counter[str] = Counter()
        self.total = self.unread = 0
        self._rest = b""
        self._torn = False

    def count_lines(self, data: bytes) -> None:
        """Count a piece of the log, which may begin and end in the middle of a line."""
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        if newline and self._torn:  # the end of a line whose beginning was dropped
            whole, self._torn = whole.partition(b"\n")[2], False
        self._torn = self._torn or len(rest) > _LONGEST
        self._rest = b"" if self._torn else rest
        now = time.time()
        found = _QUERY.findall(whole)
        self.unread += len(_ASKED.findall(whole)) - len(found)
        for client, kind, name in found:
            asker = _address(client)
            if asker:
                self._count(asker, name.decode().lower(), kind.decode(), now)
            else:
                self.unread += 1

    def _count(self, client: str, name: str, kind: str, now: float) -> None:
        refusal = self._judge(name, kind)
        if refusal is None:
            return
        self.total += 1
        if client in self.clients or len(self.clients) < MOST_CLIENTS:
            self.clients[client] += 1
        entry = self._asked.get((client, name))
        if entry is None:
            if len(self._asked) >= MOST:
                self._drop_rarer_half()
            entry = self._asked[client, name] = RefusedName(kind, refusal.why)
        entry.times += 1
        entry.last = now

    def _drop_rarer_half(self) -> None:
        """Drop the rarer half.

        A tunnel never asks for a name twice; it must not push out the other machines.
        """
        often = sorted(self._asked.items(), key=lambda item: (-item[1].times, -item[1].last))
        self._asked = dict(often[: MOST // 2])

    def rows(self) -> list[dict[str, object]]:
        """Return the rows of the report: the most frequent first."""
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
            for (client, name), one in often[:MOST_ROWS]
        ]
