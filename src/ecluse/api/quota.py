"""How many connections each kind of peer may hold, so that nobody can take the operator's place at
the door.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ecluse.api.peer import Role


@dataclass(frozen=True, slots=True)
class Quota:
    """Connections that a pool may hold, altogether and for one uid."""

    total: int
    per_uid: int


ROOMS: Mapping[str, Quota] = MappingProxyType(
    {
        # Pools never lend to each other: whatever one does, another's room stays free.
        # Somebody with user namespaces has thousands of uids, so that `total` is what holds him.
        Role.NONE.value: Quota(64, 16),
        Role.READER.value: Quota(192, 96),
        Role.OPERATOR.value: Quota(192, 96),
        # Apart from the operators, so that a script of root's that leaks connections locks out no
        # person.
        "root": Quota(256, 256),
    }
)
"""At most 704 connections in all, below the 1,024 file descriptors that a process has by default.
"""


def pool_of(uid: int, role: Role) -> str:
    """Name the pool that a peer's connections count in."""
    return "root" if uid == 0 else role.value


@dataclass(slots=True)
class QuotaCounter:
    """Counts who holds how many of something (connections, event streams)."""

    rooms: Mapping[str, Quota] = field(default_factory=lambda: ROOMS)
    turned_away: int = 0
    _totals: Counter[str] = field(default_factory=Counter)
    _by_uid: Counter[tuple[str, int]] = field(default_factory=Counter)

    def enter(self, pool: str, uid: int) -> bool:
        """Take one place; False when there is none."""
        room = self.rooms[pool]
        if self._totals[pool] >= room.total or self._by_uid[pool, uid] >= room.per_uid:
            self.turned_away += 1
            return False
        self._totals[pool] += 1
        self._by_uid[pool, uid] += 1
        return True

    def leave(self, pool: str, uid: int) -> None:
        """Give one place back."""
        self._totals[pool] -= 1
        self._by_uid[pool, uid] -= 1
        if not self._by_uid[pool, uid]:
            del self._by_uid[pool, uid]

    def held(self) -> dict[str, int]:
        """Say how many places each pool holds now."""
        return {pool: self._totals[pool] for pool in self.rooms}
