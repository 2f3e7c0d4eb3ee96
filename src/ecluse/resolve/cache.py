"""What is known of a name, after one more answer: pure, so that the rule is read and tested in one place.

An address leaves only when a fresh answer of its family no longer has it and KEEP has passed since it was last seen.
A look-up that failed, or that found nothing at all, takes nothing away: an empty answer cuts a laboratory off as
surely as a rule does, and an attacker who holds the resolver must not be able to do that.
"""

from datetime import datetime, timedelta
from ipaddress import ip_address

from ecluse.records import KnownAddress, KnownName
from ecluse.resolve.lookup import Answer

KEEP = timedelta(minutes=30)
"""How long an address stays known after it was last seen: names that rotate through addresses lose no connection."""

MOST_ADDRESSES = 256
"""Addresses of one name; the freshest stay."""

MOST_FAILURE = 500
"""Characters of a failure's words."""


def learn(known: KnownName, answer: Answer, at: datetime, shortest: float, longest: float) -> KnownName:
    """Give what is known after `answer`, received at `at`. TTLs count as at least `shortest` and at most `longest` seconds."""
    fresh = {
        str(address): KnownAddress(str(address), at, at + timedelta(seconds=min(max(ttl, shortest), longest)))
        for address, ttl in answer.ttls.items()
    }
    kept = (old for old in known.addresses if old.address not in fresh and _stays(old, answer, at))
    newest_first = sorted(
        (*fresh.values(), *kept), key=lambda each: (-each.seen.timestamp(), _order(each.address))
    )
    failures = list(answer.failures)
    if not fresh and not failures:
        failures.append("the answer has no address")
    if len(newest_first) > MOST_ADDRESSES:
        failures.append(f"{len(newest_first)} addresses; the newest {MOST_ADDRESSES} are used")
    addresses = sorted(newest_first[:MOST_ADDRESSES], key=lambda each: _order(each.address))
    return KnownName(known.name, tuple(addresses), at, "; ".join(failures)[:MOST_FAILURE])


def _stays(old: KnownAddress, answer: Answer, at: datetime) -> bool:
    # `not answer.ttls`: no family has an address, so the name looks gone. That is a failure, not news.
    unheard = not answer.ttls or ip_address(old.address).version not in answer.answered
    return unheard or at - old.seen < KEEP


def _order(address: str) -> tuple[int, int]:
    value = ip_address(address)
    return value.version, int(value)


def addresses_of(known: KnownName) -> frozenset[str]:
    """Give the set of addresses: what a change of is worth telling."""
    return frozenset(each.address for each in known.addresses)


def is_old(known: KnownName, at: datetime) -> bool:
    """Say whether a name that nobody watches may be forgotten: KEEP has passed since it was asked for and seen."""
    last = max((each.seen for each in known.addresses), default=None)
    moments = [moment for moment in (known.asked, last) if moment is not None]
    return all(at - moment >= KEEP for moment in moments)


def expires(known: KnownName) -> datetime | None:
    """Give when the first of the freshest addresses expires; None when there are none."""
    newest = max((each.seen for each in known.addresses), default=None)
    return min((each.expires for each in known.addresses if each.seen == newest), default=None)
