"""Adds, deletes and reads elements of the sets that the DNS proxy fills, by netlink.

An element in use is never deleted: where one transaction exchanges an element for another of the
same key, a packet may find neither (Debian 12's Linux 6.1; upstream b2f742c). Since Linux 6.12 an
add gives an element that exists its new time. Before, the element keeps its old time: it is left
alone while at least half of it remains, and every packet that it lets through restarts it.
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel import read_table
from ecluse.kernel.exit_learned import add_learned, delete_learned
from ecluse.kernel.flowtable import commit_and_end
from ecluse.kernel.netlink import (
    NLM_F_CREATE,
    NetlinkSocket,
    Request,
    attribute,
    attribute_map,
    attributes,
    number,
    text,
)
from ecluse.kernel.nft_messages import elements_request, nested
from ecluse.policy import IPAddress
from ecluse.ruleset.dns_redirect import KEPT_SECONDS
from ecluse.ruleset.table_names import is_learned_set, learned_set

_WIDTHS = (4, 16)
"""Bytes of an address."""
_EVERY = frozenset({learned_set("4"), learned_set("6")})
ENDLESS = 1 << 31
"""Seconds that an element without a time-out counts as having left."""


@dataclass(frozen=True, slots=True)
class SetElement:
    """An address for a set.

    seconds: its time from now; None: the set's own time-out.
    """

    set: str
    address: IPAddress
    seconds: int | None = None


def _add_renews(release: str) -> bool:
    """Say whether an add restarts the time of an element that exists: since Linux 6.12."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 12)


ADD_RENEWS = _add_renews(os.uname().release)


def add_elements(netlink: NetlinkSocket, elements: Iterable[SetElement]) -> None:
    """Add addresses to their sets, each with its whole time; one transaction.

    Before Linux 6.12 an element that exists keeps at least half of its time, at most an hour; one
    with less is deleted and added in a second transaction.

    Raises:
        OSError: the kernel refused; nothing was added.
    """
    every = list(elements)
    if not every:
        return
    # The second lock first: an address that the gate keeps, it lets out. One that was made in
    # between is told again.
    new = [one.address for one in every if one.set in _EVERY]
    is_locked = add_learned(netlink, new)
    netlink.transaction(nf.NFNL_SUBSYS_NFTABLES, [_add_request(one) for one in every])
    if not is_locked:
        add_learned(netlink, new)
    if ADD_RENEWS:
        return
    old = [one for one in every if not _has_time(one, _seconds_left_of(netlink, one))]
    if old:
        messages: list[Request] = []
        for one in old:
            messages += (*_add_and_delete(one.set, _key(one.address)), _add_request(one))
        netlink.transaction(nf.NFNL_SUBSYS_NFTABLES, messages)


def _has_time(one: SetElement, seconds: int) -> bool:
    return (one.seconds or KEPT_SECONDS) // 2 <= seconds <= KEPT_SECONDS


def _seconds_left_of(netlink: NetlinkSocket, one: SetElement) -> int:
    """Read how many whole seconds an element has left; 0 when it is not there."""
    kind, _, body = _request(nf.NFT_MSG_GETSETELEM, 0, one.set, _key(one.address))
    try:
        answer = netlink.request(kind, body)
    except FileNotFoundError:
        return 0
    listed = attribute_map(answer or b"", 4).get(nf.NFTA_SET_ELEM_LIST_ELEMENTS, b"")
    return next((_seconds(attribute_map(element)) for _, element in attributes(listed)), 0)


def delete_elements(
    netlink: NetlinkSocket, name: str, elements: Iterable[IPAddress | None]
) -> None:
    """Delete addresses from a set; one transaction. OSError when the kernel refuses.

    elements: None stands for the element for every address (nft's `*`).
    """
    every = list(elements)
    if every:
        messages = [request for one in every for request in _add_and_delete(name, _key(one))]
        # A flow in the flowtable asks no set: it is judged again by the chains.
        commit_and_end(partial(netlink.transaction, nf.NFNL_SUBSYS_NFTABLES), messages)
        if name in _EVERY:
            delete_learned(netlink, [one for one in every if one is not None])


def _add_request(one: SetElement) -> Request:
    time = struct.pack("!Q", (one.seconds or KEPT_SECONDS) * 1000)
    times = attribute(nf.NFTA_SET_ELEM_TIMEOUT, time) + attribute(nf.NFTA_SET_ELEM_EXPIRATION, time)
    return _request(nf.NFT_MSG_NEWSETELEM, NLM_F_CREATE, one.set, _key(one.address) + times)


def _add_and_delete(name: str, key: bytes) -> Iterator[Request]:
    """Add a key, then delete it: the deletion of one that timed out fails the transaction."""
    yield _request(nf.NFT_MSG_NEWSETELEM, NLM_F_CREATE, name, key)
    yield _request(nf.NFT_MSG_DELSETELEM, 0, name, key)


def _key(address: IPAddress | None) -> bytes:
    if address is None:
        return attribute(nf.NFTA_SET_ELEM_FLAGS, struct.pack("!I", nf.NFT_SET_ELEM_CATCHALL))
    return nested(nf.NFTA_SET_ELEM_KEY, attribute(nf.NFTA_DATA_VALUE, address.packed))


def _request(message: int, flags: int, name: str, element: bytes) -> Request:
    return elements_request(message, flags, name, nested(nf.NFTA_LIST_ELEM, element))


def half_expired(
    netlink: NetlinkSocket, used: Mapping[str, Iterable[IPAddress]]
) -> dict[str, frozenset[IPAddress]]:
    """Give those of these addresses, by set, half of whose time is over.

    One that is not in its set is none of them.
    """
    found: dict[str, frozenset[IPAddress]] = {}
    for name, addresses in used.items():
        left = seconds_left(netlink, name)
        old = frozenset(one for one in addresses if left.get(one, KEPT_SECONDS) < KEPT_SECONDS // 2)
        if old:
            found[name] = old
    return found


def set_handles(netlink: NetlinkSocket) -> dict[str, int]:
    """Give the kernel's handle of each set that the DNS proxy fills.

    Another handle than before tells that the set was made again, and is empty.
    """
    return {
        text(one[nf.NFTA_SET_NAME]): number(one.get(nf.NFTA_SET_HANDLE, b""))
        for one in read_table.dump_sets(netlink)
        if is_learned_set(text(one[nf.NFTA_SET_NAME]))
    }


def seconds_left(netlink: NetlinkSocket, name: str) -> Mapping[IPAddress, int]:
    """Read a set: each address, and the whole seconds that it has left."""
    return set_contents(netlink, name)[0]


def set_contents(netlink: NetlinkSocket, name: str) -> tuple[Mapping[IPAddress, int], bool]:
    """Read a set: the seconds left of each address, and whether it has one for every address.

    An element that is no address is passed over: the set is not ours then, and the daemon puts its
    own in its place.
    """
    found: dict[IPAddress, int] = {}
    catch_all = False
    for listed in read_table.dump_element_lists(netlink, name):
        for _, one in attributes(listed):
            element = attribute_map(one)
            if number(element.get(nf.NFTA_SET_ELEM_FLAGS, b"")) & nf.NFT_SET_ELEM_CATCHALL:
                catch_all = True
                continue
            key = attribute_map(element[nf.NFTA_SET_ELEM_KEY])[nf.NFTA_DATA_VALUE]
            if len(key) in _WIDTHS:
                found[ip_address(key)] = _seconds(element)
    return found, catch_all


def _seconds(element: Mapping[int, bytes]) -> int:
    milliseconds = element.get(nf.NFTA_SET_ELEM_EXPIRATION)
    return ENDLESS if milliseconds is None else number(milliseconds) // 1000


def learned_addresses(netlink: NetlinkSocket) -> dict[str, frozenset[int]]:
    """Read every set that the DNS proxy fills: its addresses as numbers."""
    return {name: frozenset(map(int, seconds_left(netlink, name))) for name in set_handles(netlink)}
