"""The smallest table that shuts the gate, by raw netlink: it stands while the real one is put back.

It is one transaction of some twenty messages without a look at what is there, so that it is in the
kernel before libnftables has asked its first question. Inside to inside passes, and what the
gateway and the inside say to each other; the rest is dropped in silence. Source: NFTA_* in
linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache

from ecluse.kernel import nf_tables_numbers as nf
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

NLM_F_EXCL = 0x200
LOCAL_IN, FORWARD, LOCAL_OUT, POST_ROUTING = (
    nf.HOOKS.index(hook) for hook in ("input", "forward", "output", "postrouting")
)


@lru_cache(maxsize=4)
def closed_table_requests(inside: tuple[str, ...]) -> list[Request]:
    """Give the transaction.

    inside: interfaces of the zones, as site.yaml names them (`care0`, `vlan1*`).

    It fails with EEXIST where any table of ours stands: then somebody was quicker, and nothing is
    to be done.
    """
    table = text_attribute(1, read_table.TABLE) + _number(2, 0)
    return [
        _request(nf.NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, table),
        _chain(GUARD),
        *(
            _rule(GUARD, [*_interface_is(nf.NFT_META_OIFNAME, name), _verdict(nf.NF_ACCEPT)])
            for name in inside
        ),
        _chain("forward", FORWARD),
        *(
            _rule(
                "forward", [*_interface_is(nf.NFT_META_IIFNAME, name), _verdict(nf.NFT_JUMP, GUARD)]
            )
            for name in inside
        ),
        _chain("input", LOCAL_IN),
        *(
            _rule("input", [*_interface_is(nf.NFT_META_IIFNAME, name), _verdict(nf.NF_ACCEPT)])
            for name in ("lo", *inside)
        ),
        _chain("output", LOCAL_OUT),
        *(
            _rule("output", [*_interface_is(nf.NFT_META_OIFNAME, name), _verdict(nf.NF_ACCEPT)])
            for name in ("lo", *inside)
        ),
        _chain("postrouting", POST_ROUTING),
        _rule("postrouting", [*_is_forwarded(), _verdict(nf.NF_ACCEPT)]),
        *(
            _rule(
                "postrouting", [*_interface_is(nf.NFT_META_OIFNAME, name), _verdict(nf.NF_ACCEPT)]
            )
            for name in ("lo", *inside)
        ),
    ]


def _request(message: int, flags: int, body: bytes) -> Request:
    kind = netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, message)
    return kind, flags, netfilter_header(nf.NFPROTO_INET) + body


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))


def _nest(kind: int, parts: Iterable[bytes]) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def _chain(name: str, hook: int | None = None) -> Request:
    """Make a chain; one with a hook drops what no rule of it judges."""
    parts = [
        text_attribute(nf.NFTA_CHAIN_TABLE, read_table.TABLE),
        text_attribute(nf.NFTA_CHAIN_NAME, name),
    ]
    if hook is not None:
        place = [
            _number(nf.NFTA_HOOK_HOOKNUM, hook),
            _number(nf.NFTA_HOOK_PRIORITY, PRIORITY_NUMBER),
        ]
        parts += [
            _nest(nf.NFTA_CHAIN_HOOK, place),
            _number(nf.NFTA_CHAIN_POLICY, nf.NF_DROP),
            text_attribute(nf.NFTA_CHAIN_TYPE, "filter"),
        ]
    return _request(nf.NFT_MSG_NEWCHAIN, NLM_F_CREATE, b"".join(parts))


def _rule(chain: str, expressions: Iterable[bytes]) -> Request:
    body = text_attribute(nf.NFTA_RULE_TABLE, read_table.TABLE) + text_attribute(
        nf.NFTA_RULE_CHAIN, chain
    )
    return _request(
        nf.NFT_MSG_NEWRULE,
        NLM_F_CREATE | NLM_F_APPEND,
        body + _nest(nf.NFTA_RULE_EXPRESSIONS, expressions),
    )


def _expression(name: str, data: Iterable[bytes]) -> bytes:
    return _nest(
        nf.NFTA_LIST_ELEM,
        [text_attribute(nf.NFTA_EXPR_NAME, name), _nest(nf.NFTA_EXPR_DATA, data)],
    )


def _interface_is(key: int, pattern: str) -> list[bytes]:
    """Match an interface by its whole name, or by its beginning where a `*` ends the pattern (nft
    does the same).
    """
    stem = pattern.encode()
    value = stem[:-1] if stem.endswith(b"*") else stem.ljust(nf.IFNAMSIZ, b"\0")
    load = _expression(
        "meta", [_number(nf.NFTA_META_DREG, nf.NFT_REG_1), _number(nf.NFTA_META_KEY, key)]
    )
    if not value:  # `*` alone: every interface
        return []
    return [load, _compare(nf.NFT_CMP_EQ, value)]


def _is_forwarded() -> list[bytes]:
    """Match what came by a link: at the last hook nothing else tells it from what the gateway made
    itself.
    """
    load = _expression(
        "meta",
        [_number(nf.NFTA_META_DREG, nf.NFT_REG_1), _number(nf.NFTA_META_KEY, nf.NFT_META_IIF)],
    )
    return [load, _compare(nf.NFT_CMP_NEQ, bytes(4))]


def _compare(how: int, value: bytes) -> bytes:
    data = _nest(nf.NFTA_CMP_DATA, [attribute(nf.NFTA_DATA_VALUE, value)])
    return _expression(
        "cmp", [_number(nf.NFTA_CMP_SREG, nf.NFT_REG_1), _number(nf.NFTA_CMP_OP, how), data]
    )


def _verdict(code: int, chain: str = "") -> bytes:
    parts = [_number(nf.NFTA_VERDICT_CODE, code)]
    if chain:
        parts.append(text_attribute(nf.NFTA_VERDICT_CHAIN, chain))
    verdict = _nest(nf.NFTA_DATA_VERDICT, parts)
    return _expression(
        "immediate",
        [
            _number(nf.NFTA_IMMEDIATE_DREG, nf.NFT_REG_VERDICT),
            _nest(nf.NFTA_IMMEDIATE_DATA, [verdict]),
        ],
    )
