"""The second lock's copy of what the DNS gate learned, by netlink. Each call is one transaction.

Elements there have no time-outs: packets renew those of `inet ecluse` only. An address comes into
the lock before it comes into the gate, and leaves it after.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import (
    NLM_F_CREATE,
    NetlinkSocket,
    Request,
    attribute,
    attribute_map,
    attributes,
    netfilter_header,
    netfilter_kind,
    text_attribute,
)
from ecluse.kernel.nft_messages import nested
from ecluse.kernel.read_exit_table import NFPROTO_NETDEV, TABLE, dump_elements
from ecluse.kernel.read_table import dump_element_lists
from ecluse.policy import IPAddress
from ecluse.ruleset.exit_text import LEARNED
from ecluse.ruleset.table_names import learned_set

_PIECE = 1000


def add_learned(netlink: NetlinkSocket, addresses: Iterable[IPAddress]) -> bool:
    """Let out what goes to these addresses; False: no lock stands that learns. OSError."""
    wanted = list(addresses)
    if not wanted or not _learns(netlink):
        return False
    try:
        for start in range(0, len(wanted), _PIECE):
            piece = wanted[start : start + _PIECE]
            requests = [_request(nf.NFT_MSG_NEWSETELEM, NLM_F_CREATE, one) for one in piece]
            netlink.transaction(nf.NFNL_SUBSYS_NFTABLES, requests)
    except FileNotFoundError:
        return False
    return True


def _learns(netlink: NetlinkSocket) -> bool:
    """Say whether there is a lock that learns.

    Asked before each transaction: one that fails locks nf_tables for some 20 ms (nf_tables_abort).
    """
    names = text_attribute(nf.NFTA_SET_TABLE, TABLE) + text_attribute(nf.NFTA_SET_NAME, LEARNED[0])
    kind = netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, nf.NFT_MSG_GETSET)
    try:
        netlink.request(kind, netfilter_header(NFPROTO_NETDEV) + names)
    except FileNotFoundError:
        return False
    return True


def delete_learned(netlink: NetlinkSocket, addresses: Iterable[IPAddress]) -> None:
    """Let nothing out to these addresses; one that is not there is no error. OSError."""
    there = frozenset(learned_here(netlink))
    gone = [one for one in addresses if one in there]
    try:
        for start in range(0, len(gone), _PIECE):
            piece = gone[start : start + _PIECE]
            requests = [_request(nf.NFT_MSG_DELSETELEM, 0, one) for one in piece]
            netlink.transaction(nf.NFNL_SUBSYS_NFTABLES, requests)
    except FileNotFoundError:
        return


def reconcile_learned(netlink: NetlinkSocket) -> None:
    """Make the copy equal to what the gate holds now. OSError.

    Right after the lock was made: what was learned meanwhile. Now and then: what timed out.
    """
    if not _learns(netlink):
        return
    gate = {
        ip_address(key)
        for digit in ("4", "6")
        for key in _keys(dump_element_lists(netlink, learned_set(digit)))
    }
    here = frozenset(learned_here(netlink))
    add_learned(netlink, sorted(gate - here, key=_packed))
    delete_learned(netlink, sorted(here - gate, key=_packed))


def learned_here(netlink: NetlinkSocket) -> Iterator[IPAddress]:
    """Give the addresses in the lock's sets; none when it has no such sets."""
    for name in LEARNED:
        yield from map(ip_address, _keys(dump_elements(netlink, name)))


def _keys(lists: Iterable[bytes]) -> Iterator[bytes]:
    for listed in lists:
        for _, one in attributes(listed):
            element = attribute_map(one)
            if nf.NFTA_SET_ELEM_KEY in element:
                yield attribute_map(element[nf.NFTA_SET_ELEM_KEY])[nf.NFTA_DATA_VALUE]


def _packed(address: IPAddress) -> bytes:
    return address.packed


def _request(message: int, flags: int, address: IPAddress) -> Request:
    key = nested(nf.NFTA_SET_ELEM_KEY, attribute(nf.NFTA_DATA_VALUE, address.packed))
    body = (
        text_attribute(nf.NFTA_SET_ELEM_LIST_TABLE, TABLE)
        + text_attribute(nf.NFTA_SET_ELEM_LIST_SET, LEARNED[address.version == 6])
        + nested(nf.NFTA_SET_ELEM_LIST_ELEMENTS, nested(nf.NFTA_LIST_ELEM, key))
    )
    kind = netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, message)
    return kind, flags, netfilter_header(NFPROTO_NETDEV) + body
