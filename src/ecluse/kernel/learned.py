"""What the DNS gate learned, in the kernel: addresses put into its sets, and read from them, by raw netlink.

An element that is there already keeps its old time-out when it is added again. So each is added, deleted and added in one
transaction: it is there before and after for every packet, with its whole time before it. Source: NFTA_SET_ELEM_* in linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from ecluse.kernel import tables
from ecluse.kernel.elements import DELSETELEM, LIST_ELEMENT, NEWSETELEM
from ecluse.kernel.netlink import (
    NLA_F_NESTED,
    NLM_F_CREATE,
    Netlink,
    Request,
    attribute,
    attributes,
    fields,
    netfilter_header,
    netfilter_kind,
    number,
    text,
    text_attribute,
)
from ecluse.policy import IPAddress
from ecluse.ruleset.dnsgate import KEPT_SECONDS
from ecluse.ruleset.names import is_learned

SET_HANDLE = 16


@dataclass(frozen=True, slots=True)
class Answered:
    """An address that a set shall hold, for so many seconds from now (None: as long as the set says)."""

    set: str
    address: IPAddress
    seconds: int | None = None


def put(netlink: Netlink, elements: Iterable[Answered]) -> None:
    """Put addresses into their sets, each with its whole time before it; one transaction. OSError when the kernel refuses."""
    every = list(elements)
    if every:
        netlink.transaction(tables.NFNL_SUBSYS_NFTABLES, [r for one in every for r in _requests(one)])


def _requests(one: Answered) -> Iterator[Request]:
    key = attribute(tables.ELEMENT_KEY | NLA_F_NESTED, attribute(tables.DATA_VALUE, one.address.packed))
    time = attribute(tables.ELEMENT_TIMEOUT, struct.pack("!Q", one.seconds * 1000)) if one.seconds else b""
    for message, flags, body in (
        (NEWSETELEM, NLM_F_CREATE, key + time),
        (DELSETELEM, 0, key),
        (NEWSETELEM, NLM_F_CREATE, key + time),
    ):
        yield (
            netfilter_kind(tables.NFNL_SUBSYS_NFTABLES, message),
            flags,
            netfilter_header(tables.NFPROTO_INET)
            + text_attribute(tables.ELEMENTS_TABLE, tables.TABLE)
            + text_attribute(tables.ELEMENTS_SET, one.set)
            + attribute(tables.ELEMENTS | NLA_F_NESTED, attribute(LIST_ELEMENT | NLA_F_NESTED, body)),
        )


def hold(netlink: Netlink, used: Mapping[str, Iterable[IPAddress]]) -> None:
    """Give addresses their whole time again, by set, where half of it is over; one that is in no set stays out. OSError."""
    for name, addresses in used.items():
        there = left(netlink, name)
        old = [one for one in addresses if there.get(one, KEPT_SECONDS) < KEPT_SECONDS // 2]
        put(netlink, [Answered(name, one) for one in old])


def handles(netlink: Netlink) -> dict[str, int]:
    """Give the kernel's handle of each set that the gate fills: another one tells that the set was made anew, and is empty."""
    return {
        text(one[tables.SET_NAME]): number(one.get(SET_HANDLE, b""))
        for one in tables.sets(netlink)
        if is_learned(text(one[tables.SET_NAME]))
    }


def left(netlink: Netlink, name: str) -> Mapping[IPAddress, int]:
    """Read a set: each address, and the whole seconds that it has left."""
    found: dict[IPAddress, int] = {}
    for listed in tables.element_lists(netlink, name):
        for _, one in attributes(listed):
            element = fields(one)
            address = ip_address(fields(element[tables.ELEMENT_KEY])[tables.DATA_VALUE])
            found[address] = number(element.get(tables.ELEMENT_EXPIRATION, b"")) // 1000
    return found


def learned(netlink: Netlink) -> dict[str, frozenset[int]]:
    """Read every set that the gate fills: its addresses as numbers."""
    return {name: frozenset(map(int, left(netlink, name))) for name in handles(netlink)}
