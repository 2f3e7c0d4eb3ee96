"""Targets of aliases, and zones whose keys prove an answer: what answers to kept names lead to.

A DNS server of the inside takes the first link of a chain and asks for the next one itself; one
that validates (DNSSEC) asks for the keys of every zone above. Neither is in the allowlist. So
both are remembered here, for as long as the addresses are kept in the kernel: a target is answered
as the kept name that led to it, and only that name is sent to the resolvers. Callers pass the time.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import dns.message
import dns.name

from ecluse.dnsproxy.dnsmasq_config import MAX_TTL, zones_above
from ecluse.dnsproxy.message_filter import DnsQuestion, alias_chain, canonical_name

RECENT = 3600.0
"""Seconds that a name is known after it was last in an answer: as long as addresses are kept."""
MOST = 2000
"""Targets, zones and whole answers, each; the oldest is dropped."""
MOST_KEPT_NAMES = 16
"""Kept names that lead to one target."""
_PLAIN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(slots=True)
class _Cached:
    """An answer with an alias in it, as a resolver gave it: bytes alone, see `answer_cache`."""

    wire: bytes
    began: float
    seconds: int


class _Known:
    """Target -> kept names and when; zone -> when; question -> answer."""

    def __init__(self) -> None:
        self.kept_names: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self.zones: OrderedDict[str, float] = OrderedDict()
        self.answers: OrderedDict[DnsQuestion, _Cached] = OrderedDict()


class AliasChains:
    """Targets and zones from the resolvers' answers to kept names; questions add nothing.

    Names below wildcards have a bound of their own: a machine that invents such names pushes out
    nothing that belongs to the site's own names.
    """

    def __init__(self) -> None:
        self._own, self._below = _Known(), _Known()

    def add_answer(self, question: DnsQuestion, answer: dns.message.Message, now: float) -> bool:
        """Add an answer to a kept name; return whether it leads to names that dnsmasq lacks."""
        known = self._below if question.wildcard else self._own
        chain = alias_chain(answer, dns.name.from_text(question.name))[1:]
        said = (canonical_name(name) for name in chain)
        targets = [one for one in said if _PLAIN.fullmatch(one)]
        fresh = any(target not in known.kept_names for target in targets)
        for target in targets:
            heads = known.kept_names.setdefault(target, OrderedDict())
            _put(heads, question.name, now, MOST_KEPT_NAMES)
            _put(known.kept_names, target, heads)
        # A validating server asks for keys once it has the answer.
        if question.dnssec and (answer.answer or answer.authority):
            above = [zone for target in targets for zone in zones_above(target)]
            fresh |= any(zone not in known.zones for zone in above)
            for zone in (*above, *_below_wildcard(question)):
                _put(known.zones, zone, now)
        seconds = min([MAX_TTL, *(one.ttl for one in answer.answer)])
        if targets and seconds and not answer.rcode():
            _put(known.answers, question, _Cached(answer.to_wire(max_size=65535), now, seconds))
        return fresh

    def kept_names(self, target: str, now: float) -> tuple[str, ...]:
        """Return the kept names that led to a target lately, the site's own first."""
        return tuple(
            head
            for known in (self._own, self._below)
            for head, last in reversed(known.kept_names.get(target, {}).items())
            if now - last <= RECENT
        )

    def targets(self, now: float) -> frozenset[str]:
        """Return all targets."""
        every = {**self._own.kept_names, **self._below.kept_names}
        return frozenset(target for target in every if self.kept_names(target, now))

    def zones(self, now: float) -> frozenset[str]:
        """Return the zones that answers came out of, and those above them."""
        return frozenset(
            zone
            for known in (self._own, self._below)
            for zone, last in known.zones.items()
            if now - last <= RECENT
        )

    def is_zone(self, name: str, now: float) -> bool:
        """Say whether an answer came out of a zone of this name lately."""
        return any(
            now - known.zones.get(name, -RECENT) < RECENT for known in (self._own, self._below)
        )

    def cached_answer(self, question: DnsQuestion, now: float) -> dns.message.Message | None:
        """Return a cached answer to a kept name, its TTLs counted down; None if there is none."""
        known = self._below if question.wildcard else self._own
        one = known.answers.get(question)
        if one is None:
            return None
        age = int(now - one.began)
        if age >= one.seconds:
            del known.answers[question]
            return None
        answer = dns.message.from_wire(one.wire)
        for rrset in (*answer.answer, *answer.authority):
            rrset.ttl = max(0, rrset.ttl - age)
        return answer


def _below_wildcard(question: DnsQuestion) -> Iterator[str]:
    """Yield a name below a wildcard and those between: the resolvers know them already."""
    for zone in zones_above(question.name) if question.wildcard else ():
        if zone == question.wildcard:
            return
        yield zone


def _put(held: "OrderedDict[_K, _V]", key: _K, value: _V, most: int = MOST) -> None:
    held[key] = value
    held.move_to_end(key)
    if len(held) > most:
        held.popitem(last=False)
