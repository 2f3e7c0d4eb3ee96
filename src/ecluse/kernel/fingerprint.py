"""A digest of table `inet ecluse`: all that a person or program can change in it, nothing that packets change.

Chosen by attribute, not by leaving out what is known to move: a newer kernel's new counters change nothing.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator

from ecluse.kernel import tables
from ecluse.kernel.netlink import NLA_TYPE_MASK, Netlink, attribute, attributes, number, text
from ecluse.ruleset.names import BASE_CHAINS, is_gate

# What is kept of each kind, by NFTA_* number (linux/netfilter/nf_tables.h). Never handles, use counts, packets.
TABLE_KEPT = (2,)  # flags, dormant among them
# The policy of the base chains goes with the levels and is read by itself (Firewall.policies).
CHAIN_KEPT = (3, 4, 7, 10, 12)  # name, hook, type, flags, userdata (comments)
# Of a set: name, flags, types and lengths, policy, description, time-outs, userdata, object type, expressions.
SET_KEPT = (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18)
OBJECT_KEPT = (2, 3, 8)  # name, type, userdata
FLOWTABLE_KEPT = (2, 3, 7)  # name, hook, flags
RULE_USERDATA = 7
# Statements whose data moves with packets; that they stand there is kept.
MOVING_EXPRESSIONS = frozenset({b"counter\0", b"last\0", b"quota\0"})
MOVING_OF_ELEMENT = frozenset({tables.ELEMENT_EXPIRATION, tables.ELEMENT_EXPR, tables.ELEMENT_EXPRESSIONS})

_ATTRIBUTE = struct.Struct("=HH")


def fingerprint(netlink: Netlink) -> str | None:
    """Digest the table, `sha256:HEX`; None when there is none. Reads every element: about 3 µs each.

    An element that expires by its own time-out changes the digest, as it changes what is kept.
    """
    table = tables.table(netlink)
    if table is None:
        return None
    sets = tables.sets(netlink)
    records = [
        _record("table", kept(table, TABLE_KEPT)),
        *(_record("chain", kept(one, CHAIN_KEPT)) for one in tables.chains(netlink)),
        *(_record("set", kept(one, SET_KEPT)) for one in sets),
        *(_record("object", kept(one, OBJECT_KEPT)) for one in tables.objects(netlink)),
        *(_record("flowtable", kept(one, FLOWTABLE_KEPT)) for one in tables.flowtables(netlink)),
        *_rule_records(netlink),
        *(_elements_record(netlink, text(one[tables.SET_NAME])) for one in sets if _is_static(one)),
    ]
    return "sha256:" + hashlib.sha256(b"".join(sorted(records))).hexdigest()


def _record(kind: str, content: bytes) -> bytes:
    """Make one thing's part of the digest; of fixed length, so that parts cannot run into each other."""
    return hashlib.sha256(kind.encode() + b"\0" + content).digest()


def kept(found: dict[int, bytes], kinds: Iterable[int]) -> bytes:
    """Put the named attributes back to back, in the order of `kinds`."""
    return b"".join(attribute(kind, found[kind]) for kind in kinds if kind in found)


def _is_static(one: dict[int, bytes]) -> bool:
    """Tell whether packets do not fill this set (NFT_SET_EVAL, `flags dynamic`)."""
    return not number(one.get(tables.SET_FLAGS, b"")) & tables.NFT_SET_EVAL


def is_switched(chain: str) -> bool:
    """Tell whether a chain's rules are a level's position, not the program: `targets` reads them, a switch changes them."""
    return chain in BASE_CHAINS or is_gate(chain)


def _rule_records(netlink: Netlink) -> Iterator[bytes]:
    """Digest each chain's rules in their order."""
    by_chain: dict[str, list[bytes]] = {}
    for found in tables.in_table(netlink, tables.GETRULE, tables.RULE_TABLE):
        chain = text(found[tables.RULE_CHAIN])
        if not is_switched(chain):
            by_chain.setdefault(chain, []).append(attribute(0, stable_rule(found)))
    for chain, rules in by_chain.items():
        yield _record("rules", chain.encode() + b"\0" + b"".join(rules))


def stable_rule(rule: dict[int, bytes]) -> bytes:
    """Give a rule's statements and comment without what packets move in them."""
    expressions = []
    for _, expression in attributes(rule.get(tables.RULE_EXPRESSIONS, b"")):
        name = dict(attributes(expression))[tables.EXPR_NAME]
        expressions.append(attribute(1, name if name in MOVING_EXPRESSIONS else expression))
    return b"".join(expressions) + attribute(RULE_USERDATA, rule.get(RULE_USERDATA, b""))


def _elements_record(netlink: Netlink, set_name: str) -> bytes:
    """Digest a set's elements in whatever order the kernel lists them: the sum of their hashes.

    No sorting: at 100,000 elements that alone would hold the interpreter, and so the event loop, for 30 ms.
    """
    total = 0
    for listed in tables.element_lists(netlink, set_name):
        for element in stable_elements(listed):
            total += int.from_bytes(hashlib.blake2b(element).digest())
    return _record("elements", f"{set_name}\0{total}".encode())


def stable_elements(listed: bytes) -> Iterator[bytes]:
    """Give each element of a list as bytes (its length first), without what moves. The hot loop: no objects in it."""
    unpack = _ATTRIBUTE.unpack_from
    start, end = 0, len(listed)
    while start < end:
        stop = start + unpack(listed, start)[0]
        inner = start + 4
        while inner < stop:
            length, kind = unpack(listed, inner)
            if kind & NLA_TYPE_MASK in MOVING_OF_ELEMENT:
                still = [
                    attribute(kind, payload)
                    for kind, payload in attributes(listed[start + 4 : stop])
                    if kind not in MOVING_OF_ELEMENT
                ]
                yield attribute(1, b"".join(still))
                break
            inner += (length + 3) & ~3
        else:
            yield listed[start:stop]
        start = max(stop + 3 & ~3, start + 4)
