"""Ends the flowtable of ours, as part of any transaction: two messages that its absence can't fail.

nf_tables_newtable takes NLM_F_CREATE for a table that exists, and a table may be deleted in the
transaction that made it (nf_tables_api.c; tried on 6.1, 6.12 and 6.18). Only a process that owns a
table of that name (`flags owner`) makes them fail: then all else is done without them, since no
closing is refused for an extra.
"""

from collections.abc import Callable, Sequence

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.libnftables import NOT_PERMITTED
from ecluse.kernel.netlink import NLM_F_CREATE, Request, text_attribute
from ecluse.kernel.nft_messages import inet_request
from ecluse.ruleset import flowtable

_NAMED = text_attribute(nf.NFTA_TABLE_NAME, flowtable.TABLE.removeprefix("inet "))

REMOVAL_REQUESTS: tuple[Request, ...] = (
    inet_request(nf.NFT_MSG_NEWTABLE, NLM_F_CREATE, _NAMED),
    inet_request(nf.NFT_MSG_DELTABLE, 0, _NAMED),
)


Commit = Callable[[Sequence[Request]], None]


def commit_and_end(commit: Commit, requests: Sequence[Request]) -> bool:
    """Commit messages, and end the flowtable with them; False where its owner refuses the latter.

    OSError as of `commit`: nothing was changed.
    """
    try:
        commit([*requests, *REMOVAL_REQUESTS])
    except PermissionError:
        commit(requests)
        return False
    return True


class FlowtableState:
    """Whether a flowtable of ours may stand; who says so ends it with the next transaction.

    Until something ended it, it may: an earlier process may have left one.
    """

    def __init__(self) -> None:
        self.may_stand = True

    def requests(self) -> tuple[Request, ...]:
        """Give the messages that end it; none where it can't stand."""
        return REMOVAL_REQUESTS if self.may_stand else ()

    def commit(self, commit: Commit, requests: Sequence[Request]) -> None:
        """Commit messages, and end it with them where it may stand."""
        if self.may_stand:
            self.may_stand = not commit_and_end(commit, requests)
        else:
            commit(requests)

    def run(self, cmd: Callable[[str], tuple[int, str, str]], text: str) -> tuple[int, str, str]:
        """Run a text by libnftables' `cmd`, and end it with that where it may stand."""
        whole = f"{text}\n{flowtable.REMOVAL}" if self.may_stand else text
        done = cmd(whole)
        if not done[0]:
            self.may_stand = False
        elif NOT_PERMITTED in done[2]:
            without = whole.replace(flowtable.REMOVAL, "")
            if without.strip() and without != whole and not (again := cmd(without))[0]:
                self.may_stand = True
                return again
        return done


def refusal_words(refusal: str) -> str:
    """Say in words why the kernel took no flowtable. refusal: libnftables' words."""
    if "No such file or directory" in refusal:
        return (
            "it has none (modules nf_flow_table_inet, nft_flow_offload), or an interface has just "
            "gone"
        )
    return refusal.partition("\n")[0]
