"""Readings of table `inet ecluse` by raw netlink (linux/netfilter/nf_tables.h): no libnftables, no
cache.

Each function takes an open netfilter socket, costs what it reads and nothing for the elements
beside it, and raises OSError in the kernel's words. A table or chain that does not exist is an
answer, not an error.
"""

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from typing import TypeVar

from ecluse.kernel.netlink import (
    DumpInterruptedError,
    Netlink,
    attributes,
    fields,
    netfilter_header,
    netfilter_kind,
    number,
    text,
    text_attribute,
)
from ecluse.lenient_rows import parse_rows
from ecluse.ports import CounterValue, RefusedElement, SetReading
from ecluse.ruleset.table_names import FLOW_SETS, LIMITED_SETS, REFUSED_SETS

TABLE = "ecluse"
NFPROTO_INET = 1
NFNL_SUBSYS_NFTABLES = 10
TABLE_OWNER = 7  # NFTA_TABLE_OWNER
GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, GETGEN, GETOBJ, GETFLOWTABLE = (
    1,
    4,
    7,
    10,
    13,
    16,
    19,
    23,
)

TABLE_FLAGS, NFT_TABLE_F_DORMANT = 2, 1
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
HOOK_NUMBER, HOOK_PRIORITY = 1, 2
HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")  # enum nf_inet_hooks
POLICIES = ("drop", "accept")  # NF_DROP, NF_ACCEPT (linux/netfilter.h)
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS = 1, 2, 4
SET_TABLE, SET_NAME, SET_FLAGS, SET_DESC, SET_TIMEOUT, SET_EXPR, SET_EXPRESSIONS = (
    1,
    2,
    3,
    9,
    11,
    17,
    18,
)
SET_DESC_SIZE = 1
ELEMENTS_TABLE, ELEMENTS_SET, ELEMENTS = 1, 2, 3
ELEMENT_KEY, ELEMENT_TIMEOUT, ELEMENT_EXPIRATION, ELEMENT_EXPR, ELEMENT_EXPRESSIONS = 1, 4, 5, 7, 11
OBJECT_TABLE, OBJECT_NAME, OBJECT_TYPE, OBJECT_DATA = 1, 2, 3, 4
FLOWTABLE_TABLE, FLOWTABLE_NAME = 1, 2
EXPR_NAME, EXPR_DATA = 1, 2
COUNTER_BYTES, COUNTER_PACKETS = 1, 2
GEN_ID = 1
DATA_VALUE, DATA_VERDICT = 1, 2
VERDICT_CODE, VERDICT_CHAIN = 1, 2
IMMEDIATE_DATA = 2

NFT_SET_ANONYMOUS, NFT_SET_MAP, NFT_SET_TIMEOUT, NFT_SET_EVAL, NFT_SET_OBJECT = (
    0x01,
    0x08,
    0x10,
    0x20,
    0x40,
)
NFT_OBJECT_COUNTER = 1
# NFT_OBJECT_*, linux/netfilter/nf_tables.h, in nft's words
OBJECT_KINDS = {
    2: "quota",
    3: "ct helper",
    4: "limit",
    7: "ct timeout",
    8: "secmark",
    9: "ct expectation",
    10: "synproxy",
}
NFT_GOTO = -4

T = TypeVar("T")


def ask(netlink: Netlink, what: int, *conditions: bytes) -> Iterator[bytes]:
    """Dump one kind of thing of family inet; give each answer's attributes.

    Nothing when there is no table.
    """
    body = netfilter_header(NFPROTO_INET) + b"".join(conditions)
    try:
        for answer in netlink.dump(netfilter_kind(NFNL_SUBSYS_NFTABLES, what), body):
            yield answer[4:]
    except FileNotFoundError:
        return


def in_table(netlink: Netlink, what: int, table_attribute: int) -> Iterator[dict[int, bytes]]:
    """Dump one kind of thing of our table.

    The kernel filters most kinds itself; chains it does not.
    """
    for answer in ask(netlink, what, text_attribute(table_attribute, TABLE)):
        found = fields(answer)
        if text(found[table_attribute]) == TABLE:
            yield found


def table(netlink: Netlink) -> dict[int, bytes] | None:
    """Read the table itself (NFTA_TABLE_*); None when there is none."""
    body = netfilter_header(NFPROTO_INET) + text_attribute(1, TABLE)
    try:
        answer = netlink.request(netfilter_kind(NFNL_SUBSYS_NFTABLES, GETTABLE), body)
    except FileNotFoundError:
        return None
    return None if answer is None else fields(answer, 4)


def owner(netlink: Netlink) -> int:
    """Give the netlink port of whoever alone may change our table (NFT_TABLE_F_OWNER); 0: anybody
    may, or it is not there.
    """
    return int.from_bytes((table(netlink) or {}).get(TABLE_OWNER, b""), "big")


def generation(netlink: Netlink) -> int:
    """Read the generation id of this namespace's ruleset: every transaction by anyone changes it."""
    answer = netlink.request(netfilter_kind(NFNL_SUBSYS_NFTABLES, GETGEN), netfilter_header(0))
    if answer is None:
        raise OSError(errno.EBADMSG, "the kernel gave no generation")
    return number(fields(answer, 4)[GEN_ID])


def in_one_generation(netlink: Netlink, read: Callable[[], T]) -> T:
    """Read several things as of one transaction.

    DumpInterruptedError when another came in between.
    """
    before = generation(netlink)
    result = read()
    if generation(netlink) != before:
        raise DumpInterruptedError
    return result


def rules(netlink: Netlink, chain: str) -> list[dict[int, bytes]]:
    """Read the rules of one chain (NFTA_RULE_*), in order; none when there is no such chain."""
    conditions = text_attribute(RULE_TABLE, TABLE), text_attribute(RULE_CHAIN, chain)
    found = (fields(answer) for answer in ask(netlink, GETRULE, *conditions))
    return [rule for rule in found if text(rule[RULE_CHAIN]) == chain]


def goto_target(chain_rules: Sequence[dict[int, bytes]]) -> str | None:
    """Name the chain that these rules go to if they are one rule of one `goto` and nothing else."""
    if len(chain_rules) != 1:
        return None
    expressions = [one for _, one in attributes(chain_rules[0].get(RULE_EXPRESSIONS, b""))]
    if len(expressions) != 1:
        return None
    expression = fields(expressions[0])
    if text(expression[EXPR_NAME]) != "immediate":
        return None
    data = fields(fields(expression[EXPR_DATA]).get(IMMEDIATE_DATA, b""))
    verdict = fields(data.get(DATA_VERDICT, b""))
    if VERDICT_CODE not in verdict or struct.unpack("!i", verdict[VERDICT_CODE])[0] != NFT_GOTO:
        return None
    return text(verdict[VERDICT_CHAIN])


def targets(netlink: Netlink, chain_names: Iterable[str]) -> dict[str, str | None]:
    """Give each chain's goto target, None where it does anything else or does not exist."""
    return {name: goto_target(rules(netlink, name)) for name in chain_names}


def chains(netlink: Netlink) -> list[dict[int, bytes]]:
    """Read every chain of the table (NFTA_CHAIN_*)."""
    return list(in_table(netlink, GETCHAIN, CHAIN_TABLE))


def policies(netlink: Netlink) -> dict[str, str]:
    """Give the policy of every base chain: `accept` or `drop`."""
    return base_chains(netlink)[0]


def base_chains(netlink: Netlink) -> tuple[dict[str, str], dict[str, str]]:
    """Give each base chain's policy, and where it hangs, as `filter forward -10`: type, hook,
    priority.

    None hangs anywhere in a dormant table.
    """
    held = [one for one in chains(netlink) if CHAIN_HOOK in one]
    found = table(netlink)
    dormant = found is None or number(found.get(TABLE_FLAGS, b"")) & NFT_TABLE_F_DORMANT
    policies_now = {text(one[CHAIN_NAME]): POLICIES[number(one[CHAIN_POLICY])] for one in held}
    return policies_now, {} if dormant else {text(one[CHAIN_NAME]): _place(one) for one in held}


def _place(chain: dict[int, bytes]) -> str:
    hook = fields(chain[CHAIN_HOOK])
    (priority,) = struct.unpack("!i", hook[HOOK_PRIORITY])
    return f"{text(chain[CHAIN_TYPE])} {HOOKS[number(hook[HOOK_NUMBER])]} {priority}"


def chain_names(netlink: Netlink) -> tuple[str, ...]:
    """Name every chain of the table, sorted."""
    return tuple(sorted(text(found[CHAIN_NAME]) for found in chains(netlink)))


def sets(netlink: Netlink) -> list[dict[int, bytes]]:
    """Read every set and map of the table (NFTA_SET_*), anonymous ones too, without their elements."""
    return list(in_table(netlink, GETSET, SET_TABLE))


def objects(netlink: Netlink) -> list[dict[int, bytes]]:
    """Read every stateful object of the table (NFTA_OBJ_*), counters among them."""
    return list(in_table(netlink, GETOBJ, OBJECT_TABLE))


def flowtables(netlink: Netlink) -> list[dict[int, bytes]]:
    """Read every flowtable of the table (NFTA_FLOWTABLE_*)."""
    return list(in_table(netlink, GETFLOWTABLE, FLOWTABLE_TABLE))


def element_lists(netlink: Netlink, set_name: str) -> Iterator[bytes]:
    """Read the elements of one set as they come: each item a list of NFTA_LIST_ELEM; none when it
    does not exist.
    """
    conditions = text_attribute(ELEMENTS_TABLE, TABLE), text_attribute(ELEMENTS_SET, set_name)
    for answer in ask(netlink, GETSETELEM, *conditions):
        yield fields(answer).get(ELEMENTS, b"")


def names(netlink: Netlink) -> dict[str, tuple[str, ...]]:
    """Name what the table holds: keys chain, set, map, counter, and what we never make; empty when
    there is no table.
    """
    if table(netlink) is None:
        return {}
    named = [
        (text(found[SET_NAME]), number(found.get(SET_FLAGS, b"")))
        for found in sets(netlink)
        if not number(found.get(SET_FLAGS, b"")) & NFT_SET_ANONYMOUS
    ]
    maps = NFT_SET_MAP | NFT_SET_OBJECT
    return {
        "chain": chain_names(netlink),
        "set": tuple(sorted(name for name, flags in named if not flags & maps)),
        "map": tuple(sorted(name for name, flags in named if flags & maps)),
        "counter": tuple(sorted(counters(netlink))),
        **_foreign(netlink),
    }


def _foreign(netlink: Netlink) -> dict[str, tuple[str, ...]]:
    """Name the kinds of things that we never make, by nft's word for them (an unknown kind by its
    number).
    """
    found: dict[str, list[str]] = {}
    for one in objects(netlink):
        kind = number(one[OBJECT_TYPE])
        if kind != NFT_OBJECT_COUNTER:
            found.setdefault(OBJECT_KINDS.get(kind, f"object-{kind}"), []).append(
                text(one[OBJECT_NAME])
            )
    for one in flowtables(netlink):
        found.setdefault("flowtable", []).append(text(one[FLOWTABLE_NAME]))
    return {kind: tuple(sorted(held)) for kind, held in found.items()}


def counters(netlink: Netlink) -> dict[str, CounterValue]:
    """Read every named counter of the table; empty when there is no table."""
    return {
        text(found[OBJECT_NAME]): _counter(found[OBJECT_DATA])
        for found in objects(netlink)
        if number(found[OBJECT_TYPE]) == NFT_OBJECT_COUNTER
    }


def _counter(data: bytes) -> CounterValue:
    found = fields(data)
    return CounterValue(number(found[COUNTER_PACKETS]), number(found[COUNTER_BYTES]))


def refused(netlink: Netlink) -> SetReading:
    """Read the refused sets."""
    return _evidence(netlink, REFUSED_SETS)


def limited(netlink: Netlink) -> SetReading:
    """Read which machines asked the DNS gate more than they may."""
    return _evidence(netlink, LIMITED_SETS)


def _evidence(netlink: Netlink, wanted: Iterable[str]) -> SetReading:
    """Read sets of addresses or flows, each element with its counter.

    One that is of another kind hides no other.
    """
    found = {text(one[SET_NAME]): one for one in sets(netlink)}
    rows: list[RefusedElement] = []
    full, unread = False, 0
    for name in wanted:
        if name not in found:
            continue
        timeout = number(found[name].get(SET_TIMEOUT, b""))
        size = number(fields(found[name].get(SET_DESC, b"")).get(SET_DESC_SIZE, b""))
        width, flow = 16 if name.endswith("6") else 4, name in FLOW_SETS
        read = partial(_refused_element, width=width, flow=flow, set_timeout=timeout)
        every = (one for listed in element_lists(netlink, name) for _, one in attributes(listed))
        good, bad = parse_rows(every, read)
        rows += good
        unread += bad
        full = full or 0 < size <= len(good) + bad
    return SetReading(tuple(rows), full, unread)


def _refused_element(data: bytes, width: int, set_timeout: int, *, flow: bool) -> RefusedElement:
    """Read one element; times are in milliseconds.

    width: bytes of an address in its key. ValueError for another key.

    A key is source, and of a flow: destination, protocol, port, each padded to 4 bytes.
    """
    element = fields(data)
    key = fields(element[ELEMENT_KEY])[DATA_VALUE]
    if len(key) != (2 * width + 8 if flow else width):
        raise ValueError(f"a key of {len(key)} bytes is {'no flow' if flow else 'no source'}")
    timeout = number(element.get(ELEMENT_TIMEOUT, b"")) or set_timeout
    left = number(element[ELEMENT_EXPIRATION]) if ELEMENT_EXPIRATION in element else timeout
    counted = _element_counter(element)
    return RefusedElement(
        source=str(ip_address(key[:width])),
        destination=str(ip_address(key[width : 2 * width])) if flow else "",
        protocol=key[2 * width] if flow else 0,
        port=number(key[2 * width + 4 : 2 * width + 6]) if flow else 0,
        packets=counted.packets,
        bytes=counted.bytes,
        idle=max(0, timeout - left) // 1000,
    )


def _element_counter(element: dict[int, bytes]) -> CounterValue:
    """Find the counter of an element: alone (NFTA_SET_ELEM_EXPR) or in a list
    (NFTA_SET_ELEM_EXPRESSIONS).
    """
    listed = [one for _, one in attributes(element.get(ELEMENT_EXPRESSIONS, b""))]
    for expression in map(fields, [*listed, element.get(ELEMENT_EXPR, b"")]):
        if expression.get(EXPR_NAME) == b"counter\0":
            return _counter(expression[EXPR_DATA])
    return CounterValue(0, 0)
