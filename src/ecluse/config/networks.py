"""Which networks lie in which: a look-up by prefix length, so that thousands are compared without comparing pairs."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ecluse.policy import IPNetwork

T = TypeVar("T")


@dataclass(slots=True)
class NetworkIndex(Generic[T]):
    """Networks of both families, each with something attached."""

    _by_length: dict[tuple[int, int], dict[int, list[tuple[IPNetwork, T]]]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def add(self, network: IPNetwork, item: T) -> None:
        """Remember this network."""
        level = self._by_length[network.version, network.prefixlen]
        level.setdefault(_bits(network, network.prefixlen), []).append((network, item))

    def around(self, network: IPNetwork) -> Iterator[tuple[IPNetwork, T]]:
        """Give every remembered network that contains this one or equals it, the widest first."""
        for version, length in sorted(self._by_length):
            if version == network.version and length <= network.prefixlen:
                yield from self._by_length[version, length].get(_bits(network, length), ())


def _bits(network: IPNetwork, length: int) -> int:
    """Give the first `length` bits of the network's address."""
    return int(network.network_address) >> (network.max_prefixlen - length)
