"""Find the networks that contain a network, by prefix length.

Thousands of networks are compared so without comparing pairs.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Generic, TypeVar

from ecluse.policy.values import IPNetwork

T = TypeVar("T")


@dataclass(slots=True)
class NetworkIndex(Generic[T]):
    """Networks of both families, each with something attached."""

    # By family, the widest first: length, bits to shift an address by, and what stands at the
    # address's first bits.
    _levels: dict[int, list[tuple[int, int, dict[int, list[tuple[IPNetwork, T]]]]]] = field(
        default_factory=lambda: {4: [], 6: []}
    )

    def add(self, network: IPNetwork, item: T) -> None:
        """Add a network."""
        length, shift = network.prefixlen, network.max_prefixlen - network.prefixlen
        levels = self._levels[network.version]
        at = bisect_left(levels, length, key=itemgetter(0))
        if at == len(levels) or levels[at][0] != length:
            levels.insert(at, (length, shift, {}))
        levels[at][2].setdefault(int(network.network_address) >> shift, []).append((network, item))

    def containing(self, network: IPNetwork) -> Iterator[tuple[IPNetwork, T]]:
        """Give the networks in the index that contain or equal this one, the widest first."""
        first, limit = int(network.network_address), network.prefixlen
        for length, shift, found in self._levels[network.version]:
            if length > limit:
                break
            yield from found.get(first >> shift, ())
