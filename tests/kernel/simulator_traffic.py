"""Says packets on the rig, in order and no faster than refusals are answered, and sorts what comes
out.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ecluse.ruleset.simulator import Packet
from tests.kernel import simulator_packets as b
from tests.kernel.simulator_model import Expected, Flow
from tests.kernel.simulator_packets import Ends, Read, address
from tests.kernel.simulator_rig import Rig

_BURST, _RATE = (
    4,
    900.0,
)  # a little below what the rule grants (limit rate 1000/second, nft's own burst of 5)
BARRIER = Ends(address("10.10.0.250"), address("10.20.0.250"), 19999, 19999)
PATIENCE = 2.0  # seconds; what is refused is known by then, as what was sent after it has passed


Seen = tuple[str, bytes, Read]
"""Where it came out, its bytes, and how they read."""


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this thread, and so the kernel's work on what it sends, on one processor: there it is
    done in order.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[os.getpid() % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Said:
    """One packet: whose flow, what it is in it, where it is sent, and what is expected of it."""

    flow: Flow
    what: str
    link: str
    data: bytes
    packet: Packet
    expected: Expected
    uid: int = 0


@dataclass
class Witnessed:
    """What came out, by packet number: where packets passed, where they were said to be prohibited;
    and resets, by ends.
    """

    passed: dict[int, list[Seen]] = field(default_factory=dict)
    prohibited: dict[int, list[str]] = field(default_factory=dict)
    resets: Counter[tuple[str, Ends]] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)


class Talk:
    """One example's packets: their numbers, and what is left of the rate limit that its ruleset
    began with.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._numbers = 0
        self._tokens, self._spent = float(_BURST), time.monotonic()

    def number(self) -> int:
        """Give a number that no packet of this example has had."""
        self._numbers += 1
        return self._numbers

    def exchange(self, said: list[Said]) -> Witnessed:
        """Send all, pacing what is answered under the rate limit, and give all that came of it."""
        found: list[Seen] = []
        patience = PATIENCE
        with one_processor():
            for one in said:
                number = b.read(one.data).numbers[-1]
                self._pace(one.expected.limited)
                self.rig.send(one.link, one.data, one.uid)
                if one.expected.prohibited is not None:
                    come = self._seen_until(number, patience)
                    patience = (
                        PATIENCE if any(r.numbers[-1:] == (number,) for _, _, r in come) else 0.01
                    )
                    found += come
                elif one.expected.limited:
                    found += self.settle()
                if one.expected.limited:
                    self._spent = time.monotonic()
            found += self.settle()
        result = Witnessed()
        for link, data, reading in found:
            if reading.is_reset:
                result.resets[link, reading.ends] += 1
            elif not reading.numbers:
                result.strange.append(f"{link or 'gateway'}: {reading}")
            elif reading.is_prohibition:
                result.prohibited.setdefault(reading.numbers[-1], []).append(link)
            else:
                result.passed.setdefault(reading.numbers[-1], []).append((link, data, reading))
        return result

    def settle(self) -> list[Seen]:
        """Give what came out up to now: the kernel, on one processor, is done when a packet that
        always passes comes out too.
        """
        last = self.number()
        self.rig.send("care0", b.message("udp", BARRIER, b.OPENING, last))
        found = self._seen_until(last, PATIENCE)
        assert any(r.numbers[-1:] == (last,) for _, _, r in found), (
            "the rig: inside to inside did not come out"
        )
        return [one for one in found if one[2].numbers[-1:] != (last,)]

    def _seen_until(self, number: int, patience: float) -> list[Seen]:
        """Read until a packet (or the answer to it) has come out: on a busy machine the kernel may
        fall behind.
        """
        deadline = time.monotonic() + patience
        found = self.rig.seen()
        while (
            not any(r.numbers[-1:] == (number,) for _, _, r in found)
            and time.monotonic() < deadline
        ):
            time.sleep(0.0005)
            found += self.rig.seen()
        return found + self.rig.seen()

    def _pace(self, cost: int) -> None:
        """Wait until the kernel surely grants as many answers more: it counts from when it came to
        the last one, we from later.
        """
        if not cost:
            return
        gained = (time.monotonic() - self._spent) * _RATE
        self._tokens = min(float(_BURST), self._tokens + gained) - cost
        if self._tokens < 0:
            time.sleep(-self._tokens / _RATE)
            self._tokens = 0.0
