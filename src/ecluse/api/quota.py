"""How many connections each kind of peer may have, so that nobody can lock an operator out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ecluse.api.peer import Role


@dataclass(frozen=True, slots=True)
class Quota:
    """Connections that a pool may have: in total, and for one uid."""

    total: int
    per_uid: int


CONNECTION_QUOTAS: Mapping[str, Quota] = MappingProxyType(
    {
        # Pools never lend to each other: a full one takes no place from another.
        # One person with user namespaces has thousands of uids, so `total` is the real limit.
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
    """Counts the places that are taken (connections, event streams), and those that were denied."""

    quotas: Mapping[str, Quota] = field(default_factory=lambda: CONNECTION_QUOTAS)
    turned_away: int = 0
    _totals: Counter[str] = field(default_factory=Counter)
    _by_uid: Counter[tuple[str, int]] = field(default_factory=Counter)

    def enter(self, pool: str, uid: int) -> bool:
        """Take one place; False when there is none."""
        quota = self.quotas[pool]
        if self._totals[pool] >= quota.total or self._by_uid[pool, uid] >= quota.per_uid:
            self.turned_away += 1
            return False
        self._totals[pool] += 1
        self._by_uid[pool, uid] += 1
        return True

    def leave(self, pool: str, uid: int) -> None:
        """Free one place."""
        self._totals[pool] -= 1
        self._by_uid[pool, uid] -= 1
        if not self._by_uid[pool, uid]:
            del self._by_uid[pool, uid]

    def taken(self) -> dict[str, int]:
        """Count the places that each pool has taken now."""
        return {pool: self._totals[pool] for pool in self.quotas}
