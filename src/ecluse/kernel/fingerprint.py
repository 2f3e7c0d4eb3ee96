"""Digests of table `inet ecluse`, by part; no packet changes them, any other change does.

Hashes an allowlist of netlink attributes, so an attribute that a newer kernel adds cannot change
the digest.
"""

import errno
import hashlib
import struct
from collections.abc import Iterable, Iterator

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel import read_table
from ecluse.kernel.netlink import NetlinkSocket, attribute, attributes, number, text
from ecluse.ruleset.table_names import is_switched

# The attributes that are hashed of each kind of thing: never handles, use counts or packets.
# Comments are in `..._USERDATA`.
TABLE_HASHED = (nf.NFTA_TABLE_FLAGS,)  # dormant among them
CHAIN_HASHED = (  # not the policy: it goes with the levels, and is read by itself
    nf.NFTA_CHAIN_NAME,
    nf.NFTA_CHAIN_HOOK,
    nf.NFTA_CHAIN_TYPE,
    nf.NFTA_CHAIN_FLAGS,
    nf.NFTA_CHAIN_USERDATA,
)
SET_HASHED = (
    nf.NFTA_SET_NAME,
    nf.NFTA_SET_FLAGS,
    nf.NFTA_SET_KEY_TYPE,
    nf.NFTA_SET_KEY_LEN,
    nf.NFTA_SET_DATA_TYPE,
    nf.NFTA_SET_DATA_LEN,
    nf.NFTA_SET_POLICY,
    nf.NFTA_SET_DESC,
    nf.NFTA_SET_TIMEOUT,
    nf.NFTA_SET_GC_INTERVAL,
    nf.NFTA_SET_USERDATA,
    nf.NFTA_SET_OBJ_TYPE,
    nf.NFTA_SET_EXPR,
    nf.NFTA_SET_EXPRESSIONS,
)
OBJECT_HASHED = (nf.NFTA_OBJ_NAME, nf.NFTA_OBJ_TYPE, nf.NFTA_OBJ_USERDATA)
FLOWTABLE_HASHED = (nf.NFTA_FLOWTABLE_NAME, nf.NFTA_FLOWTABLE_HOOK, nf.NFTA_FLOWTABLE_FLAGS)
# Packets change the data of these statements: of them only the name is hashed.
MOVING_EXPRESSIONS = frozenset({b"counter\0", b"last\0", b"quota\0"})
MOVING_OF_ELEMENT = frozenset(
    {nf.NFTA_SET_ELEM_EXPIRATION, nf.NFTA_SET_ELEM_EXPR, nf.NFTA_SET_ELEM_EXPRESSIONS}
)

_LENGTH = struct.Struct("=H")


def fingerprint(netlink: NetlinkSocket, only: Iterable[str] | None = None) -> dict[str, str]:
    """Digest the table: the elements of each set under its name, the rest under the empty name.

    Empty when there is no table. Costs 1 µs an element. An element that expires by its own time-out
    changes the digest, as it changes which packets are kept.

    only: read the elements of these sets, and nothing else.
    """
    if only is not None:
        wanted = set(only)
        return {
            text(one[nf.NFTA_SET_NAME]): _elements_digest(netlink, one)
            for one in read_table.dump_sets(netlink)
            if text(one[nf.NFTA_SET_NAME]) in wanted
        }
    table = read_table.table_attributes(netlink)
    if table is None:
        return {}
    sets = read_table.dump_sets(netlink)
    parts = [
        *_part_digests("table", [table], TABLE_HASHED),
        *_part_digests("chain", read_table.dump_chains(netlink), CHAIN_HASHED),
        *_part_digests("set", sets, SET_HASHED),
        *_part_digests("object", read_table.dump_objects(netlink), OBJECT_HASHED),
        *_part_digests("flowtable", read_table.dump_flowtables(netlink), FLOWTABLE_HASHED),
        *_rule_digests(netlink),
    ]
    found = {
        text(one[nf.NFTA_SET_NAME]): _elements_digest(netlink, one)
        for one in sets
        if _is_static(one)
    }
    return {"": "sha256:" + hashlib.sha256(b"".join(sorted(parts))).hexdigest(), **found}


def _part_digests(
    kind: str, things: Iterable[dict[int, bytes]], hashed: Iterable[int]
) -> Iterator[bytes]:
    for one in things:
        yield _part_digest(kind, join_attributes(one, hashed))


def _part_digest(kind: str, content: bytes) -> bytes:
    """Digest one thing. The length is fixed, so that parts cannot run into each other."""
    return hashlib.sha256(kind.encode() + b"\0" + content).digest()


def join_attributes(found: dict[int, bytes], kinds: Iterable[int]) -> bytes:
    """Put the attributes of these kinds back to back, in the order of `kinds`."""
    return b"".join(attribute(kind, found[kind]) for kind in kinds if kind in found)


def _is_static(one: dict[int, bytes]) -> bool:
    """Say whether packets do not fill this set (NFT_SET_EVAL, `flags dynamic`)."""
    return not number(one.get(nf.NFTA_SET_FLAGS, b"")) & nf.NFT_SET_EVAL


def _rule_digests(netlink: NetlinkSocket) -> Iterator[bytes]:
    """Digest each chain's rules in their order."""
    by_chain: dict[str, list[bytes]] = {}
    for found in read_table.dump_ours(netlink, nf.NFT_MSG_GETRULE, nf.NFTA_RULE_TABLE):
        chain = text(found[nf.NFTA_RULE_CHAIN])
        if not is_switched(chain):
            by_chain.setdefault(chain, []).append(attribute(0, stable_rule(found)))
    for chain, rules in by_chain.items():
        yield _part_digest("rules", chain.encode() + b"\0" + b"".join(rules))


def stable_rule(rule: dict[int, bytes]) -> bytes:
    """Give a rule's statements and comment without what packets move in them."""
    expressions = []
    for _, expression in attributes(rule.get(nf.NFTA_RULE_EXPRESSIONS, b"")):
        name = dict(attributes(expression))[nf.NFTA_EXPR_NAME]
        expressions.append(attribute(1, name if name in MOVING_EXPRESSIONS else expression))
    return b"".join(expressions) + attribute(
        nf.NFTA_RULE_USERDATA, rule.get(nf.NFTA_RULE_USERDATA, b"")
    )


def _elements_digest(netlink: NetlinkSocket, one: dict[int, bytes]) -> str:
    """Digest a set's elements: their number and the sum of their hashes, in any order.

    Python's own hash of bytes (SipHash, with a key of this process) reads 100,000 elements
    unnoticed. Sorting them would hold the interpreter, and so the event loop, for 30 ms.
    """
    walk = stable_elements if _may_move(one) else split_elements
    count = total = 0
    for listed in read_table.dump_element_lists(netlink, text(one[nf.NFTA_SET_NAME])):
        for element in walk(listed):
            count += 1
            total += hash(element)
    return f"{count}:{total}"


def _may_move(one: dict[int, bytes]) -> bool:
    """Say whether packets or time change this set's elements: they have time-outs or statements.

    None of ours is so that packets do not fill. An element with a counter in a set without one is
    not ours, and moves the digest with each packet.
    """
    return bool(number(one.get(nf.NFTA_SET_FLAGS, b"")) & nf.NFT_SET_TIMEOUT) or any(
        kind in one for kind in (nf.NFTA_SET_TIMEOUT, nf.NFTA_SET_EXPR, nf.NFTA_SET_EXPRESSIONS)
    )


def split_elements(listed: bytes) -> Iterator[bytes]:
    """Give each element of a list as bytes, its length first.

    The hot loop: nothing in it but the length.
    """
    unpack = _LENGTH.unpack_from
    start, end = 0, len(listed)
    while start < end:
        length = unpack(listed, start)[0]
        if length < 4:
            raise OSError(errno.EBADMSG, "the kernel sent an element shorter than its header")
        yield listed[start : start + length]
        start += (length + 3) & ~3


def stable_elements(listed: bytes) -> Iterator[bytes]:
    """Give each element of a list without what moves: its time left, its counters."""
    for element in split_elements(listed):
        still = [
            attribute(kind, payload)
            for kind, payload in attributes(element, 4)
            if kind not in MOVING_OF_ELEMENT
        ]
        yield b"".join(still)
