"""What the DNS gate learned, in the kernel: addresses put into its sets, and read from them, by raw
netlink.

A living key is never deleted. Where one transaction exchanges an element for another of the same
key, a packet may find neither (Debian 12's Linux 6.1; upstream b2f742c). Since Linux 6.12 an add
gives an element that is there its new time. Before, it keeps the old one: there it is left alone
while half of its time is before it, and every packet that it lets through gives it the whole anew.
Source: NFTA_SET_ELEM_* in linux/netfilter/nf_tables.h.
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from ecluse.kernel import read_table
from ecluse.kernel.bulk_elements import DELSETELEM, LIST_ELEMENT, NEWSETELEM
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
from ecluse.ruleset.dns_redirect import KEPT_SECONDS
from ecluse.ruleset.table_names import is_learned_set

SET_HANDLE = 16
_WIDTHS = (4, 16)
ELEMENT_FLAGS, CATCH_ALL = 3, 2
"""NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_CATCHALL: an element that stands for every address (nft's `*`).
"""
ENDLESS = 1 << 31
"""Seconds that an element without a time-out has left."""


@dataclass(frozen=True, slots=True)
class SetElement:
    """An address that a set shall hold, for so many seconds from now (None: as long as the set
    says).
    """

    set: str
    address: IPAddress
    seconds: int | None = None


def _an_add_renews(release: str) -> bool:
    """Say whether an add gives an element that is there its new time: since Linux 6.12."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 12)


AN_ADD_RENEWS = _an_add_renews(os.uname().release)


def put(netlink: Netlink, elements: Iterable[SetElement]) -> None:
    """Put addresses into their sets, each with its whole time before it; whole or not at all.

    OSError when the kernel refuses.

    Before Linux 6.12 one that is there has half of its time at least, and an hour at most.
    """
    every = list(elements)
    if not every:
        return
    netlink.transaction(read_table.NFNL_SUBSYS_NFTABLES, [_added(one) for one in every])
    if AN_ADD_RENEWS:
        return
    old = [one for one in every if not _has_time(one, _left_of(netlink, one))]
    if old:
        messages = [
            r for one in old for r in (*_in_and_out(one.set, _key(one.address)), _added(one))
        ]
        netlink.transaction(read_table.NFNL_SUBSYS_NFTABLES, messages)


def _has_time(one: SetElement, seconds: int) -> bool:
    return (one.seconds or KEPT_SECONDS) // 2 <= seconds <= KEPT_SECONDS


def _left_of(netlink: Netlink, one: SetElement) -> int:
    """Read how many whole seconds an element has left; 0 when it is not there."""
    try:
        answer = netlink.request(
            *_request(read_table.GETSETELEM, 0, one.set, _key(one.address))[::2]
        )
    except FileNotFoundError:
        return 0
    listed = fields(answer or b"", 4).get(read_table.ELEMENTS, b"")
    return next((_seconds(fields(element)) for _, element in attributes(listed)), 0)


def take_out(netlink: Netlink, name: str, elements: Iterable[IPAddress | None]) -> None:
    """Take addresses out of a set (None: the element for every address); one transaction.

    OSError when the kernel refuses.

    Each is added before it is deleted: one that is over meanwhile would fail the transaction.
    """
    every = list(elements)
    if every:
        messages = [request for one in every for request in _in_and_out(name, _key(one))]
        netlink.transaction(read_table.NFNL_SUBSYS_NFTABLES, messages)


def _added(one: SetElement) -> Request:
    time = struct.pack("!Q", (one.seconds or KEPT_SECONDS) * 1000)
    times = attribute(read_table.ELEMENT_TIMEOUT, time) + attribute(
        read_table.ELEMENT_EXPIRATION, time
    )
    return _request(NEWSETELEM, NLM_F_CREATE, one.set, _key(one.address) + times)


def _in_and_out(name: str, key: bytes) -> Iterator[Request]:
    yield _request(NEWSETELEM, NLM_F_CREATE, name, key)
    yield _request(DELSETELEM, 0, name, key)


def _key(address: IPAddress | None) -> bytes:
    if address is None:
        return attribute(ELEMENT_FLAGS, struct.pack("!I", CATCH_ALL))
    return attribute(
        read_table.ELEMENT_KEY | NLA_F_NESTED, attribute(read_table.DATA_VALUE, address.packed)
    )


def _request(message: int, flags: int, name: str, element: bytes) -> Request:
    return (
        netfilter_kind(read_table.NFNL_SUBSYS_NFTABLES, message),
        flags,
        netfilter_header(read_table.NFPROTO_INET)
        + text_attribute(read_table.ELEMENTS_TABLE, read_table.TABLE)
        + text_attribute(read_table.ELEMENTS_SET, name)
        + attribute(
            read_table.ELEMENTS | NLA_F_NESTED, attribute(LIST_ELEMENT | NLA_F_NESTED, element)
        ),
    )


def half_over(
    netlink: Netlink, used: Mapping[str, Iterable[IPAddress]]
) -> dict[str, frozenset[IPAddress]]:
    """Give those of these addresses, by set, half of whose time is over; one that is in no set is
    none of them.
    """
    found: dict[str, frozenset[IPAddress]] = {}
    for name, addresses in used.items():
        there = left(netlink, name)
        old = frozenset(
            one for one in addresses if there.get(one, KEPT_SECONDS) < KEPT_SECONDS // 2
        )
        if old:
            found[name] = old
    return found


def handles(netlink: Netlink) -> dict[str, int]:
    """Give the kernel's handle of each set that the gate fills: another one tells that the set was
    made anew, and is empty.
    """
    return {
        text(one[read_table.SET_NAME]): number(one.get(SET_HANDLE, b""))
        for one in read_table.sets(netlink)
        if is_learned_set(text(one[read_table.SET_NAME]))
    }


def left(netlink: Netlink, name: str) -> Mapping[IPAddress, int]:
    """Read a set: each address, and the whole seconds that it has left."""
    return contents(netlink, name)[0]


def contents(netlink: Netlink, name: str) -> tuple[Mapping[IPAddress, int], bool]:
    """Read a set: each address with the whole seconds that it has left, and whether it has an
    element for every address.

    What is no address is passed over: the set is not ours then, and the daemon puts its own in its
    place.
    """
    found: dict[IPAddress, int] = {}
    everything = False
    for listed in read_table.element_lists(netlink, name):
        for _, one in attributes(listed):
            element = fields(one)
            if number(element.get(ELEMENT_FLAGS, b"")) & CATCH_ALL:
                everything = True
                continue
            key = fields(element[read_table.ELEMENT_KEY])[read_table.DATA_VALUE]
            if len(key) in _WIDTHS:
                found[ip_address(key)] = _seconds(element)
    return found, everything


def _seconds(element: Mapping[int, bytes]) -> int:
    end = element.get(read_table.ELEMENT_EXPIRATION)
    return ENDLESS if end is None else number(end) // 1000


def learned(netlink: Netlink) -> dict[str, frozenset[int]]:
    """Read every set that the gate fills: its addresses as numbers."""
    return {name: frozenset(map(int, left(netlink, name))) for name in handles(netlink)}
