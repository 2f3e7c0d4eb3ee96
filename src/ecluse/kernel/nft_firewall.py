"""The port `Firewall`: programs as text through libnftables, the rest by our netlink socket.

The rest is the switch, elements of large maps, and all readings.
"""

import asyncio
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ecluse.errors import KernelError, RulesetRejectedError
from ecluse.kernel import bulk_elements as bulk
from ecluse.kernel import closed_table, read_table, switch_commit
from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.fingerprint import fingerprint
from ecluse.kernel.flowtable import FlowtableState, commit_and_end, refusal_words
from ecluse.kernel.libnftables import NOT_PERMITTED, new_context, refusal_text
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    Request,
    SocketPool,
    kernel_errors,
    netfilter_ports,
    retry_interrupted,
)
from ecluse.kernel.netlink_stream import NetlinkStream
from ecluse.kernel.nft_monitor import monitor_transactions
from ecluse.kernel.proxy_sets import SetElement, add_elements, half_expired, learned_addresses
from ecluse.kernel.read_table import in_one_generation
from ecluse.policy import IPAddress
from ecluse.ports import CounterValue, KernelChange, SetReading, SwitchReading
from ecluse.ruleset.flowtable import flowtable_text
from ecluse.ruleset.program import NamedSet
from ecluse.ruleset.switch import SwitchState

READERS = 4
HINT = "'nft list table inet ecluse' shows what stands in the kernel now"

T = TypeVar("T")

_LONG_NAME = re.compile(r"[\w.]{256}")
"""One more than a name may have (NFT_NAME_MAXLEN is 256 with the NUL): libnftables aborts the
process at such a chain.
"""


def _read_owner() -> int:
    with (
        kernel_errors("ask whose table inet ecluse is"),
        NetlinkSocket(NETLINK_NETFILTER) as netlink,
    ):
        return read_table.owner_port(netlink)


class NftFirewall:
    """nf_tables of the network namespace that the process lives in; the port `Firewall`.

    Transactions run one after the other on one thread of their own: two threads in one libnftables
    context crash. A transaction once handed over is carried out, even when its caller is cancelled.
    Readings run beside it.

    Each of them that may take something away ends the flowtable, whose flows ask no chain.
    """

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(
            1, thread_name_prefix="nft", initializer=self._remember_thread
        )
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="nft-read")
        self._context: Any = None
        self._trial: Any = None
        self._own_ports: set[int] = set()
        self._flowtable = FlowtableState()
        self._thread = 0
        self._sockets = SocketPool(NETLINK_NETFILTER)
        self._streams: list[NetlinkStream[KernelChange]] = []
        self._closed = False

    async def check(self, text: str) -> None:
        """Ask the kernel whether it would take `text`.

        RulesetRejectedError with libnftables' own words.
        """
        refusal = await self._run(text, dry=True)
        if refusal:
            raise RulesetRejectedError(
                f"the kernel would not take this ruleset; nothing was changed\n{refusal}",
                hint=HINT,
            )

    async def apply(self, text: str) -> None:
        """Apply `text` as one transaction, whole or not at all.

        KernelError with libnftables' own words.
        """
        refusal = await self._run(text, dry=False)
        if refusal:
            await self._raise_if_owned(refusal)
            raise KernelError(
                "the kernel refused the transaction; it is whole or not at all, so nothing was "
                f"changed\n{refusal}",
                hint=HINT,
            )

    @property
    def flowtable_may_stand(self) -> bool:
        """Say whether a flowtable of ours may stand."""
        return self._flowtable.may_stand

    async def make_flowtable(self, devices: Sequence[str]) -> None:
        """Put a new flowtable, without flows, in the place of the one before."""
        refusal = await asyncio.get_running_loop().run_in_executor(
            self._writer, self._make_flowtable, flowtable_text(devices)
        )
        if refusal:
            raise KernelError(refusal_words(refusal), hint=HINT)

    def _make_flowtable(self, text: str) -> str:
        stood, self._flowtable.may_stand = self._flowtable.may_stand, False
        refusal = self._run_text(text, dry=False)
        self._flowtable.may_stand = stood or not refusal
        return refusal

    async def end_flowtable(self) -> None:
        """Take the flowtable away; the next packets of its flows are judged by the chains."""
        if refusal := await self._run("", dry=False):
            raise KernelError(refusal)

    async def _raise_if_owned(self, refusal: str) -> None:
        """Raise a KernelError that names the owner, where a process has the table for itself."""
        if NOT_PERMITTED not in refusal:
            return
        port = await asyncio.get_running_loop().run_in_executor(self._readers, _read_owner)
        if port:
            raise KernelError(
                f"a process made table inet ecluse again as its own ('flags owner', netlink port "
                f"{port}, which is its number as a rule): the kernel lets nobody else change it, "
                "nothing was changed, and the gate does not judge what passes now; look at "
                f"'ps -p {port}' and end that process: its table goes with it, and eclused puts "
                "its own back",
                hint=f"ps -p {port}",
            )

    async def switch(self, position: SwitchState) -> str:
        """Put the switch into a position as one transaction.

        Messages that the kernel refuses are tried once more as a text: libnftables may put it
        otherwise, or knows words for it.

        Returns:
            Why the messages were refused, where the text was taken; mostly empty.

        Raises:
            KernelError: in the kernel's words and libnftables'; nothing was changed.
        """
        refused, refusal = await asyncio.get_running_loop().run_in_executor(
            self._writer, self._switch, position
        )
        if refusal:
            await self._raise_if_owned(refusal)
            raise KernelError(
                f"the kernel refused the switch ({refused}); it is whole or not at all, so nothing "
                f"was changed\n{refusal}",
                hint=HINT,
            )
        return (
            f"the kernel refused the switch ({refused}), and took it from libnftables"
            if refused
            else ""
        )

    def _switch(self, position: SwitchState) -> tuple[str, str]:
        """Switch; give why the messages were refused, and why the text was; empty: not refused."""
        flows = self._flowtable
        try:
            self._commit([*switch_commit.switch_requests(position), *flows.requests()])
        except OSError as error:
            reason = bulk.refusal_reason(error)
            refusal = self._run_text(position.text(), dry=False)
            if flows.may_stand and not refusal:
                reason += "; flows in a flowtable go on"
            return reason, refusal
        flows.may_stand = False
        return "", ""

    async def change_elements(self, gone: Sequence[NamedSet], come: Sequence[NamedSet]) -> None:
        """Change elements of maps to counters as one transaction.

        KernelError in the kernel's words.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._writer, self._change_elements, gone, come
            )
        except OSError as error:
            raise KernelError(
                f"the kernel refused elements of maps: {bulk.refusal_reason(error)}; it is all or "
                "none, so nothing was changed",
                retry=True,
                hint=HINT,
            ) from error

    def _change_elements(self, gone: Sequence[NamedSet], come: Sequence[NamedSet]) -> None:
        if requests := bulk.element_requests(gone, come):
            if gone:
                self._flowtable.commit(self._commit, requests)
            else:
                self._commit(requests)

    def _commit(self, requests: Sequence[Request]) -> None:
        """Carry out a transaction by raw netlink.

        OSError with the first fault's errno, in the kernel's words.
        """
        with self._sockets.borrow() as netlink:
            netlink.transaction(nf.NFNL_SUBSYS_NFTABLES, requests)

    def apply_closed_table(self, inside: Sequence[str]) -> bool:
        """Shut the gate by the smallest table, where none stands; False where one does.

        On the caller's thread: a hop to another costs time. An `nft` that deleted the table ends
        right after it, and the kernel then locks nf_tables for 20 ms (it waits for RCU with the
        commit mutex held, nft_rcv_nl_event): this has to come before that. A transaction that
        fails costs as much (nf_tables_abort), so the kernel is asked first whether there is a
        table.
        """
        with kernel_errors("shut the gate in the absence of table inet ecluse"):
            try:
                with self._sockets.borrow() as netlink:
                    if read_table.table_attributes(netlink) is not None:
                        return False
                    commit_and_end(
                        partial(netlink.transaction, nf.NFNL_SUBSYS_NFTABLES),
                        closed_table.closed_table_requests(tuple(inside)),
                    )
            except FileExistsError:
                return False
        return True

    async def read_switch(self, chains: Iterable[str]) -> SwitchReading:
        """Read the switch back, as of one transaction.

        Each chain's goto target, and the base chains' policies and hooks.
        """
        names = tuple(chains)

        def read_switch_of(netlink: NetlinkSocket) -> SwitchReading:
            return in_one_generation(
                netlink,
                lambda: SwitchReading(
                    read_table.goto_targets(netlink, names),
                    *read_table.policies_and_hooks(netlink),
                    read_table.ruleset_generation(netlink),
                ),
            )

        return await self._on_reader("read the switch back", read_switch_of)

    async def targets(self, chains: Iterable[str]) -> dict[str, str | None]:
        """Give each chain's goto target; None where it does anything else, or does not exist."""
        names = tuple(chains)

        def targets_of(netlink: NetlinkSocket) -> dict[str, str | None]:
            return in_one_generation(netlink, lambda: read_table.goto_targets(netlink, names))

        return await self._on_reader("read the gate chains", targets_of)

    async def policies(self) -> dict[str, str]:
        """Give the policy of every base chain of the table: accept or drop."""
        return await self._on_reader("read the base chains", read_table.chain_policies)

    async def chains(self) -> tuple[str, ...]:
        """Name every chain of the table, sorted; empty when there is no table."""
        return await self._on_reader("read the chains", read_table.chain_names)

    async def objects(self) -> dict[str, tuple[str, ...]]:
        """Name what the table holds, sorted, by kind; empty when there is no table."""

        def objects_of(netlink: NetlinkSocket) -> dict[str, tuple[str, ...]]:
            return in_one_generation(netlink, lambda: read_table.object_names(netlink))

        return await self._on_reader("read what the table holds", objects_of)

    async def fingerprint(self, sets: Iterable[str] | None = None) -> dict[str, str]:
        """Digest the table, by part (see the port); empty when there is no table."""
        only = None if sets is None else frozenset(sets)

        def fingerprint_of(netlink: NetlinkSocket) -> dict[str, str]:
            return in_one_generation(netlink, lambda: fingerprint(netlink, only))

        return await self._on_reader("read the whole table", fingerprint_of)

    async def ruleset_generation(self) -> int:
        """Give nf_tables' generation id: every transaction in this namespace changes it."""
        return await self._on_reader("read the ruleset's generation", read_table.ruleset_generation)

    async def counters(self) -> dict[str, CounterValue]:
        """Read every named counter of the table; empty when there is no table."""
        return await self._on_reader("read the counters", read_table.counter_values)

    async def learned(self) -> dict[str, frozenset[int]]:
        """Read the addresses in the DNS proxy's sets."""
        return await self._on_reader("read the DNS gate's sets", learned_addresses)

    async def half_expired(
        self, used: Mapping[str, frozenset[IPAddress]]
    ) -> dict[str, frozenset[IPAddress]]:
        """Give those of these learned addresses half of whose time is over."""
        return await self._on_reader(
            "read the DNS gate's sets", lambda netlink: half_expired(netlink, used)
        )

    async def renew_learned(self, addresses: Mapping[str, frozenset[IPAddress]]) -> None:
        """Give learned addresses their whole time again, as one transaction.

        KernelError in the kernel's words.
        """
        with kernel_errors("hold on to what the DNS gate learned in its sets of table inet ecluse"):
            await asyncio.get_running_loop().run_in_executor(
                self._writer, self._renew_learned, addresses
            )

    def _renew_learned(self, addresses: Mapping[str, frozenset[IPAddress]]) -> None:
        with self._sockets.borrow() as netlink:
            add_elements(
                netlink,
                [SetElement(name, one) for name, every in addresses.items() for one in every],
            )

    async def refused(self) -> SetReading:
        """Read the refused sets."""
        return await self._on_reader("read who was refused", read_table.refused_elements)

    async def limited(self) -> SetReading:
        """Read which machines asked the DNS proxy more than they may."""
        return await self._on_reader(
            "read who asked the DNS gate too much", read_table.limited_elements
        )

    def changes(self) -> NetlinkStream[KernelChange]:
        """Give every transaction from now on, in order, ours included.

        Ends when the firewall is closed.
        """
        with kernel_errors("subscribe to nf_tables' changes"):
            stream = monitor_transactions(self._is_ours)
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        """End the threads and the streams of changes; the kernel stays as it is.

        Waits for a running transaction.
        """
        for stream in self._streams:
            stream.close()
        if not self._closed:
            self._writer.submit(self._drop_contexts)
        self._closed = True
        self._writer.shutdown()
        self._readers.shutdown()
        self._sockets.close()

    async def _on_reader(self, doing: str, read: Callable[[NetlinkSocket], T]) -> T:
        """Read on a reader's thread; again from the start when the ruleset changed meanwhile."""

        def once() -> T:
            with self._sockets.borrow() as netlink:
                return read(netlink)

        with kernel_errors(f"{doing} of table inet ecluse"):
            return await asyncio.get_running_loop().run_in_executor(
                self._readers, retry_interrupted, once
            )

    async def _run(self, text: str, *, dry: bool) -> str:
        """Run one transaction on its thread; give libnftables' words when it failed."""
        if "\0" in text:
            return "the text holds a NUL byte, where libnftables would silently stop reading"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"the text can't be written as UTF-8: {error.reason}"
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, self._run_text, text, dry
        )

    def _run_text(self, text: str, dry: bool) -> str:
        """Run a transaction, or its dry run; give the words of the refusal, empty when taken."""
        if long := _LONG_NAME.search(text):
            name = f"{long[0][:60]}..."
            return f"a name of more than 255 characters, where libnftables ends the process: {name}"
        if dry:
            return self._dry_run(text)
        if self._context is None:
            self._context = new_context()
        code, _, error = self._flowtable.run(self._context.cmd, text)
        # Of a refusal the dry run's words are told: they name the line.
        return (self._dry_run(text) or refusal_text(code, error)) if code else ""

    def _dry_run(self, text: str) -> str:
        """Dry-run in a context of its own, from a file in memory: of files libnftables names lines.

        libnftables 1.0.6 leaves a dry run's things in its cache: the next command in that context
        meets false conflicts of intervals, or an assertion that ends the process. The used context
        is freed at the next dry run, not here: closing its socket waits for nf_tables, 10 ms just
        after a transaction, and `apply` may be next.
        """
        self._trial = None
        self._trial = new_context()
        self._trial.set_dry_run(True)
        with os.fdopen(os.memfd_create("ruleset"), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            path = f"/proc/self/fd/{file.fileno()}"
            code, _, error = self._trial.cmd_from_file(path)
        # A command that fails empties the cache, so that its memory is free before that.
        self._trial.cmd("!")
        return refusal_text(code, error.replace(f"{path}:", "line "))

    def _remember_thread(self) -> None:
        self._thread = threading.get_native_id()

    def _drop_contexts(self) -> None:
        """Free the contexts on their own thread: one context, one thread."""
        self._context = self._trial = None

    def _is_ours(self, port: int, thread: int) -> bool:
        """Say whether this process made a transaction, by its netlink port.

        A port is unique in a network namespace. Where /proc hides the ports: by the thread's id,
        which the kernel names too.
        """
        if port not in self._own_ports:
            ports = netfilter_ports()
            if not ports:
                return thread == self._thread
            self._own_ports |= {port} & ports
        return port in self._own_ports
