"""The accounting of nf_tables' generation ids: does the table still look as we left it?

The kernel counts every transaction of a network namespace, by anyone (the generation id, NFT_MSG_
NEWGEN). Comparing ids costs next to nothing, and reading the whole table costs 0.3 s for 100,000
elements, so the table is read only when the count does not explain the id.

Invariants:

- expected id = last confirmed id + our commits since + foreign commits that are known not to have
  touched our table. While the kernel's id is the expected one, nobody else changed the table.
- `_digests`, where it is not empty, is how the table looked at the last confirmed id.
- Our own commits change nothing that `_digests` covers, or `_digests` is emptied or read again.
- Nothing is believed after a foreign commit fell between two of ours (`_sound` is false): only a
  new program in the table (`TableManager.bring_up`) ends that.

States, in words:

    UNKNOWN    no id is confirmed yet. rebase() -> UNREAD
    UNREAD     an id is confirmed, the table's looks are not read. `unread` is set.
               read_back() -> READ, or UNREAD once more when somebody committed meanwhile
    READ       id and looks are known. our commits: READ, as counted.
               rebase() after the table was changed by us -> UNREAD
               a foreign commit that touched nothing of ours: READ, counted
               any other id: the table is read and compared; same looks -> READ, else not in step
    UNSOUND    a foreign commit fell between two of ours: rebase() found another id than expected.
               Nothing is in step until resume() and rebase() after a restoration -> UNREAD
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from ecluse.ports import Firewall

_PATIENCE = 10
"""How often the regular look asks again for the announcement of a foreign transaction."""


class TableTracker:
    """Predicts the generation id that the kernel has while nobody else touched our table.

    unread: set while the table's looks are to be read (`read_back`).
    """

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall
        self._confirmed: int | None = None
        self._commits = 0
        self._foreign: set[int] = set()
        self._sound = False
        self._digests: dict[str, str] = {}
        self.unread = asyncio.Event()

    @property
    def unsure(self) -> bool:
        """Say whether the table's looks are not known.

        Either others committed between our own transactions, or they are not read back yet.
        """
        return not self._digests

    def count_commit(self) -> None:
        """Count one transaction of our own."""
        self._commits += 1

    def ignore_foreign(self, generation: int) -> None:
        """Count a foreign transaction, by its generation id, that touched nothing of our table."""
        self._foreign.add(generation)

    def expected(self) -> int | None:
        """Predict nf_tables' generation id: see the module. None until one is confirmed."""
        if self._confirmed is None:
            return None
        confirmed = self._confirmed
        self._foreign = {one for one in self._foreign if one > confirmed}
        return confirmed + self._commits + len(self._foreign)

    def confirm(self, generation: int) -> None:
        """Take this id for the one of the table as it is, if it is the expected one."""
        if generation == self.expected():
            self._confirmed, self._commits = generation, 0

    async def confirm_commit(self) -> None:
        """Count one commit of ours that changed nothing that `_digests` covers.

        The id is confirmed at once where no other commit of ours waits to be.
        """
        alone = not self._commits
        self._commits += 1
        now = await self._firewall.ruleset_generation()
        if alone:
            self.confirm(now)

    async def wait_for_announcements(self) -> None:
        """Wait a moment for the announcement that a foreign transaction left our table alone.

        Only while the looks are not read: without them it could not be told by reading.
        """
        for _ in range(_PATIENCE):
            if self._digests or await self._firewall.ruleset_generation() == self.expected():
                return
            await asyncio.sleep(0.01)

    async def catch_up(self) -> None:
        """Count in the foreign transactions that left our table alone, by reading the table.

        Called before a transaction of ours: afterwards nobody could tell theirs from ours.
        """
        now = await self._firewall.ruleset_generation()
        if self._confirmed is None or now == self.expected():
            return
        same = bool(self._digests) and await self._firewall.fingerprint() == self._digests
        if same and await self._firewall.ruleset_generation() == now:
            self._confirmed, self._commits = now, 0

    async def rebase(self) -> None:
        """Take the table for ours as it is after our own transactions; its looks are read later.

        When somebody else committed in between, it is not ours: the next comparison fails, and the
        table is restored.
        """
        now = await self._firewall.ruleset_generation()
        self._sound = self.expected() in {None, now}
        self._confirmed, self._commits, self._digests = now, 0, {}
        if self._sound:
            self.unread.set()

    async def mark(self) -> tuple[int, int]:
        """Give the kernel's id and our own count, before a table is replaced (`resume`)."""
        return await self._firewall.ruleset_generation(), self._commits

    def resume(self, mark: tuple[int, int]) -> None:
        """Count from a mark on: only what we committed since then explains the id."""
        generation, commits = mark
        self._confirmed, self._commits, self._digests = generation, self._commits - commits, {}

    async def read_back(self) -> bool:
        """Read the table's looks, to know it again. False when it changed meanwhile: try again.

        The lock is not held: 100,000 elements take 0.3 s, and a closing may come. Until it is read,
        whatever somebody else commits counts as a change of our table.
        """
        self.unread.clear()
        digests = await self._firewall.fingerprint()
        now = await self._firewall.ruleset_generation()
        if self.unread.is_set() or self._confirmed is None or not self._sound:
            # Rebased meanwhile: these looks are of the table before. Unsound: nothing to learn.
            return not self._sound
        if now != self.expected():
            self.unread.set()
            return False
        self._digests = digests
        return True

    async def in_step(self, shows: Callable[[], Awaitable[bool]]) -> bool:
        """Say whether the kernel shows what it should; mostly by its generation id alone.

        shows: reads the switch back, a few chains.
        """
        now = await self._firewall.ruleset_generation()
        if now == self.expected() and not self._commits:
            # The id is explained, and by foreign commits alone. The DNS proxy commits for ever:
            # what it left alone is taken into the base, or the set of its ids would grow.
            self._confirmed = now
            return self._sound
        # An id that the count does not explain. The switch is read first: that is little, and it is
        # enough when the table is gone. The digests are compared last, as they cost a whole read.
        same = (
            self._sound
            and bool(self._digests)
            and await shows()
            and await self._firewall.fingerprint() == self._digests
        )
        # Whatever was committed while the table was read is not covered by what was read.
        if same and await self._firewall.ruleset_generation() == now:
            self._confirmed, self._commits = now, 0
        return same

    async def read_sets(self, changed: Iterable[str]) -> None:
        """Read these sets again after a commit of ours that changed their elements alone."""
        before = self._digests
        if not before:
            await self.rebase()
            return
        read = await self._firewall.fingerprint(changed)
        now = await self._firewall.ruleset_generation()
        self._sound = self.expected() in {None, now}
        self._confirmed, self._commits = now, 0
        self._digests = before | read if self._sound else {}
