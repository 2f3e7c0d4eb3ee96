"""What answers to kept names lead to: the targets of aliases, and the zones whose keys prove an
answer. No clock of its own.

A DNS server of the inside takes the first link of a chain and asks for the next one itself; one
that validates (DNSSEC) asks for the keys of every zone above. Neither stands in the allowlist. So
what was answered is remembered here, for as long as its addresses are kept in the kernel: a target
is answered as the kept name that led to it, and only that name leaves.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import dns.message
import dns.name

from ecluse.dnsproxy.dnsmasq_config import CACHED, zones_above
from ecluse.dnsproxy.message_filter import DnsQuestion, links, written

LATELY = 3600.0
"""Seconds that a name is known after it was last in an answer, as long as the kernel keeps the
addresses.
"""
MOST = 2000
"""Targets, zones and whole answers of each; what was answered longest ago gives way."""
MOST_HEADS = 16
"""Kept names that are known to lead to one target."""
_PLAIN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(slots=True)
class _Held:
    """An answer with an alias in it, as a resolver gave it: bytes alone, see answers.py."""

    wire: bytes
    began: float
    seconds: int


class _Known:
    """What answers led to: target -> kept names, and when; zone -> when; question -> answer."""

    def __init__(self) -> None:
        self.heads: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self.zones: OrderedDict[str, float] = OrderedDict()
        self.held: OrderedDict[DnsQuestion, _Held] = OrderedDict()


class AliasChains:
    """Learns from the resolvers' answers to kept names; nothing that a machine asks for adds to it.

    What names below wildcards lead to is bounded by itself: whoever invents such names pushes out
    nothing of the site's own.
    """

    def __init__(self) -> None:
        self._own, self._below = _Known(), _Known()

    def note(self, question: DnsQuestion, answer: dns.message.Message, now: float) -> bool:
        """Take note of an answer to a kept name; say whether the engine has to be told of names
        that were not known.
        """
        known = self._below if question.wildcard else self._own
        chain = links(answer, dns.name.from_text(question.name))[1:]
        said = (written(name) for name in chain)
        targets = [one for one in said if _PLAIN.fullmatch(one)]
        fresh = any(target not in known.heads for target in targets)
        for target in targets:
            heads = known.heads.setdefault(target, OrderedDict())
            _put(heads, question.name, now, MOST_HEADS)
            _put(known.heads, target, heads)
        # A validating server asks for keys once it has the answer.
        if question.dnssec and (answer.answer or answer.authority):
            above = [zone for target in targets for zone in zones_above(target)]
            fresh |= any(zone not in known.zones for zone in above)
            for zone in (*above, *_below_wildcard(question)):
                _put(known.zones, zone, now)
        seconds = min([CACHED, *(one.ttl for one in answer.answer)])
        if targets and seconds and not answer.rcode():
            _put(known.held, question, _Held(answer.to_wire(max_size=65535), now, seconds))
        return fresh

    def heads(self, target: str, now: float) -> tuple[str, ...]:
        """Name the kept names that led to a target lately, the site's own first; none where it is
        no target.
        """
        return tuple(
            head
            for known in (self._own, self._below)
            for head, last in reversed(known.heads.get(target, {}).items())
            if now - last <= LATELY
        )

    def targets(self, now: float) -> frozenset[str]:
        """Give all targets that are known."""
        every = {**self._own.heads, **self._below.heads}
        return frozenset(target for target in every if self.heads(target, now))

    def zones(self, now: float) -> frozenset[str]:
        """Give the zones that answers came out of, and those above them."""
        return frozenset(
            zone
            for known in (self._own, self._below)
            for zone, last in known.zones.items()
            if now - last <= LATELY
        )

    def is_zone(self, name: str, now: float) -> bool:
        """Say whether a name may be a zone that an answer came out of lately."""
        return any(
            now - known.zones.get(name, -LATELY) < LATELY for known in (self._own, self._below)
        )

    def held(self, question: DnsQuestion, now: float) -> dns.message.Message | None:
        """Give the answer to a kept name again, its TTLs counted down; None when it has to be asked
        for.
        """
        known = self._below if question.wildcard else self._own
        one = known.held.get(question)
        if one is None:
            return None
        age = int(now - one.began)
        if age >= one.seconds:
            del known.held[question]
            return None
        answer = dns.message.from_wire(one.wire)
        for rrset in (*answer.answer, *answer.authority):
            rrset.ttl = max(0, rrset.ttl - age)
        return answer


def _below_wildcard(question: DnsQuestion) -> Iterator[str]:
    """Give the name that was asked for below a wildcard and what lies above it there: all of it has
    left already.
    """
    for zone in zones_above(question.name) if question.wildcard else ():
        if zone == question.wildcard:
            return
        yield zone


def _put(held: "OrderedDict[_K, _V]", key: _K, value: _V, most: int = MOST) -> None:
    held[key] = value
    held.move_to_end(key)
    if len(held) > most:
        held.popitem(last=False)
