"""Somebody who changes the gate's table over and over: told apart from a single slip, and told without end but not in full.

Pure: times come in from outside.
"""

from collections import Counter
from datetime import datetime, timedelta

ROUNDS = 5
"""So many times within the window make a fight: a cron job of every minute is one after five minutes."""
WINDOW = timedelta(minutes=10)
"""A fight is over when nothing happened for so long."""
FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
"""It is told when it begins, and then at pauses that double: some thirty lines a day, however many rounds."""
_MOST_NAMES = 3
_MOST_REMEMBERED = 50


class Fight:
    """What is known of the rounds so far; `lasting` while there is a fight."""

    def __init__(self) -> None:
        self._recent: list[datetime] = []
        self._forget()

    def _forget(self) -> None:
        self.lasting = False
        self._rounds = 0
        self._began: datetime | None = None
        self._culprits: Counter[str] = Counter()
        self._pids: dict[str, int] = {}
        self._leaked = 0
        self._pause = FIRST_PAUSE
        self._told: datetime | None = None

    def note(self, at: datetime, process: str, pid: int, rounds: int = 1) -> None:
        """Note that this process changed the table, so many times since the last note."""
        last = self._recent[-1] if self._recent else at
        if at - last > WINDOW:
            self._recent.clear()
            self._forget()
        self._recent = [*(one for one in self._recent if at - one <= WINDOW), at][-ROUNDS:]
        self._began = self._began or at
        self._rounds += rounds
        name = process or "somebody"
        if name in self._culprits or len(self._culprits) < _MOST_REMEMBERED:
            self._culprits[name] += rounds
            self._pids[name] = pid
        self.lasting = self.lasting or len(self._recent) >= ROUNDS

    def leaked(self, packets: int) -> None:
        """Add packets that got through meanwhile, as conntrack counts them."""
        self._leaked += packets

    def due(self, at: datetime) -> bool:
        """Say whether it is time to tell of the fight; it counts as told then."""
        if not self.lasting or (self._told and at - self._told < self._pause):
            return False
        if self._told:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._told = at
        return True

    def over(self, at: datetime) -> str:
        """Give the last words of a fight that is over, once; nothing otherwise."""
        if not self.lasting or at - self._recent[-1] <= WINDOW:
            return ""
        words = f"{self.words()}; nothing since {self._recent[-1]:%H:%M} UTC"
        self._recent.clear()
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
        through = f", and about {self._leaked} packets got through meanwhile" if self._leaked else ""
        return (
            f"{', '.join(who)}{more} changed the gate's table over and over: "
            f"{self._rounds} times since {self._began:%H:%M} UTC{through}"
        )
