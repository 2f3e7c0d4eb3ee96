"""Throttle of alarms: tells a process that changes our table over and over from a single slip.

Durations are taken from a clock that nobody sets; the date is for the texts alone.
"""

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

CHANGES = 5
"""So many changes within the window are a series: a cron job of every minute after five minutes."""
WINDOW = 600.0
"""Seconds; a series is over when nothing happened for so long."""
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 3600.0
"""An alarm is due when a series begins, and then at pauses that double: some thirty a day, however
many changes.
"""
_MOST_NAMES = 3
_MOST_REMEMBERED = 50


class AlarmThrottle:
    """Counts the changes that others made; `lasting` while they are a series.

    elapsed: seconds of a clock that goes on evenly.
    """

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._reset()

    def _reset(self) -> None:
        self.lasting = False
        self.times = 0
        self._recent: list[float] = []
        self._last: datetime | None = None
        self._began: datetime | None = None
        self._culprits: Counter[str] = Counter()
        self._pids: dict[str, int] = {}
        self._leaked = 0
        self._pause = FIRST_PAUSE
        self._alarmed: float | None = None

    def count_change(self, at: datetime, process: str, pid: int, times: int = 1) -> None:
        """Count that this process changed the table, so many times since the last call.

        at: the date, for the texts.
        """
        now = self._elapsed()
        if self._recent and now - self._recent[-1] > WINDOW:
            self._reset()
        self._recent = [*(one for one in self._recent if now - one <= WINDOW), now][-CHANGES:]
        self._began, self._last = self._began or at, at
        self.times += times
        name = process or "somebody"
        if name in self._culprits or len(self._culprits) < _MOST_REMEMBERED:
            self._culprits[name] += times
            self._pids[name] = pid
        self.lasting = self.lasting or len(self._recent) >= CHANGES

    def add_leaked(self, packets: int) -> None:
        """Add packets that leaked meanwhile, as conntrack counts them."""
        self._leaked += packets

    def take_alarm(self) -> bool:
        """Say whether an alarm is due; it counts as given then."""
        now = self._elapsed()
        if not self.lasting or (self._alarmed is not None and now - self._alarmed < self._pause):
            return False
        if self._alarmed is not None:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._alarmed = now
        return True

    def take_end(self) -> str:
        """Give the last text of a series that is over, once; nothing otherwise."""
        if not self.lasting or self._elapsed() - self._recent[-1] <= WINDOW:
            return ""
        text = f"{self.text()}; nothing since {self._last:%H:%M} UTC"
        self._reset()
        return text

    @property
    def began(self) -> str:
        """Give when the series began, as text."""
        return f"{self._began:%H:%M}"

    def processes(self) -> str:
        """Name the processes that changed the table, the most active first."""
        who = [
            f"{name} (pid {self._pids[name]} at last)" if self._pids[name] else name
            for name, _ in self._culprits.most_common(_MOST_NAMES)
        ]
        others = len(self._culprits) - len(who)
        return ", ".join(who) + (f" and {others} more" if others > 0 else "")

    def text(self) -> str:
        """Say who changed the table, how often, and how much leaked."""
        leaked = f", and about {self._leaked} packets leaked meanwhile" if self._leaked else ""
        return (
            f"{self.processes()} changed the gate's table over and over: "
            f"{self.times} times since {self.began} UTC{leaked}"
        )
