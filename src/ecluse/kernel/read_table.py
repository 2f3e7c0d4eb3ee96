"""Reads table `inet ecluse` by netlink, without libnftables and its cache.

Each function takes an open netfilter socket, costs only what it reads (the elements of large sets
cost nothing unless they are asked for), and raises OSError in the kernel's words. A table or chain
that does not exist is an answer, not an error.
"""

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from typing import TypeVar

from ecluse.flow_judge import protocol_name
from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import (
    DumpInterruptedError,
    NetlinkSocket,
    attribute_map,
    attributes,
    netfilter_header,
    netfilter_kind,
    number,
    text,
    text_attribute,
)
from ecluse.kernel.nft_messages import TABLE, rule_attributes
from ecluse.lenient_rows import parse_rows
from ecluse.ports import CounterValue, SetReading
from ecluse.results import RefusedFlow
from ecluse.ruleset.table_names import FLOW_SETS, IDLE_CHAINS, LIMITED_SETS, REFUSED_SETS

T = TypeVar("T")


def dump_inet(netlink: NetlinkSocket, what: int, *conditions: bytes) -> Iterator[bytes]:
    """Dump one kind of thing of family inet; give each answer's attributes, none without a table.

    Args:
        what: NFT_MSG_GET*.
        conditions: attributes by which the kernel filters.
    """
    body = netfilter_header(nf.NFPROTO_INET) + b"".join(conditions)
    try:
        for answer in netlink.dump(netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, what), body):
            yield answer[4:]
    except FileNotFoundError:
        return


def dump_ours(
    netlink: NetlinkSocket, what: int, table_attribute: int
) -> Iterator[dict[int, bytes]]:
    """Dump one kind of thing of our table.

    The kernel filters most kinds itself; chains it does not.
    """
    for answer in dump_inet(netlink, what, text_attribute(table_attribute, TABLE)):
        found = attribute_map(answer)
        if text(found[table_attribute]) == TABLE:
            yield found


def table_attributes(netlink: NetlinkSocket) -> dict[int, bytes] | None:
    """Read the table itself (NFTA_TABLE_*); None when there is none."""
    body = netfilter_header(nf.NFPROTO_INET) + text_attribute(1, TABLE)
    try:
        answer = netlink.request(netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, nf.NFT_MSG_GETTABLE), body)
    except FileNotFoundError:
        return None
    return None if answer is None else attribute_map(answer, 4)


def owner_port(netlink: NetlinkSocket) -> int:
    """Give the netlink port of the only process that may change our table (NFT_TABLE_F_OWNER).

    0: any process may, or there is no table.
    """
    return int.from_bytes((table_attributes(netlink) or {}).get(nf.NFTA_TABLE_OWNER, b""), "big")


def ruleset_generation(netlink: NetlinkSocket) -> int:
    """Read the generation id of this namespace's ruleset: every transaction changes it."""
    kind = netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, nf.NFT_MSG_GETGEN)
    answer = netlink.request(kind, netfilter_header(0))
    if answer is None:
        raise OSError(errno.EBADMSG, "the kernel gave no generation")
    return number(attribute_map(answer, 4)[nf.NFTA_GEN_ID])


def in_one_generation(netlink: NetlinkSocket, read: Callable[[], T]) -> T:
    """Read several things as of one transaction.

    Raises:
        DumpInterruptedError: another transaction came in between; read again.
    """
    before = ruleset_generation(netlink)
    result = read()
    if ruleset_generation(netlink) != before:
        raise DumpInterruptedError
    return result


def dump_rules(netlink: NetlinkSocket, chain: str) -> list[dict[int, bytes]]:
    """Read the rules of one chain (NFTA_RULE_*), in order; none when there is no such chain."""
    found = map(attribute_map, dump_inet(netlink, nf.NFT_MSG_GETRULE, rule_attributes(chain)))
    return [rule for rule in found if text(rule[nf.NFTA_RULE_CHAIN]) == chain]


def goto_target(chain_rules: Sequence[dict[int, bytes]]) -> str | None:
    """Name the chain that these rules go to; None unless they are one rule of one `goto`."""
    if len(chain_rules) != 1:
        return None
    expressions = [one for _, one in attributes(chain_rules[0].get(nf.NFTA_RULE_EXPRESSIONS, b""))]
    if len(expressions) != 1:
        return None
    expression = attribute_map(expressions[0])
    if text(expression[nf.NFTA_EXPR_NAME]) != "immediate":
        return None
    data = attribute_map(
        attribute_map(expression[nf.NFTA_EXPR_DATA]).get(nf.NFTA_IMMEDIATE_DATA, b"")
    )
    verdict = attribute_map(data.get(nf.NFTA_DATA_VERDICT, b""))
    if (
        nf.NFTA_VERDICT_CODE not in verdict
        or struct.unpack("!i", verdict[nf.NFTA_VERDICT_CODE])[0] != nf.NFT_GOTO
    ):
        return None
    return text(verdict[nf.NFTA_VERDICT_CHAIN])


def goto_targets(netlink: NetlinkSocket, chain_names: Iterable[str]) -> dict[str, str | None]:
    """Give each chain's goto target, None where it does anything else or does not exist.

    Empty for a base chain that may be without a rule, and is; whether it exists, its hook tells.
    """
    found = {name: dump_rules(netlink, name) for name in chain_names}
    return {
        name: "" if name in IDLE_CHAINS and not rules else goto_target(rules)
        for name, rules in found.items()
    }


def dump_chains(netlink: NetlinkSocket) -> list[dict[int, bytes]]:
    """Read every chain of the table (NFTA_CHAIN_*)."""
    return list(dump_ours(netlink, nf.NFT_MSG_GETCHAIN, nf.NFTA_CHAIN_TABLE))


def chain_policies(netlink: NetlinkSocket) -> dict[str, str]:
    """Give the policy of every base chain: `accept` or `drop`."""
    return policies_and_hooks(netlink)[0]


def policies_and_hooks(netlink: NetlinkSocket) -> tuple[dict[str, str], dict[str, str]]:
    """Give each base chain's policy, and its hook as `filter forward -10`: type, hook, priority.

    In a dormant table no chain has a hook.
    """
    base = [one for one in dump_chains(netlink) if nf.NFTA_CHAIN_HOOK in one]
    found = table_attributes(netlink)
    dormant = found is None or number(found.get(nf.NFTA_TABLE_FLAGS, b"")) & nf.NFT_TABLE_F_DORMANT
    policies_now = {
        text(one[nf.NFTA_CHAIN_NAME]): nf.POLICIES[number(one[nf.NFTA_CHAIN_POLICY])]
        for one in base
    }
    if dormant:
        return policies_now, {}
    return policies_now, {text(one[nf.NFTA_CHAIN_NAME]): _hook_text(one) for one in base}


def _hook_text(chain: dict[int, bytes]) -> str:
    hook = attribute_map(chain[nf.NFTA_CHAIN_HOOK])
    (priority,) = struct.unpack("!i", hook[nf.NFTA_HOOK_PRIORITY])
    name = nf.HOOKS[number(hook[nf.NFTA_HOOK_HOOKNUM])]
    return f"{text(chain[nf.NFTA_CHAIN_TYPE])} {name} {priority}"


def chain_names(netlink: NetlinkSocket) -> tuple[str, ...]:
    """Name every chain of the table, sorted."""
    return tuple(sorted(text(found[nf.NFTA_CHAIN_NAME]) for found in dump_chains(netlink)))


def dump_sets(netlink: NetlinkSocket) -> list[dict[int, bytes]]:
    """Read every set and map (NFTA_SET_*), anonymous ones too, without their elements."""
    return list(dump_ours(netlink, nf.NFT_MSG_GETSET, nf.NFTA_SET_TABLE))


def dump_objects(netlink: NetlinkSocket) -> list[dict[int, bytes]]:
    """Read every stateful object of the table (NFTA_OBJ_*), counters among them."""
    return list(dump_ours(netlink, nf.NFT_MSG_GETOBJ, nf.NFTA_OBJ_TABLE))


def dump_flowtables(netlink: NetlinkSocket) -> list[dict[int, bytes]]:
    """Read every flowtable of the table (NFTA_FLOWTABLE_*)."""
    return list(dump_ours(netlink, nf.NFT_MSG_GETFLOWTABLE, nf.NFTA_FLOWTABLE_TABLE))


def dump_element_lists(netlink: NetlinkSocket, set_name: str) -> Iterator[bytes]:
    """Read the elements of one set as they come; none when it does not exist.

    Each item is a list of NFTA_LIST_ELEM.
    """
    conditions = (
        text_attribute(nf.NFTA_SET_ELEM_LIST_TABLE, TABLE),
        text_attribute(nf.NFTA_SET_ELEM_LIST_SET, set_name),
    )
    for answer in dump_inet(netlink, nf.NFT_MSG_GETSETELEM, *conditions):
        yield attribute_map(answer).get(nf.NFTA_SET_ELEM_LIST_ELEMENTS, b"")


def object_names(netlink: NetlinkSocket) -> dict[str, tuple[str, ...]]:
    """Name what the table holds; empty when there is no table.

    Keys: chain, set, map, counter, and kinds of things that we never make.
    """
    if table_attributes(netlink) is None:
        return {}
    named = [
        (text(found[nf.NFTA_SET_NAME]), number(found.get(nf.NFTA_SET_FLAGS, b"")))
        for found in dump_sets(netlink)
        if not number(found.get(nf.NFTA_SET_FLAGS, b"")) & nf.NFT_SET_ANONYMOUS
    ]
    maps = nf.NFT_SET_MAP | nf.NFT_SET_OBJECT
    return {
        "chain": chain_names(netlink),
        "set": tuple(sorted(name for name, flags in named if not flags & maps)),
        "map": tuple(sorted(name for name, flags in named if flags & maps)),
        "counter": tuple(sorted(counter_values(netlink))),
        **_foreign_names(netlink),
    }


def _foreign_names(netlink: NetlinkSocket) -> dict[str, tuple[str, ...]]:
    """Name the things that we never make, by nft's word for their kind, else by its number."""
    found: dict[str, list[str]] = {}
    for one in dump_objects(netlink):
        kind = number(one[nf.NFTA_OBJ_TYPE])
        if kind != nf.NFT_OBJECT_COUNTER:
            found.setdefault(nf.OBJECT_KINDS.get(kind, f"object-{kind}"), []).append(
                text(one[nf.NFTA_OBJ_NAME])
            )
    for one in dump_flowtables(netlink):
        found.setdefault("flowtable", []).append(text(one[nf.NFTA_FLOWTABLE_NAME]))
    return {kind: tuple(sorted(names)) for kind, names in found.items()}


def counter_values(netlink: NetlinkSocket) -> dict[str, CounterValue]:
    """Read every named counter of the table; empty when there is no table."""
    return {
        text(found[nf.NFTA_OBJ_NAME]): counter_value(found[nf.NFTA_OBJ_DATA])
        for found in dump_objects(netlink)
        if number(found[nf.NFTA_OBJ_TYPE]) == nf.NFT_OBJECT_COUNTER
    }


def counter_value(data: bytes) -> CounterValue:
    """Read a counter's packets and bytes."""
    found = attribute_map(data)
    return CounterValue(
        number(found[nf.NFTA_COUNTER_PACKETS]), number(found[nf.NFTA_COUNTER_BYTES])
    )


def refused_elements(netlink: NetlinkSocket) -> SetReading:
    """Read the refused sets."""
    return _read_sets(netlink, REFUSED_SETS)


def limited_elements(netlink: NetlinkSocket) -> SetReading:
    """Read which machines asked the DNS proxy more than they may."""
    return _read_sets(netlink, LIMITED_SETS)


def _read_sets(netlink: NetlinkSocket, wanted: Iterable[str]) -> SetReading:
    """Read sets of addresses or flows, each element with its counter.

    An element of another form is counted as unread and hides no other.
    """
    found = {text(one[nf.NFTA_SET_NAME]): one for one in dump_sets(netlink)}
    rows: list[RefusedFlow] = []
    full, unread = False, 0
    for name in wanted:
        if name not in found:
            continue
        timeout = number(found[name].get(nf.NFTA_SET_TIMEOUT, b""))
        size = number(
            attribute_map(found[name].get(nf.NFTA_SET_DESC, b"")).get(nf.NFTA_SET_DESC_SIZE, b"")
        )
        width, flow = 16 if name.endswith("6") else 4, name in FLOW_SETS
        read = partial(_refused_flow, width=width, flow=flow, set_timeout=timeout)
        every = (
            one for listed in dump_element_lists(netlink, name) for _, one in attributes(listed)
        )
        good, bad = parse_rows(every, read)
        rows += good
        unread += bad
        full = full or 0 < size <= len(good) + bad
    return SetReading(tuple(rows), full, unread)


def _refused_flow(data: bytes, width: int, set_timeout: int, *, flow: bool) -> RefusedFlow:
    """Read one element (NFTA_SET_ELEM_*); its zone is not known here.

    A key is the source; of a flow source, destination, protocol and port, each padded to 4 bytes.

    Args:
        width: bytes of an address in the key.
        set_timeout: milliseconds, for an element without a time-out of its own.

    Raises:
        ValueError: the key has another length.
    """
    element = attribute_map(data)
    key = attribute_map(element[nf.NFTA_SET_ELEM_KEY])[nf.NFTA_DATA_VALUE]
    if len(key) != (2 * width + 8 if flow else width):
        raise ValueError(f"a key of {len(key)} bytes is {'no flow' if flow else 'no source'}")
    timeout = number(element.get(nf.NFTA_SET_ELEM_TIMEOUT, b"")) or set_timeout
    left = (
        number(element[nf.NFTA_SET_ELEM_EXPIRATION])
        if nf.NFTA_SET_ELEM_EXPIRATION in element
        else timeout
    )
    counted = element_counter(element)
    return RefusedFlow(
        source=str(ip_address(key[:width])),
        destination=str(ip_address(key[width : 2 * width])) if flow else "",
        protocol=protocol_name(key[2 * width]) if flow else "",
        port=number(key[2 * width + 4 : 2 * width + 6]) if flow else 0,
        packets=counted.packets,
        bytes=counted.bytes,
        last=max(0, timeout - left) // 1000,
        zone="",
    )


def element_counter(element: dict[int, bytes]) -> CounterValue:
    """Find the counter of an element: alone (..._EXPR) or in a list (..._EXPRESSIONS)."""
    listed = [one for _, one in attributes(element.get(nf.NFTA_SET_ELEM_EXPRESSIONS, b""))]
    for expression in map(attribute_map, [*listed, element.get(nf.NFTA_SET_ELEM_EXPR, b"")]):
        if expression.get(nf.NFTA_EXPR_NAME) == b"counter\0":
            return counter_value(expression[nf.NFTA_EXPR_DATA])
    return CounterValue(0, 0)
