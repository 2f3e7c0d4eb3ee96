"""The smallest table that shuts the gate, by raw netlink: it stands while the real one is put back.

It is one transaction of some twenty messages without a look at what is there, so that it is in the
kernel before libnftables has asked its first question. Inside to inside passes, and what the
gateway and the inside say to each other; the rest is dropped in silence. Source: NFTA_* in
linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache

from ecluse.kernel import read_table
from ecluse.kernel.netlink import (
    NLA_F_NESTED,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Request,
    attribute,
    netfilter_header,
    netfilter_kind,
    text_attribute,
)
from ecluse.ruleset.switch import PRIORITY_NUMBER
from ecluse.ruleset.table_names import GUARD

NEWTABLE, NEWCHAIN, NEWRULE = 0, 3, 6
NLM_F_EXCL = 0x200
LOCAL_IN, FORWARD, LOCAL_OUT, POST_ROUTING = (
    read_table.HOOKS.index(hook) for hook in ("input", "forward", "output", "postrouting")
)
LIST_ELEMENT = 1
META_DREG, META_KEY, IIF, IIFNAME, OIFNAME = 1, 2, 4, 6, 7
CMP_SREG, CMP_OP, CMP_DATA, CMP_EQ, CMP_NEQ = 1, 2, 3, 0, 1
IMMEDIATE_DREG, REG_VERDICT, REG_1 = 1, 0, 1
NF_DROP, NF_ACCEPT, NFT_JUMP = 0, 1, -3
IFNAMSIZ = 16


@lru_cache(maxsize=4)
def closed_table_requests(inside: tuple[str, ...]) -> list[Request]:
    """Give the transaction.

    inside: interfaces of the zones, as site.yaml names them (`care0`, `vlan1*`).

    It fails with EEXIST where any table of ours stands: then somebody was quicker, and nothing is
    to be done.
    """
    table = text_attribute(1, read_table.TABLE) + _number(2, 0)
    return [
        _request(NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, table),
        _chain(GUARD),
        *(_rule(GUARD, [*_interface_is(OIFNAME, name), _verdict(NF_ACCEPT)]) for name in inside),
        _chain("forward", FORWARD),
        *(
            _rule("forward", [*_interface_is(IIFNAME, name), _verdict(NFT_JUMP, GUARD)])
            for name in inside
        ),
        _chain("input", LOCAL_IN),
        *(
            _rule("input", [*_interface_is(IIFNAME, name), _verdict(NF_ACCEPT)])
            for name in ("lo", *inside)
        ),
        _chain("output", LOCAL_OUT),
        *(
            _rule("output", [*_interface_is(OIFNAME, name), _verdict(NF_ACCEPT)])
            for name in ("lo", *inside)
        ),
        _chain("postrouting", POST_ROUTING),
        _rule("postrouting", [*_is_forwarded(), _verdict(NF_ACCEPT)]),
        *(
            _rule("postrouting", [*_interface_is(OIFNAME, name), _verdict(NF_ACCEPT)])
            for name in ("lo", *inside)
        ),
    ]


def _request(message: int, flags: int, body: bytes) -> Request:
    kind = netfilter_kind(read_table.NFNL_SUBSYS_NFTABLES, message)
    return kind, flags, netfilter_header(read_table.NFPROTO_INET) + body


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))


def _nest(kind: int, parts: Iterable[bytes]) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def _chain(name: str, hook: int | None = None) -> Request:
    """Make a chain; one with a hook drops what no rule of it judges."""
    parts = [
        text_attribute(read_table.CHAIN_TABLE, read_table.TABLE),
        text_attribute(read_table.CHAIN_NAME, name),
    ]
    if hook is not None:
        place = [
            _number(read_table.HOOK_NUMBER, hook),
            _number(read_table.HOOK_PRIORITY, PRIORITY_NUMBER),
        ]
        parts += [
            _nest(read_table.CHAIN_HOOK, place),
            _number(read_table.CHAIN_POLICY, NF_DROP),
            text_attribute(read_table.CHAIN_TYPE, "filter"),
        ]
    return _request(NEWCHAIN, NLM_F_CREATE, b"".join(parts))


def _rule(chain: str, expressions: Iterable[bytes]) -> Request:
    body = text_attribute(read_table.RULE_TABLE, read_table.TABLE) + text_attribute(
        read_table.RULE_CHAIN, chain
    )
    return _request(
        NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body + _nest(read_table.RULE_EXPRESSIONS, expressions)
    )


def _expression(name: str, data: Iterable[bytes]) -> bytes:
    return _nest(
        LIST_ELEMENT,
        [text_attribute(read_table.EXPR_NAME, name), _nest(read_table.EXPR_DATA, data)],
    )


def _interface_is(key: int, pattern: str) -> list[bytes]:
    """Match an interface by its whole name, or by its beginning where a `*` ends the pattern (nft
    does the same).
    """
    stem = pattern.encode()
    value = stem[:-1] if stem.endswith(b"*") else stem.ljust(IFNAMSIZ, b"\0")
    load = _expression("meta", [_number(META_DREG, REG_1), _number(META_KEY, key)])
    if not value:  # `*` alone: every interface
        return []
    return [load, _compare(CMP_EQ, value)]


def _is_forwarded() -> list[bytes]:
    """Match what came by a link: at the last hook nothing else tells it from what the gateway made
    itself.
    """
    load = _expression("meta", [_number(META_DREG, REG_1), _number(META_KEY, IIF)])
    return [load, _compare(CMP_NEQ, bytes(4))]


def _compare(how: int, value: bytes) -> bytes:
    data = _nest(CMP_DATA, [attribute(read_table.DATA_VALUE, value)])
    return _expression("cmp", [_number(CMP_SREG, REG_1), _number(CMP_OP, how), data])


def _verdict(code: int, chain: str = "") -> bytes:
    parts = [_number(read_table.VERDICT_CODE, code)]
    if chain:
        parts.append(text_attribute(read_table.VERDICT_CHAIN, chain))
    verdict = _nest(read_table.DATA_VERDICT, parts)
    return _expression(
        "immediate",
        [_number(IMMEDIATE_DREG, REG_VERDICT), _nest(read_table.IMMEDIATE_DATA, [verdict])],
    )
