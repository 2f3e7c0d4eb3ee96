"""Ends the flowtable of ours, as part of any transaction: two messages that its absence can't fail.

nf_tables_newtable takes NLM_F_CREATE for a table that exists, and a table may be deleted in the
transaction that made it (nf_tables_api.c; tried on 6.1, 6.12 and 6.18).
"""

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import NLM_F_CREATE, Request, text_attribute
from ecluse.kernel.nft_messages import inet_request
from ecluse.ruleset import flowtable

_NAMED = text_attribute(nf.NFTA_TABLE_NAME, flowtable.TABLE.removeprefix("inet "))

REMOVAL_REQUESTS: tuple[Request, ...] = (
    inet_request(nf.NFT_MSG_NEWTABLE, NLM_F_CREATE, _NAMED),
    inet_request(nf.NFT_MSG_DELTABLE, 0, _NAMED),
)


class FlowtableState:
    """Whether a flowtable of ours may stand; who says so ends it with the next transaction.

    Until something ended it, it may: an earlier process may have left one.
    """

    def __init__(self) -> None:
        self.may_stand = True

    def requests(self) -> tuple[Request, ...]:
        """Give the messages that end it; none where it can't stand."""
        return REMOVAL_REQUESTS if self.may_stand else ()

    def text(self) -> str:
        """Write the lines that end it; empty where it can't stand."""
        return f"\n{flowtable.REMOVAL}" if self.may_stand else ""


def refusal_words(refusal: str) -> str:
    """Say in words why the kernel took no flowtable. refusal: libnftables' words."""
    if "No such file or directory" in refusal:
        return (
            "it has none (modules nf_flow_table_inet, nft_flow_offload), or an interface has just "
            "gone"
        )
    return refusal.partition("\n")[0]
