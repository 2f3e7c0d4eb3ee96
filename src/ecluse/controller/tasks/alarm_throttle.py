"""Somebody who changes the gate's table over and over: told apart from a single slip, and told
without end but not in full.

How long things take is told by a clock that nobody sets; the date stands in the words alone.
"""

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

ROUNDS = 5
"""So many times within the window make a fight: a cron job of every minute is one after five
minutes.
"""
WINDOW = 600.0
"""Seconds; a fight is over when nothing happened for so long."""
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 3600.0
"""It is told when it begins, and then at pauses that double: some thirty lines a day, however many
rounds.
"""
_MOST_NAMES = 3
_MOST_REMEMBERED = 50


class AlarmThrottle:
    """What is known of the rounds so far; `lasting` while there is a fight.

    elapsed: seconds of a clock that goes on evenly.
    """

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._forget()

    def _forget(self) -> None:
        self.lasting = False
        self._recent: list[float] = []
        self._last: datetime | None = None
        self._rounds = 0
        self._began: datetime | None = None
        self._culprits: Counter[str] = Counter()
        self._pids: dict[str, int] = {}
        self._leaked = 0
        self._pause = FIRST_PAUSE
        self._told: float | None = None

    def note(self, at: datetime, process: str, pid: int, rounds: int = 1) -> None:
        """Note that this process changed the table, so many times since the last note.

        at: the date, for the words.
        """
        now = self._elapsed()
        if self._recent and now - self._recent[-1] > WINDOW:
            self._forget()
        self._recent = [*(one for one in self._recent if now - one <= WINDOW), now][-ROUNDS:]
        self._began, self._last = self._began or at, at
        self._rounds += rounds
        name = process or "somebody"
        if name in self._culprits or len(self._culprits) < _MOST_REMEMBERED:
            self._culprits[name] += rounds
            self._pids[name] = pid
        self.lasting = self.lasting or len(self._recent) >= ROUNDS

    def leaked(self, packets: int) -> None:
        """Add packets that got through meanwhile, as conntrack counts them."""
        self._leaked += packets

    def due(self) -> bool:
        """Say whether it is time to tell of the fight; it counts as told then."""
        now = self._elapsed()
        if not self.lasting or (self._told is not None and now - self._told < self._pause):
            return False
        if self._told is not None:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._told = now
        return True

    def over(self) -> str:
        """Give the last words of a fight that is over, once; nothing otherwise."""
        if not self.lasting or self._elapsed() - self._recent[-1] <= WINDOW:
            return ""
        words = f"{self.words()}; nothing since {self._last:%H:%M} UTC"
        self._forget()
        return words

    def words(self) -> str:
        """Name who fights, and for how long."""
        who = [
            f"{name} (pid {self._pids[name]} at last)" if self._pids[name] else name
            for name, _ in self._culprits.most_common(_MOST_NAMES)
        ]
        others = len(self._culprits) - len(who)
        more = f" and {others} more" if others > 0 else ""
        through = (
            f", and about {self._leaked} packets got through meanwhile" if self._leaked else ""
        )
        return (
            f"{', '.join(who)}{more} changed the gate's table over and over: "
            f"{self._rounds} times since {self._began:%H:%M} UTC{through}"
        )
