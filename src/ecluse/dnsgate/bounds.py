"""How much may be asked: buckets that fill with time, and the names that were asked for lately. No clock of their own."""

from collections import OrderedDict

BURST_SECONDS = 10
"""A bucket holds what comes in so many seconds: a morning's start asks for many names at once."""
LATELY = 3600.0
MOST_NAMES = 20_000


class Bucket:
    """So many a second, and what was saved up of the last ten seconds."""

    def __init__(self, per_second: int) -> None:
        self._rate = per_second
        self._full = float(per_second * BURST_SECONDS)
        self._level = self._full
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        if self._at is not None:
            self._level = min(self._full, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


class NewNames:
    """Bounds how many names under each wildcard may be asked for that nobody asked for in the last hour.

    Whoever carries something out in names needs a new one for each piece; whoever uses a service asks for few, again and again.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._buckets: dict[str, Bucket] = {}

    def limit(self, per_second: int) -> None:
        """Begin anew with this bound; what was asked for lately stays known."""
        self._rate = per_second
        self._buckets.clear()

    def may(self, name: str, wildcard: str, now: float) -> bool:
        """Say whether this name may be asked for now."""
        before = self._seen.get(name)
        if before is None or now - before > LATELY:
            bucket = self._buckets.setdefault(wildcard, Bucket(self._rate))
            if not bucket.take(now):
                return False
        self._seen[name] = now
        self._seen.move_to_end(name)
        if len(self._seen) > MOST_NAMES:
            self._seen.popitem(last=False)
        return True
