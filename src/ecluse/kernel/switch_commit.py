"""The switch by raw netlink: what `Position.text` says, without the time that libnftables takes for
its cache.

Only what a change of level states goes this way: policies of base chains that are there, chains
emptied, rules of one goto. Source: NFTA_CHAIN_*, NFTA_RULE_*, NFTA_EXPR_*, NFTA_IMMEDIATE_*,
NFTA_VERDICT_* in linux/netfilter/nf_tables.h.
"""

import struct

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
from ecluse.ruleset.switch import Position
from ecluse.ruleset.table_names import BASE_CHAINS

_HEADER = netfilter_header(nf.NFPROTO_INET)


def switch_requests(position: Position) -> list[Request]:
    """Give the messages that put the switch into a position, in the order of its text.

    The kernel empties a chain when a rule is deleted by no handle, and changes only what a message
    about a chain names.
    """
    verdict = attribute(
        nf.NFTA_CHAIN_POLICY, struct.pack("!I", nf.POLICIES.index(position.verdict))
    )
    table = text_attribute(nf.NFTA_CHAIN_TABLE, read_table.TABLE)
    requests = [
        _request(nf.NFT_MSG_NEWCHAIN, 0, table + text_attribute(nf.NFTA_CHAIN_NAME, hook) + verdict)
        for hook in BASE_CHAINS
    ]
    for chain, target in position.targets.items():
        where = text_attribute(nf.NFTA_RULE_TABLE, read_table.TABLE) + text_attribute(
            nf.NFTA_RULE_CHAIN, chain
        )
        requests += [
            _request(nf.NFT_MSG_DELRULE, 0, where),
            _request(nf.NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, where + goto_rule(target)),
        ]
    return requests


def _request(message: int, flags: int, body: bytes) -> Request:
    return netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, message), flags, _HEADER + body


def goto_rule(target: str) -> bytes:
    """Give the expressions of a rule that goes to a chain and does nothing else (see
    `tables.goto_target`).
    """
    code = attribute(nf.NFTA_VERDICT_CODE, struct.pack("!i", nf.NFT_GOTO))
    verdict = _nested(nf.NFTA_DATA_VERDICT, code + text_attribute(nf.NFTA_VERDICT_CHAIN, target))
    register = attribute(nf.NFTA_IMMEDIATE_DREG, struct.pack("!I", nf.NFT_REG_VERDICT))
    data = _nested(nf.NFTA_EXPR_DATA, register + _nested(nf.NFTA_IMMEDIATE_DATA, verdict))
    expression = _nested(nf.NFTA_LIST_ELEM, text_attribute(nf.NFTA_EXPR_NAME, "immediate") + data)
    return _nested(nf.NFTA_RULE_EXPRESSIONS, expression)


def _nested(kind: int, payload: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, payload)
