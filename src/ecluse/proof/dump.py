"""A table as the kernel gives it: netlink messages, unread.

Not by `nft -j`: that leaves out what it holds to be understood, and is libnftables' word, not the
kernel's. Here stands what the kernel's interpreter runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    DumpInterruptedError,
    NetlinkSocket,
    attribute_map,
    netfilter_header,
    netfilter_kind,
    number,
    retry_interrupted,
    text,
    text_attribute,
)

_NFTABLES, _INET = 10, 1
_CHAINS, _RULES, _SETS, _ELEMENTS, _GENERATION, _TABLE = 4, 7, 10, 13, 16, 1
"""NFT_MSG_GET* (linux/netfilter/nf_tables.h). In every answer attribute 1 names the table, but for
chains and tables."""

Attributes = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Dump:
    """One table: attributes of each chain, rule and set, and lists of elements by set."""

    flags: int
    chains: tuple[Attributes, ...]
    rules: tuple[Attributes, ...]
    sets: tuple[Attributes, ...]
    elements: dict[str, tuple[bytes, ...]]


def dump_table(name: str, family: int = _INET) -> Dump:
    """Read a table of this thread's network namespace as of one transaction.

    Raises:
        OSError: There is no such table (FileNotFoundError), or it cannot be read.
    """
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        return retry_interrupted(lambda: _dump(netlink, name, family))


def _dump(netlink: NetlinkSocket, name: str, family: int) -> Dump:
    def ask(what: int, *more: bytes) -> Iterator[Attributes]:
        body = netfilter_header(family) + text_attribute(1, name) + b"".join(more)
        for answer in netlink.dump(netfilter_kind(_NFTABLES, what), body):
            found = attribute_map(answer, 4)
            if text(found[1]) == name:
                yield found

    def one(what: int, *more: bytes) -> Attributes:
        body = netfilter_header(family) + b"".join(more)
        return attribute_map(netlink.request(netfilter_kind(_NFTABLES, what), body) or b"", 4)

    before = one(_GENERATION)[1]
    table = one(_TABLE, text_attribute(1, name))
    sets = tuple(ask(_SETS))
    dump = Dump(
        number(table.get(2, b"")),
        tuple(ask(_CHAINS)),
        tuple(ask(_RULES)),
        sets,
        {
            set_name: tuple(a.get(3, b"") for a in ask(_ELEMENTS, text_attribute(2, set_name)))
            for set_name in (text(each[2]) for each in sets)
        },
    )
    if one(_GENERATION)[1] != before:
        raise DumpInterruptedError
    return dump
