"""The switch by raw netlink: what `SwitchState.text` says, without the time that libnftables takes for
its cache.

Only what a change of level states goes this way: policies of base chains that are there, chains
emptied, rules of one goto. Source: NFTA_CHAIN_*, NFTA_RULE_*, NFTA_EXPR_*, NFTA_IMMEDIATE_*,
NFTA_VERDICT_* in linux/netfilter/nf_tables.h.
"""

import struct

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
from ecluse.ruleset.switch import SwitchState
from ecluse.ruleset.table_names import BASE_CHAINS

NEWCHAIN, NEWRULE, DELRULE = 3, 6, 8
LIST_ELEMENT = 1
IMMEDIATE_REGISTER, VERDICT_REGISTER = 1, 0

_HEADER = netfilter_header(read_table.NFPROTO_INET)


def transaction(position: SwitchState) -> list[Request]:
    """Give the messages that put the switch into a position, in the order of its text.

    The kernel empties a chain when a rule is deleted by no handle, and changes only what a message
    about a chain names.
    """
    verdict = attribute(
        read_table.CHAIN_POLICY, struct.pack("!I", read_table.POLICIES.index(position.verdict))
    )
    table = text_attribute(read_table.CHAIN_TABLE, read_table.TABLE)
    requests = [
        _request(NEWCHAIN, 0, table + text_attribute(read_table.CHAIN_NAME, hook) + verdict)
        for hook in BASE_CHAINS
    ]
    for chain, target in position.targets.items():
        where = text_attribute(read_table.RULE_TABLE, read_table.TABLE) + text_attribute(
            read_table.RULE_CHAIN, chain
        )
        requests += [
            _request(DELRULE, 0, where),
            _request(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, where + goto_rule(target)),
        ]
    return requests


def _request(message: int, flags: int, body: bytes) -> Request:
    return netfilter_kind(read_table.NFNL_SUBSYS_NFTABLES, message), flags, _HEADER + body


def goto_rule(target: str) -> bytes:
    """Give the expressions of a rule that goes to a chain and does nothing else (see
    `tables.goto_target`).
    """
    code = attribute(read_table.VERDICT_CODE, struct.pack("!i", read_table.NFT_GOTO))
    verdict = _nested(
        read_table.DATA_VERDICT, code + text_attribute(read_table.VERDICT_CHAIN, target)
    )
    register = attribute(IMMEDIATE_REGISTER, struct.pack("!I", VERDICT_REGISTER))
    data = _nested(read_table.EXPR_DATA, register + _nested(read_table.IMMEDIATE_DATA, verdict))
    expression = _nested(LIST_ELEMENT, text_attribute(read_table.EXPR_NAME, "immediate") + data)
    return _nested(read_table.RULE_EXPRESSIONS, expression)


def _nested(kind: int, payload: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, payload)
