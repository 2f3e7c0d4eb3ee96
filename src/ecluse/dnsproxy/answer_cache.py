"""Answers that are given again: the engine keeps none, since it tells us who asks (dnsmasq(8),
`--add-subnet`).

Found by the question's own bytes, before anything is parsed: a crowd that asks for the same kept
name costs next to nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass

import dns.flags
import dns.message

MOST = 5000
"""Answers that are held; the one that was not asked for longest gives way."""
LONGEST = 1232
"""Bytes of an answer that goes in one datagram (dnsflagday.net/2020)."""

FEWEST = 512
"""Bytes that whoever names no other number can take (RFC 1035)."""

_HEADER, _QTYPE_QCLASS = 12, 4
_WISHES = 9
"""Bytes of an OPT record as far as what can be taken, and whether signatures are wanted: name,
type, payload, flags (RFC 6891).
"""
_ONE_QUESTION = b"\0\1\0\0\0\0"
_LABEL = 63


def room(reply: dns.message.Message) -> int:
    """Give the bytes that whoever asked can take in one datagram."""
    return min(LONGEST, max(FEWEST, reply.request_payload))


@dataclass(slots=True)
class _Held:
    """An answer as it is given now. age: the whole seconds that its TTLs have been counted down by.

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

    while_open: it may be given only while everything is passed on. keys: it is about those of a
    zone.
    """

    wire: bytes
    while_open: bool
    keys: bool


class AnswerCache:
    """Holds answers for their TTL. No clock of its own."""

    def __init__(self) -> None:
        self._held: OrderedDict[bytes, _Held] = OrderedDict()

    def clear(self) -> None:
        """Forget all: other orders may answer otherwise."""
        self._held.clear()

    def find(self, data: bytes, now: float) -> CachedAnswer | None:
        """Give the answer to a question as it came, None when it has to be asked for."""
        end = _end_of_question(data)
        held = self._held.get(_key(data, end)) if end else None
        if held is None:
            return None
        age = int(now - held.began)
        if age >= held.seconds:
            del self._held[_key(data, end)]
            return None
        if age != held.age:
            held.wire, held.age = _counted_down(held.wire, end, age - held.age), age
        self._held.move_to_end(_key(data, end))
        # Number, wish for recursion and the letters' case are the client's own.
        flags = bytes([held.wire[2] & 0xFE | data[2] & 1])
        wire = data[:2] + flags + held.wire[3:_HEADER] + data[_HEADER:end] + held.wire[end:]
        return CachedAnswer(wire, held.while_open, held.keys)

    def keep(
        self,
        data: bytes,
        reply: dns.message.Message,
        now: float,
        *,
        while_open: bool,
        keys: bool = False,
    ) -> None:
        """Hold an answer that says something, as long as all of it may be held."""
        # That something does not exist is held as well, with the proof of it.
        seconds = min((one.ttl for one in (*reply.answer, *reply.authority)), default=0)
        end = _end_of_question(data)
        if not end or not seconds or reply.rcode() or reply.flags & dns.flags.TC:
            return
        wire = reply.to_wire(max_size=65535)
        if len(wire) > room(reply):
            return
        self._held[_key(data, end)] = _Held(wire, now, seconds, while_open, keys)
        if len(self._held) > MOST:
            self._held.popitem(last=False)


def _end_of_question(data: bytes) -> int:
    """Give where the one question of a plain query ends, 0 when it is anything else."""
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
    """Give an answer with the TTLs of its records, which follow the question's end, so many seconds
    shorter.
    """
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
    """Tell questions apart by name (in any case), type, class, whether options follow, and what is
    wished for then.
    """
    name = end - _QTYPE_QCLASS
    return (
        data[_HEADER:name].lower() + data[name:end] + data[10:_HEADER] + data[end : end + _WISHES]
    )
