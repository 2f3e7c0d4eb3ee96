"""Builds messages to nf_tables about table `inet ecluse` (linux/netfilter/nf_tables.h)."""

import struct

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import (
    NLA_F_NESTED,
    Request,
    attribute,
    netfilter_header,
    netfilter_kind,
    text_attribute,
)

TABLE = "ecluse"
_HEADER = netfilter_header(nf.NFPROTO_INET)


def inet_request(message: int, flags: int, body: bytes) -> Request:
    """Build one message of a transaction. message: NFT_MSG_*; body: its attributes."""
    return netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, message), flags, _HEADER + body


def elements_request(message: int, flags: int, set_name: str, elements: bytes) -> Request:
    """Build a message about elements of a set. elements: a list of NFTA_LIST_ELEM."""
    return inet_request(
        message,
        flags,
        text_attribute(nf.NFTA_SET_ELEM_LIST_TABLE, TABLE)
        + text_attribute(nf.NFTA_SET_ELEM_LIST_SET, set_name)
        + nested(nf.NFTA_SET_ELEM_LIST_ELEMENTS, elements),
    )


def chain_attributes(name: str) -> bytes:
    """Name a chain of our table, for a message about chains."""
    return text_attribute(nf.NFTA_CHAIN_TABLE, TABLE) + text_attribute(nf.NFTA_CHAIN_NAME, name)


def rule_attributes(chain: str) -> bytes:
    """Name a chain of our table, for a message about its rules."""
    return text_attribute(nf.NFTA_RULE_TABLE, TABLE) + text_attribute(nf.NFTA_RULE_CHAIN, chain)


def nested(kind: int, *parts: bytes) -> bytes:
    """Build an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def number_attribute(kind: int, value: int) -> bytes:
    """Build an attribute that holds a number of 32 bits in network byte order."""
    return attribute(kind, struct.pack("!i", value))


def expression(name: str, *data: bytes) -> bytes:
    """Build one statement or match of a rule, by the kernel's name for it."""
    return nested(
        nf.NFTA_LIST_ELEM,
        text_attribute(nf.NFTA_EXPR_NAME, name),
        nested(nf.NFTA_EXPR_DATA, *data),
    )


def verdict(code: int, chain: str = "") -> bytes:
    """Build the statement of a verdict. code: NF_* or NFT_*; chain: that a jump or goto names."""
    parts = [number_attribute(nf.NFTA_VERDICT_CODE, code)]
    if chain:
        parts.append(text_attribute(nf.NFTA_VERDICT_CHAIN, chain))
    data = nested(nf.NFTA_IMMEDIATE_DATA, nested(nf.NFTA_DATA_VERDICT, *parts))
    register = number_attribute(nf.NFTA_IMMEDIATE_DREG, nf.NFT_REG_VERDICT)
    return expression("immediate", register, data)
