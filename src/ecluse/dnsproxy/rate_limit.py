"""How much may be asked: buckets that fill with time, and the names that were asked for lately.

No clock of their own.
"""

from collections import OrderedDict

BURST_SECONDS = 10
"""A bucket holds what comes in so many seconds: a morning's start asks for many names at once."""
LATELY = 3600.0
MOST_NAMES = 20_000
MOST_CLIENTS = 4096
"""Pairs of client and wildcard of which it is known how much they asked; the one that asked longest
ago gives way.
"""
SHARE, SERVERS_SHARE = 0.1, 0.5
"""What part of a wildcard's bound a machine may use and still counts as one that asks for few; a
DNS server of the inside.
"""


class TokenBucket:
    """So many a second, and what was saved up of the last ten seconds."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self.full = max(per_second * BURST_SECONDS, 1.0)
        self._level = self.full
        self._at: float | None = None

    def take(self, now: float, leave: float = 0.0) -> bool:
        """Take one, if there is one beside what is left for others."""
        if self._at is not None:
            self._level = min(self.full, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1 + leave:
            return False
        self._level -= 1
        return True


class NewNameLimit:
    """Bounds how many names under each wildcard may be asked for that nobody asked for in the last
    hour.

    Whoever carries something out in names needs a new one for each piece; whoever uses a service
    asks for few, again and again. So that the first does not use up what the second needs, half of
    each bucket is left for machines that ask for few.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._buckets: dict[str, TokenBucket] = {}
        self._own: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()

    def limit(self, per_second: int) -> None:
        """Begin anew with this bound; what was asked for lately stays known."""
        self._rate = per_second
        self._buckets.clear()
        self._own.clear()

    def may(
        self, name: str, wildcard: str, now: float, client: str = "", share: float = SHARE
    ) -> bool:
        """Say whether this client may ask for this name now. share: see SHARE."""
        before = self._seen.get(name)
        if before is None or now - before > LATELY:
            bucket = self._buckets.setdefault(wildcard, TokenBucket(self._rate))
            leave = 0.0 if self._asks_for_few(client, wildcard, now, share) else bucket.full / 2
            if not bucket.take(now, leave):
                return False
        self._seen[name] = now
        self._seen.move_to_end(name)
        if len(self._seen) > MOST_NAMES:
            self._seen.popitem(last=False)
        return True

    def _asks_for_few(self, client: str, wildcard: str, now: float, share: float) -> bool:
        key = client, wildcard
        own = self._own.get(key)
        if own is None:
            own = self._own[key] = TokenBucket(self._rate * share)
            if len(self._own) > MOST_CLIENTS:
                self._own.popitem(last=False)
        self._own.move_to_end(key)
        return own.take(now)
