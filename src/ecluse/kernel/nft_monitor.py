"""Describes the transactions that nf_tables announces (group NFNLGRP_NFTABLES) in words.

The kernel sends one message for each thing that a transaction did, then NFT_MSG_NEWGEN with the
generation id, and the id and command name of the process that made it (nf_tables_commit in
net/netfilter/nf_tables_api.c). Transactions never mix.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    SUBSYSTEM_BITS,
    NetlinkSocket,
    attributes,
    messages,
    number,
    text,
)
from ecluse.kernel.netlink_stream import EVENT_BUFFER, NetlinkStream
from ecluse.kernel.nft_messages import TABLE
from ecluse.kernel.read_exit_table import NFPROTO_NETDEV
from ecluse.kernel.read_exit_table import TABLE as SECOND_LOCK
from ecluse.ports import KernelChange
from ecluse.ruleset.exit_text import LEARNED
from ecluse.ruleset.table_names import is_learned_set
from ecluse.safe_text import replace_unsafe

PHRASES: dict[int, tuple[int, str, str]] = {
    nf.NFT_MSG_DELTABLE: (0, "table deleted", ""),
    nf.NFT_MSG_NEWTABLE: (0, "table added or altered", ""),
    nf.NFT_MSG_DELCHAIN: (3, "chain {name} deleted", ""),
    nf.NFT_MSG_NEWCHAIN: (3, "chain {name} added or altered", ""),
    nf.NFT_MSG_DELRULE: (
        2,
        "rule deleted in chain {name}",
        "{count} rules deleted in chain {name}",
    ),
    nf.NFT_MSG_NEWRULE: (2, "rule added in chain {name}", "{count} rules added in chain {name}"),
    nf.NFT_MSG_DELSET: (2, "set {name} deleted", ""),
    nf.NFT_MSG_NEWSET: (2, "set {name} added or altered", ""),
    nf.NFT_MSG_DELOBJ: (2, "object {name} deleted", ""),
    nf.NFT_MSG_NEWOBJ: (2, "object {name} added or altered", ""),
    nf.NFT_MSG_DELFLOWTABLE: (2, "flowtable {name} deleted", ""),
    nf.NFT_MSG_NEWFLOWTABLE: (2, "flowtable {name} added or altered", ""),
    nf.NFT_MSG_DELSETELEM: (
        2,
        "1 element deleted from {name}",
        "{count} elements deleted from {name}",
    ),
    nf.NFT_MSG_NEWSETELEM: (2, "1 element added to {name}", "{count} elements added to {name}"),
}
"""Message -> the attribute that names the thing, the phrase for one, the phrase for many.

0: the table, which is attribute 1 everywhere. In the order of telling: the whole before its parts.
"""
_WEIGHT = {message: place for place, message in enumerate(PHRASES)}
MOST_PHRASES = 6
LONGEST = 300
DORMANT = "table made dormant"


class TransactionReader:
    """Gathers messages until NEWGEN ends their transaction.

    ours: says by netlink port and by process or thread id whether this process made a transaction.
    """

    def __init__(self, ours: Callable[[int, int], bool]) -> None:
        self._ours = ours
        self._our_ports: set[int] = set()
        self._forget()

    def _forget(self) -> None:
        self._seen: Counter[tuple[int, bytes]] = Counter()
        self._second_lock: Counter[tuple[int, bytes]] = Counter()
        self._port = 0
        self._dormant = False
        self._filled = ""

    def decode(self, datagram: bytes) -> Iterator[KernelChange]:
        """Give the transactions that end in this datagram."""
        for kind, _, _, port, body in messages(datagram, self._is_passed_over):
            if kind >> SUBSYSTEM_BITS != nf.NFNL_SUBSYS_NFTABLES:
                continue
            if port != self._port:  # the end of the transaction before was lost
                self._forget()
                self._port = port
            what = kind & 0xFF
            if what == nf.NFT_MSG_NEWGEN:
                yield self._kernel_change(body)
                self._forget()
            elif body[0] in {nf.NFPROTO_INET, NFPROTO_NETDEV}:
                self._count_message(what, body)

    def _is_passed_over(self, kind: int, port: int) -> bool:
        """Say whether a message needs no decoding: of our own loads only the end matters.

        A load has 100,000 messages.
        """
        return port in self._our_ports and kind & 0xFF != nf.NFT_MSG_NEWGEN

    def lost(self, error: OSError) -> KernelChange:
        """Say that events were lost, and forget the torn transaction."""
        self._forget()
        return KernelChange(
            process="",
            pid=0,
            ours=False,
            touched=True,
            what=f"changes were missed ({error.strerror})",
            lost=True,
        )

    def _count_message(self, what: int, body: bytes) -> None:
        """Count one message if it is about one of our tables.

        The table's name comes first, the thing's soon after.
        """
        phrase = PHRASES.get(what)
        found = attributes(body, 4)
        netdev = body[0] == NFPROTO_NETDEV
        ours = SECOND_LOCK if netdev else TABLE
        if phrase is None or not found or text(found[0][1]) != ours:
            return
        if netdev:
            self._count_second_lock(what, dict(found).get(phrase[0], b"") if phrase[0] else b"")
            return
        if what == nf.NFT_MSG_NEWTABLE:
            flags = number(dict(found).get(nf.NFTA_TABLE_FLAGS, b""))
            self._dormant = bool(flags & nf.NFT_TABLE_F_DORMANT)
        named_by = phrase[0]
        name = dict(found).get(named_by, b"") if named_by else b""
        if what in {nf.NFT_MSG_NEWSETELEM, nf.NFT_MSG_DELSETELEM} and is_learned_set(text(name)):
            self._filled = text(name)  # filling such a set is no tampering
            return
        self._seen[what, name] += 1

    def _count_second_lock(self, what: int, name: bytes) -> None:
        if what in {nf.NFT_MSG_NEWSETELEM, nf.NFT_MSG_DELSETELEM} and text(name) in LEARNED:
            return  # by the DNS gate, with each address
        self._second_lock[what, name] += 1

    def _kernel_change(self, body: bytes) -> KernelChange:
        found = dict(attributes(body, 4))
        pid = number(found.get(nf.NFTA_GEN_PROC_PID, b""))
        ours = self._ours(self._port, pid)
        decoded = self._port not in self._our_ports
        if ours:
            self._our_ports.add(self._port)
        return KernelChange(
            process=replace_unsafe(text(found.get(nf.NFTA_GEN_PROC_NAME, b""))),
            pid=pid,
            ours=ours,
            touched=bool(self._seen) or not decoded,
            what=self._description(self._seen, dormant=self._dormant)
            if decoded
            else "changed by ourselves",
            generation=number(found.get(nf.NFTA_GEN_ID, b"")),
            filled=replace_unsafe(self._filled),
            gone=(nf.NFT_MSG_DELTABLE, b"") in self._seen
            and (nf.NFT_MSG_NEWTABLE, b"") not in self._seen,
            second_lock=self._description(self._second_lock),
        )

    @staticmethod
    def _description(seen: Counter[tuple[int, bytes]], *, dormant: bool = False) -> str:
        """Describe what was seen, the weightiest first, in at most LONGEST characters."""
        phrases = [DORMANT] if dormant else []
        for what, name in sorted(seen, key=lambda key: _WEIGHT[key[0]]):
            if dormant and what == nf.NFT_MSG_NEWTABLE:
                continue
            count = seen[what, name]
            _, one, many = PHRASES[what]
            phrases.append(
                (many if many and count > 1 else one).format(count=count, name=text(name))
            )
        more = len(phrases) - MOST_PHRASES
        first = ", ".join(phrases[:MOST_PHRASES])[:LONGEST]
        return replace_unsafe(first + (f" and {more} more" if more > 0 else ""))


def monitor_transactions(
    ours: Callable[[int, int], bool], buffer: int = EVENT_BUFFER
) -> NetlinkStream[KernelChange]:
    """Subscribe to the transactions of this thread's network namespace, from now on.

    buffer: bytes that may wait.
    """
    reader = TransactionReader(ours)
    netlink = NetlinkSocket(NETLINK_NETFILTER, (nf.NFNLGRP_NFTABLES,), buffer)
    return NetlinkStream(netlink, reader.decode, reader.lost)
