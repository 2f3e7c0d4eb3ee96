"""Digests of table `inet ecluse`, by part: all that a person or program can change in it, nothing
that packets change.

Chosen by attribute, not by leaving out what is known to move: a newer kernel's new counters change
nothing.
"""

import errno
import hashlib
import struct
from collections.abc import Iterable, Iterator

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel import read_table
from ecluse.kernel.netlink import NetlinkSocket, attribute, attributes, number, text
from ecluse.ruleset.table_names import is_switched

# What is kept of each kind, by NFTA_* number (linux/netfilter/nf_tables.h). Never handles, use
# counts, packets.
TABLE_KEPT = (2,)  # flags, dormant among them
# The policy of the base chains goes with the levels and is read by itself (Firewall.policies).
CHAIN_KEPT = (3, 4, 7, 10, 12)  # name, hook, type, flags, userdata (comments)
# Of a set: name, flags, types and lengths, policy, description, time-outs, userdata, object type,
# expressions.
SET_KEPT = (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18)
OBJECT_KEPT = (2, 3, 8)  # name, type, userdata
FLOWTABLE_KEPT = (2, 3, 7)  # name, hook, flags
# Statements whose data moves with packets; that they stand there is kept.
MOVING_EXPRESSIONS = frozenset({b"counter\0", b"last\0", b"quota\0"})
MOVING_OF_ELEMENT = frozenset(
    {nf.NFTA_SET_ELEM_EXPIRATION, nf.NFTA_SET_ELEM_EXPR, nf.NFTA_SET_ELEM_EXPRESSIONS}
)

_LENGTH = struct.Struct("=H")


def fingerprint(netlink: NetlinkSocket, only: Iterable[str] | None = None) -> dict[str, str]:
    """Digest the table: the elements of each set under its name, the rest under the empty name;
    nothing without a table.

    only: read the elements of these sets, and nothing else. Costs 1 µs an element.
    An element that expires by its own time-out changes the digest, as it changes what is kept.
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
    records = [
        _part_digest("table", join_attributes(table, TABLE_KEPT)),
        *(
            _part_digest("chain", join_attributes(one, CHAIN_KEPT))
            for one in read_table.dump_chains(netlink)
        ),
        *(_part_digest("set", join_attributes(one, SET_KEPT)) for one in sets),
        *(
            _part_digest("object", join_attributes(one, OBJECT_KEPT))
            for one in read_table.dump_objects(netlink)
        ),
        *(
            _part_digest("flowtable", join_attributes(one, FLOWTABLE_KEPT))
            for one in read_table.dump_flowtables(netlink)
        ),
        *_rule_digests(netlink),
    ]
    found = {
        text(one[nf.NFTA_SET_NAME]): _elements_digest(netlink, one)
        for one in sets
        if _is_static(one)
    }
    return {"": "sha256:" + hashlib.sha256(b"".join(sorted(records))).hexdigest(), **found}


def _part_digest(kind: str, content: bytes) -> bytes:
    """Make one thing's part of the digest; of fixed length, so that parts cannot run into each
    other.
    """
    return hashlib.sha256(kind.encode() + b"\0" + content).digest()


def join_attributes(found: dict[int, bytes], kinds: Iterable[int]) -> bytes:
    """Put the named attributes back to back, in the order of `kinds`."""
    return b"".join(attribute(kind, found[kind]) for kind in kinds if kind in found)


def _is_static(one: dict[int, bytes]) -> bool:
    """Tell whether packets do not fill this set (NFT_SET_EVAL, `flags dynamic`)."""
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
    """Digest a set's elements in whatever order the kernel lists them: their number and the sum of
    their hashes.

    Python's own hash of bytes, keyed anew by each process (SipHash): quick enough to read 100,000
    elements unnoticed. No sorting: that alone would hold the interpreter, and so the event loop,
    for 30 ms.
    """
    walk = stable_elements if _may_move(one) else split_elements
    count = total = 0
    for listed in read_table.dump_element_lists(netlink, text(one[nf.NFTA_SET_NAME])):
        for element in walk(listed):
            count += 1
            total += hash(element)
    return f"{count}:{total}"


def _may_move(one: dict[int, bytes]) -> bool:
    """Tell whether this set's elements have time-outs or statements of their own, as none of ours
    has that packets do not fill.

    An element that somebody gave a counter where the set has none moves the digest with each
    packet: it is not ours.
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
