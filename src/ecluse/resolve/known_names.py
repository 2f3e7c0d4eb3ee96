"""The rule by which a name's addresses come, stay and leave. Pure.

An answer never takes an address away. It says that an address is there, or has left. When KEEP has
passed since it was last seen, in an answer or in traffic, it is due, and is dropped once no
connection to it lives (`DnsResolver.due`, `let_go`). A look-up that failed or found nothing does
not even say that: an empty answer cuts a laboratory off as surely as a rule does, and an attacker
who controls the resolver must not be able to do that.
"""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_address

from ecluse.records import KEEP, KnownAddress, KnownName, NameStatistics
from ecluse.resolve.lookup import LookupResult

MOST_ADDRESSES = 2048
"""Addresses of one name; the newest stay. An hour of 32 new ones a minute."""

MOST_FAILURE = 500
"""Characters of a failure's text."""


def after_answer(
    known: KnownName, answer: LookupResult, at: datetime, shortest: float, longest: float
) -> KnownName:
    """Return what is known after `answer`, received at `at`.

    TTLs count as at least `shortest` and at most `longest` seconds.
    """
    before = {each.address: each for each in known.addresses}
    fresh = {
        str(address): KnownAddress(
            str(address),
            at,
            at + timedelta(seconds=min(max(ttl, shortest), longest)),
            ttl,
            answer.by.get(address, ()),
            used=_no_later(before[str(address)].used, at) if str(address) in before else None,
        )
        for address, ttl in answer.ttls.items()
    }
    kept = (_without(old, answer, at) for old in known.addresses if old.address not in fresh)
    newest_first = sorted(
        (*fresh.values(), *kept), key=lambda each: (-each.seen.timestamp(), _order(each.address))
    )
    failures = list(answer.failures)
    if not fresh and not failures:
        failures.append("the answer has no address")
    if len(newest_first) > MOST_ADDRESSES:
        failures.append(f"{len(newest_first)} addresses; the newest {MOST_ADDRESSES} are used")
    addresses = sorted(newest_first[:MOST_ADDRESSES], key=lambda each: _order(each.address))
    return KnownName(
        known.name,
        tuple(addresses),
        at,
        "; ".join(failures)[:MOST_FAILURE],
        _no_later(known.since, at) or at,
        answer.alias if fresh else known.alias,
    )


def _without(old: KnownAddress, answer: LookupResult, at: datetime) -> KnownAddress:
    """Return an address that this answer lacks: it left, unless the answer says nothing of it."""
    seen = min(old.seen, at)  # a clock that was ahead is no reason to keep it for longer
    return replace(
        old,
        seen=seen,
        expires=old.expires - (old.seen - seen),
        used=_no_later(old.used, at),
        left=_no_later(old.left, at) or (at if _is_news(old, answer) else None),
    )


def _no_later(moment: datetime | None, at: datetime) -> datetime | None:
    return min(moment, at) if moment else None


def _is_news(old: KnownAddress, answer: LookupResult) -> bool:
    """Say whether an answer without this address means that it left.

    It does not if no resolver answered for its family, if the answer has no address at all, or if
    the resolvers that gave the address are still asked and silent: another may never have had it.
    """
    family = ip_address(old.address).version
    if not answer.ttls or family not in answer.answered:
        return False
    asked = {server for server, _ in answer.outcomes}
    givers = asked.intersection(old.by)
    return not givers or any((server, family) in answer.heard for server in givers)


def _order(address: str) -> tuple[int, int]:
    value = ip_address(address)
    return value.version, int(value)


def count_lookup(
    statistics: NameStatistics, before: KnownName, answer: LookupResult, at: datetime
) -> NameStatistics:
    """Count one more look-up, with what was known before it."""
    outcomes = {server: dict(by_outcome) for server, by_outcome in statistics.outcomes.items()}
    for server, outcome in answer.outcomes:
        of_server = outcomes.setdefault(server, {})
        of_server[outcome] = of_server.get(outcome, 0) + 1
    known = addresses_of(before)
    given = {str(address) for address in answer.ttls}
    valid = {
        each.address for each in before.addresses if each.seen + timedelta(seconds=each.ttl) > at
    }
    moved = any(
        family in answer.answered and {a for a in valid if ip_address(a).version == family} - given
        for family in {address.version for address in answer.ttls}
    )
    return NameStatistics(
        statistics.lookups + 1,
        outcomes,
        statistics.answers + bool(given),
        statistics.turned + bool(known and given - known),
        statistics.early + bool(answer.split or moved),
    )


def addresses_of(known: KnownName) -> frozenset[str]:
    """Return the addresses."""
    return frozenset(each.address for each in known.addresses)


def overdue(known: KnownName, at: datetime, last_good: timedelta) -> tuple[KnownAddress, ...]:
    """Return the addresses whose time is over; connections to them may still live."""
    # The quick half of the question: this is asked of every address every few seconds.
    newest = at - KEEP
    return tuple(
        each for each in known.addresses if each.seen <= newest and each.kept_until(last_good) <= at
    )


def mark_used(known: KnownName, addresses: AbstractSet[str], at: datetime) -> KnownName:
    """Return what is known after live connections to these addresses were found."""
    found = (
        replace(each, used=at) if each.address in addresses else each for each in known.addresses
    )
    return replace(known, addresses=tuple(found))


def without(known: KnownName, addresses: AbstractSet[str]) -> KnownName:
    """Return what is known without these addresses."""
    return replace(known, addresses=tuple(e for e in known.addresses if e.address not in addresses))


def is_old(known: KnownName, at: datetime) -> bool:
    """Say whether an unwatched name may be forgotten: KEEP has passed since it was seen."""
    last = max((each.seen for each in known.addresses), default=None)
    moments = [moment for moment in (known.asked, last) if moment is not None]
    return all(at - moment >= KEEP for moment in moments)


def expires(known: KnownName) -> datetime | None:
    """Return when the first of the newest addresses expires; None when there are none."""
    newest = max((each.seen for each in known.addresses), default=None)
    return min((each.expires for each in known.addresses if each.seen == newest), default=None)
