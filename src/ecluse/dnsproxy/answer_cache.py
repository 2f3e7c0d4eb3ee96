"""Cached answers, found by the bytes of the question before anything is parsed.

So a crowd that asks for the same kept name costs next to nothing. dnsmasq caches none of them,
since its questions differ by the client that they name (dnsmasq(8), `--add-subnet`).
"""

from collections import OrderedDict
from dataclasses import dataclass

import dns.flags
import dns.message

MOST = 5000
"""Cached answers; the least recently used is dropped."""
LONGEST = 1232
"""Bytes of an answer in one datagram (dnsflagday.net/2020)."""

FEWEST = 512
"""Bytes that every client can take (RFC 1035, section 4.2.1)."""

_HEADER, _QTYPE_QCLASS = 12, 4
_OPT_START = 9
"""First bytes of an OPT record: name, type, payload size, flags (RFC 6891, section 6.1.2)."""
_ONE_QUESTION = b"\0\1\0\0\0\0"
_LABEL = 63


def payload_limit(reply: dns.message.Message) -> int:
    """Return how many bytes the client can take in one datagram."""
    return min(LONGEST, max(FEWEST, reply.request_payload))


@dataclass(slots=True)
class _Entry:
    """An answer, and by how many whole seconds its TTLs have been counted down (`age`).

    Bytes alone: parsed, an answer of many records is thirty times as large, and MOST of them would
    not fit into the unit's memory.
    """

    wire: bytes
    began: float
    seconds: int
    while_open: bool
    keys: bool
    age: int = 0


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer, ready to be sent.

    while_open: it may be sent only while every zone is open. keys: it has the keys of a zone.
    """

    wire: bytes
    while_open: bool
    keys: bool


class AnswerCache:
    """Answers, for as long as their TTL says. Callers pass the time."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def clear(self) -> None:
        """Drop all: another configuration may answer differently."""
        self._entries.clear()

    def find(self, data: bytes, now: float) -> CachedAnswer | None:
        """Return the answer to a query (its bytes), None if there is none."""
        end = _end_of_question(data)
        held = self._entries.get(_key(data, end)) if end else None
        if held is None:
            return None
        age = int(now - held.began)
        if age >= held.seconds:
            del self._entries[_key(data, end)]
            return None
        if age != held.age:
            held.wire, held.age = _counted_down(held.wire, end, age - held.age), age
        self._entries.move_to_end(_key(data, end))
        # Id, RD flag and the case of the name's letters are the client's own.
        flags = bytes([held.wire[2] & 0xFE | data[2] & 1])
        wire = data[:2] + flags + held.wire[3:_HEADER] + data[_HEADER:end] + held.wire[end:]
        return CachedAnswer(wire, held.while_open, held.keys)

    def store(
        self,
        data: bytes,
        reply: dns.message.Message,
        now: float,
        *,
        while_open: bool,
        keys: bool = False,
    ) -> None:
        """Cache a complete answer without an error, for the shortest of its TTLs."""
        # The authority section: the proof that something does not exist is cached as well.
        seconds = min((one.ttl for one in (*reply.answer, *reply.authority)), default=0)
        end = _end_of_question(data)
        if not end or not seconds or reply.rcode() or reply.flags & dns.flags.TC:
            return
        wire = reply.to_wire(max_size=65535)
        if len(wire) > payload_limit(reply):
            return
        self._entries[_key(data, end)] = _Entry(wire, now, seconds, while_open, keys)
        if len(self._entries) > MOST:
            self._entries.popitem(last=False)


def _end_of_question(data: bytes) -> int:
    """Return where the question of a plain query ends, 0 for any other message."""
    if len(data) < _HEADER or data[2] & 0xF8 or data[4:10] != _ONE_QUESTION:
        return 0
    at = _HEADER
    while at < len(data) and data[at]:
        if data[at] > _LABEL:
            return 0
        at += data[at] + 1
    end = at + 1 + _QTYPE_QCLASS
    return end if end <= len(data) else 0


def _counted_down(wire: bytes, end: int, seconds: int) -> bytes:
    """Return an answer with its TTLs shortened; `end` is where its question ends."""
    made, at = bytearray(wire), end
    for _ in range(int.from_bytes(wire[6:8]) + int.from_bytes(wire[8:10])):
        while 0 < wire[at] <= _LABEL:
            at += wire[at] + 1
        at += 2 if wire[at] else 1  # a pointer, or the root
        ttl, length = at + 4, at + 8
        made[ttl:length] = (int.from_bytes(wire[ttl:length]) - seconds).to_bytes(4)
        at = length + 2 + int.from_bytes(wire[length : length + 2])
    return bytes(made)


def _key(data: bytes, end: int) -> bytes:
    """Return the key of a question: name in lower case, type, class, ARCOUNT, start of OPT."""
    name = end - _QTYPE_QCLASS
    return (
        data[_HEADER:name].lower()
        + data[name:end]
        + data[10:_HEADER]
        + data[end : end + _OPT_START]
    )
