"""Reads table `netdev ecluse_exit` by netlink: names, digest, counters, hooks, dropped rows."""

import errno
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from ecluse.exit_ports import DroppedRow
from ecluse.kernel import fingerprint as digests
from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import (
    NetlinkSocket,
    attribute,
    attribute_map,
    attributes,
    netfilter_header,
    netfilter_kind,
    number,
    text,
    text_attribute,
)
from ecluse.kernel.read_table import counter_value, element_counter
from ecluse.ports import CounterValue
from ecluse.ruleset.exit_text import DROPPED, LEARNED, MOST_DROPPED
from ecluse.ruleset.exit_values import Standing

TABLE = "ecluse_exit"
NFPROTO_NETDEV, NF_NETDEV_EGRESS = 5, 1
NFNL_SUBSYS_HOOK, NFNL_MSG_HOOK_GET = 12, 0
NFNLA_HOOK_HOOKNUM, NFNLA_HOOK_DEV, NFNLA_HOOK_CHAIN_INFO = 1, 3, 6
NFNLA_HOOK_INFO_DESC, NFNLA_CHAIN_TABLE, NFNLA_CHAIN_NAME = 1, 1, 3
_NO_SUCH_DUMP = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT})


@dataclass(frozen=True, slots=True)
class ExitContents:
    """What the table holds.

    digests: of each chain, its rules, each set, and the elements of sets that nobody changes, by
    kind and name. No packet changes them, nor what the DNS gate learns.
    """

    names: Standing
    digests: dict[tuple[str, str], bytes]
    counters: dict[str, CounterValue]


def _dump(
    netlink: NetlinkSocket, what: int, table: int, *more: bytes
) -> Iterator[dict[int, bytes]]:
    body = netfilter_header(NFPROTO_NETDEV) + text_attribute(table, TABLE) + b"".join(more)
    try:
        for answer in netlink.dump(netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, what), body):
            found = attribute_map(answer, 4)
            if text(found[table]) == TABLE:
                yield found
    except FileNotFoundError:
        return


def exists(netlink: NetlinkSocket) -> bool:
    """Say whether there is such a table."""
    body = netfilter_header(NFPROTO_NETDEV) + text_attribute(nf.NFTA_TABLE_NAME, TABLE)
    try:
        netlink.request(netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, nf.NFT_MSG_GETTABLE), body)
    except FileNotFoundError:
        return False
    return True


def read_names(netlink: NetlinkSocket) -> Standing:
    """Name what the table holds; nothing when there is none."""
    sets = _dump(netlink, nf.NFT_MSG_GETSET, nf.NFTA_SET_TABLE)
    return Standing(
        frozenset(
            text(one[nf.NFTA_CHAIN_NAME])
            for one in _dump(netlink, nf.NFT_MSG_GETCHAIN, nf.NFTA_CHAIN_TABLE)
        ),
        frozenset(
            text(one[nf.NFTA_SET_NAME])
            for one in sets
            if not number(one.get(nf.NFTA_SET_FLAGS, b"")) & nf.NFT_SET_ANONYMOUS
        ),
        frozenset(
            text(one[nf.NFTA_OBJ_NAME])
            for one in _dump(netlink, nf.NFT_MSG_GETOBJ, nf.NFTA_OBJ_TABLE)
        ),
    )


def read_contents(netlink: NetlinkSocket) -> ExitContents:
    """Read the whole table but what packets and the DNS gate change."""
    chains = list(_dump(netlink, nf.NFT_MSG_GETCHAIN, nf.NFTA_CHAIN_TABLE))
    sets = list(_dump(netlink, nf.NFT_MSG_GETSET, nf.NFTA_SET_TABLE))
    rules = list(_dump(netlink, nf.NFT_MSG_GETRULE, nf.NFTA_RULE_TABLE))
    objects = list(_dump(netlink, nf.NFT_MSG_GETOBJ, nf.NFTA_OBJ_TABLE))
    found: dict[tuple[str, str], bytes] = {}
    for one in chains:
        what = digests.join_attributes(one, _CHAIN_HASHED)
        found["chain", text(one[nf.NFTA_CHAIN_NAME])] = hashlib.sha256(what).digest()
    by_chain: dict[str, list[bytes]] = {}
    for one in rules:
        chain = text(one[nf.NFTA_RULE_CHAIN])
        by_chain.setdefault(chain, []).append(attribute(0, digests.stable_rule(one)))
    for name, each in by_chain.items():
        found["rules", name] = hashlib.sha256(b"".join(each)).digest()
    for one in sets:
        name = text(one[nf.NFTA_SET_NAME])
        what = digests.join_attributes(one, digests.SET_HASHED)
        if name not in (*LEARNED, *DROPPED):
            what += _elements_digest(netlink, name)
        found["set", name] = hashlib.sha256(what).digest()
    return ExitContents(
        Standing(
            frozenset(text(one[nf.NFTA_CHAIN_NAME]) for one in chains),
            frozenset(
                text(one[nf.NFTA_SET_NAME])
                for one in sets
                if not number(one.get(nf.NFTA_SET_FLAGS, b"")) & nf.NFT_SET_ANONYMOUS
            ),
            frozenset(text(one[nf.NFTA_OBJ_NAME]) for one in objects),
        ),
        found,
        _counter_values(objects),
    )


def read_counters(netlink: NetlinkSocket) -> dict[str, CounterValue]:
    """Read the counters; none when there is no table."""
    return _counter_values(_dump(netlink, nf.NFT_MSG_GETOBJ, nf.NFTA_OBJ_TABLE))


def _counter_values(objects: Iterable[dict[int, bytes]]) -> dict[str, CounterValue]:
    return {
        text(one[nf.NFTA_OBJ_NAME]): counter_value(one[nf.NFTA_OBJ_DATA])
        for one in objects
        if number(one[nf.NFTA_OBJ_TYPE]) == nf.NFT_OBJECT_COUNTER
    }


_CHAIN_HASHED = (*digests.CHAIN_HASHED, nf.NFTA_CHAIN_POLICY)


def _elements_digest(netlink: NetlinkSocket, name: str) -> bytes:
    """Digest a set's elements in any order; a sort of 100,000 would hold the event loop."""
    whole = 0
    for listed in dump_elements(netlink, name):
        for element in digests.stable_elements(listed):
            whole ^= int.from_bytes(hashlib.sha256(element).digest(), "big")
    return whole.to_bytes(32, "big")


def dump_elements(netlink: NetlinkSocket, name: str) -> Iterator[bytes]:
    """Read the elements of one set as they come, as lists of NFTA_LIST_ELEM."""
    asked = text_attribute(nf.NFTA_SET_ELEM_LIST_SET, name)
    for one in _dump(netlink, nf.NFT_MSG_GETSETELEM, nf.NFTA_SET_ELEM_LIST_TABLE, asked):
        yield one.get(nf.NFTA_SET_ELEM_LIST_ELEMENTS, b"")


def hooked_chains(netlink: NetlinkSocket, devices: tuple[str, ...]) -> dict[str, str] | None:
    """Give the chain of ours that each of these devices really hooks at egress.

    None where the kernel can't say (no nfnetlink_hook).
    """
    found: dict[str, str] = {}
    for device in devices:
        asked = NF_NETDEV_EGRESS.to_bytes(4, "big")
        body = (
            netfilter_header(NFPROTO_NETDEV)
            + attribute(NFNLA_HOOK_HOOKNUM, asked)
            + text_attribute(NFNLA_HOOK_DEV, device)
        )
        try:
            for answer in netlink.dump(netfilter_kind(NFNL_SUBSYS_HOOK, NFNL_MSG_HOOK_GET), body):
                info = attribute_map(attribute_map(answer, 4).get(NFNLA_HOOK_CHAIN_INFO, b""))
                chain = attribute_map(info.get(NFNLA_HOOK_INFO_DESC, b""))
                if text(chain.get(NFNLA_CHAIN_TABLE, b"")) == TABLE:
                    found[device] = text(chain[NFNLA_CHAIN_NAME])
        except OSError as error:
            if error.errno in _NO_SUCH_DUMP:
                return None
            if error.errno not in {errno.ENODEV, errno.ENOENT}:
                raise
    return found


def read_dropped(netlink: NetlinkSocket) -> tuple[tuple[DroppedRow, ...], bool]:
    """Read what was dropped, and whether one of the sets has no room."""
    rows: list[DroppedRow] = []
    full = False
    for name in DROPPED:
        found = [
            _dropped_row(attribute_map(one))
            for listed in dump_elements(netlink, name)
            for _, one in attributes(listed)
        ]
        full = full or len(found) >= MOST_DROPPED
        rows += found
    return tuple(rows), full


def _dropped_row(element: dict[int, bytes]) -> DroppedRow:
    """Read a row: addresses of 4 or 16 bytes, protocol, port; or a MAC and an ethertype (12 bytes).

    Each field is padded to 4 bytes.
    """
    key = attribute_map(element[nf.NFTA_SET_ELEM_KEY])[nf.NFTA_DATA_VALUE]
    packets = element_counter(element).packets
    if len(key) == _FRAME_KEY:
        return DroppedRow(key[:6].hex(":"), ethertype=number(key[8:10]), packets=packets)
    width = (len(key) - 8) // 2
    return DroppedRow(
        str(ip_address(key[:width])),
        str(ip_address(key[width : 2 * width])),
        key[2 * width],
        number(key[2 * width + 4 : 2 * width + 6]),
        packets=packets,
    )


_FRAME_KEY = 12
