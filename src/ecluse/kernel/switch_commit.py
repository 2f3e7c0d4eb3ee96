"""Builds the switch as netlink messages: what `SwitchState.text` says, without libnftables' cache.

Only a change of levels goes this way: policies of base chains that exist, chains emptied, rules of
one goto.
"""

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, Request
from ecluse.kernel.nft_messages import (
    chain_attributes,
    inet_request,
    nested,
    number_attribute,
    rule_attributes,
    verdict,
)
from ecluse.ruleset.switch import SwitchState
from ecluse.ruleset.table_names import BASE_CHAINS


def switch_requests(position: SwitchState) -> list[Request]:
    """Give the messages that put the switch into a position, in the order of its text."""
    # The kernel changes only the parts of a chain that the message names: here its policy.
    policy = number_attribute(nf.NFTA_CHAIN_POLICY, nf.POLICIES.index(position.verdict))
    requests = [
        inet_request(nf.NFT_MSG_NEWCHAIN, 0, chain_attributes(chain) + policy)
        for chain in BASE_CHAINS
    ]
    for chain, target in position.targets.items():
        where = rule_attributes(chain)
        # A deletion without a handle empties the chain.
        requests.append(inet_request(nf.NFT_MSG_DELRULE, 0, where))
        if target:
            rule = where + nested(nf.NFTA_RULE_EXPRESSIONS, verdict(nf.NFT_GOTO, target))
            requests.append(inet_request(nf.NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule))
    return requests
