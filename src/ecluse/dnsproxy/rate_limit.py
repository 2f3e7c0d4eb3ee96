"""Rate limit for new names below wildcards. Callers pass the time."""

from collections import OrderedDict

BURST_SECONDS = 10
"""Size of a bucket: in the morning all machines ask for many names at once."""
RECENT = 3600.0
"""Seconds that a name counts as known after it was asked for."""
MOST_NAMES = 20_000
MOST_CLIENTS = 4096
"""Pairs of client and wildcard that have a bucket; the least recently used is dropped."""
SHARE, SERVERS_SHARE = 0.1, 0.5
"""Part of a wildcard's bound that is one machine's share, and that of an inside DNS server."""


class TokenBucket:
    """A token bucket that holds the tokens of `BURST_SECONDS`."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self.full = max(per_second * BURST_SECONDS, 1.0)
        self._level = self.full
        self._at: float | None = None

    def take(self, now: float, leave: float = 0.0) -> bool:
        """Take a token, unless that leaves fewer than `leave` for others."""
        if self._at is not None:
            self._level = min(self.full, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1 + leave:
            return False
        self._level -= 1
        return True


class NewNameLimit:
    """Bounds how many names below each wildcard may be asked for that are new in the last hour.

    DNS exfiltration needs a fresh name per chunk; real clients repeat a few. So only names not seen
    in the last hour cost a token, and half of each bucket is left for machines within their share.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._buckets: dict[str, TokenBucket] = {}
        self._own: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()

    def set_rate(self, per_second: int) -> None:
        """Set the bound, and fill the buckets; the names of the last hour stay known."""
        self._rate = per_second
        self._buckets.clear()
        self._own.clear()

    def allows(
        self, name: str, wildcard: str, now: float, client: str = "", share: float = SHARE
    ) -> bool:
        """Say whether this client may ask for this name now. share: SHARE or SERVERS_SHARE."""
        before = self._seen.get(name)
        if before is None or now - before > RECENT:
            bucket = self._buckets.setdefault(wildcard, TokenBucket(self._rate))
            leave = 0.0 if self._is_within_share(client, wildcard, now, share) else bucket.full / 2
            if not bucket.take(now, leave):
                return False
        self._seen[name] = now
        self._seen.move_to_end(name)
        if len(self._seen) > MOST_NAMES:
            self._seen.popitem(last=False)
        return True

    def _is_within_share(self, client: str, wildcard: str, now: float, share: float) -> bool:
        key = client, wildcard
        own = self._own.get(key)
        if own is None:
            own = self._own[key] = TokenBucket(self._rate * share)
            if len(self._own) > MOST_CLIENTS:
                self._own.popitem(last=False)
        self._own.move_to_end(key)
        return own.take(now)
