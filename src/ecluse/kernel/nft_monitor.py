"""The transactions that nf_tables announces (group NFNLGRP_NFTABLES), told in words.

The kernel sends one message for each thing that a transaction did, then NFT_MSG_NEWGEN with the id,
process and command name of whoever made it (nf_tables_commit in net/netfilter/nf_tables_api.c);
transactions never mix.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from ecluse.kernel import read_table
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    SUBSYSTEM_BITS,
    Netlink,
    attributes,
    messages,
    number,
    text,
)
from ecluse.kernel.netlink_stream import EVENT_BUFFER, NetlinkStream
from ecluse.ports import KernelChange
from ecluse.ruleset.table_names import is_learned
from ecluse.safe_text import replace_unsafe

NFNLGRP_NFTABLES = 7
NEWGEN = 15
GEN_PROC_PID, GEN_PROC_NAME = 2, 3
NEWTABLE, DELTABLE, NEWSETELEM, DELSETELEM = 0, 2, 12, 14
TABLE_FLAGS, NFT_TABLE_F_DORMANT = 2, 1

# Message -> which attribute names the thing (table names are attribute 1 everywhere), what
# happened, to one and to many.
WORDS: dict[int, tuple[int, str, str]] = {
    0: (0, "table added or altered", ""),
    2: (0, "table deleted", ""),
    3: (3, "chain {name} added or altered", ""),
    5: (3, "chain {name} deleted", ""),
    6: (2, "rule added in chain {name}", "{count} rules added in chain {name}"),
    8: (2, "rule deleted in chain {name}", "{count} rules deleted in chain {name}"),
    9: (2, "set {name} added or altered", ""),
    11: (2, "set {name} deleted", ""),
    12: (2, "1 element added to {name}", "{count} elements added to {name}"),
    14: (2, "1 element deleted from {name}", "{count} elements deleted from {name}"),
    18: (2, "object {name} added or altered", ""),
    20: (2, "object {name} deleted", ""),
    22: (2, "flowtable {name} added or altered", ""),
    24: (2, "flowtable {name} deleted", ""),
}
# The order of telling: the whole before its parts.
WEIGHT = (2, 0, 5, 3, 8, 6, 11, 9, 20, 18, 24, 22, 14, 12)
MOST_PHRASES = 6
LONGEST = 300
DORMANT = "table made dormant"


class TransactionReader:
    """Gathers messages until NEWGEN ends their transaction.

    ours: (netlink port, process or thread id) -> whether it is our own context that made the
    transaction.
    """

    def __init__(self, ours: Callable[[int, int], bool]) -> None:
        self._ours = ours
        self._our_ports: set[int] = set()
        self._forget()

    def _forget(self) -> None:
        self._seen: Counter[tuple[int, bytes]] = Counter()
        self._port = 0
        self._dormant = False
        self._filled = ""

    def decode(self, datagram: bytes) -> Iterator[KernelChange]:
        """Give the transactions that end in this datagram."""
        for kind, _, _, port, body in messages(datagram, self._is_passed_over):
            if kind >> SUBSYSTEM_BITS != read_table.NFNL_SUBSYS_NFTABLES:
                continue
            if port != self._port:  # what is left of a transaction whose end was lost
                self._forget()
                self._port = port
            what = kind & 0xFF
            if what == NEWGEN:
                yield self._change(body)
                self._forget()
            elif body[0] == read_table.NFPROTO_INET:
                self._note(what, body)

    def _is_passed_over(self, kind: int, port: int) -> bool:
        """Say whether a message needs no look: a load of ours has 100,000 of them, and only its end
        matters.
        """
        return port in self._our_ports and kind & 0xFF != NEWGEN

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

    def _note(self, what: int, body: bytes) -> None:
        """Count one message if it is about our table.

        The table's name comes first, the thing's soon after.
        """
        words = WORDS.get(what)
        found = attributes(body, 4)
        if words is None or not found or text(found[0][1]) != read_table.TABLE:
            return
        if what == NEWTABLE:
            flags = number(dict(found).get(TABLE_FLAGS, b""))
            self._dormant = bool(flags & NFT_TABLE_F_DORMANT)
        name = (
            next((payload for kind, payload in found if kind == words[0]), b"") if words[0] else b""
        )
        if what in {NEWSETELEM, DELSETELEM} and is_learned(text(name)):
            self._filled = text(name)  # what it is there for
            return
        self._seen[what, name] += 1

    def _change(self, body: bytes) -> KernelChange:
        found = dict(attributes(body, 4))
        pid = number(found.get(GEN_PROC_PID, b""))
        ours = self._ours(self._port, pid)
        told = self._port not in self._our_ports
        if ours:  # a load of ours has 100,000 messages that nobody asks about
            self._our_ports.add(self._port)
        return KernelChange(
            process=replace_unsafe(text(found.get(GEN_PROC_NAME, b""))),
            pid=pid,
            ours=ours,
            touched=bool(self._seen) or not told,
            what=self._what() if told else "changed by ourselves",
            generation=number(found.get(read_table.GEN_ID, b"")),
            filled=replace_unsafe(self._filled),
            gone=(DELTABLE, b"") in self._seen and (NEWTABLE, b"") not in self._seen,
        )

    def _what(self) -> str:
        """Tell what was seen, the weightiest first, in at most 300 characters."""
        phrases = [DORMANT] if self._dormant else []
        for what, name in sorted(self._seen, key=lambda key: WEIGHT.index(key[0])):
            if self._dormant and what == NEWTABLE:
                continue
            count = self._seen[what, name]
            _, one, many = WORDS[what]
            phrases.append(
                (many if many and count > 1 else one).format(count=count, name=text(name))
            )
        more = len(phrases) - MOST_PHRASES
        told = ", ".join(phrases[:MOST_PHRASES])[:LONGEST]
        return replace_unsafe(told + (f" and {more} more" if more > 0 else ""))


def watch(
    ours: Callable[[int, int], bool], buffer: int = EVENT_BUFFER
) -> NetlinkStream[KernelChange]:
    """Subscribe to the transactions of this thread's network namespace, from now on.

    buffer: bytes that may wait.
    """
    batches = TransactionReader(ours)
    netlink = Netlink(NETLINK_NETFILTER, (NFNLGRP_NFTABLES,), buffer)
    return NetlinkStream(netlink, batches.decode, batches.lost)
