"""The addresses from DNS answers, by nft set: in the kernel before the answer is sent, and on disk.

Nobody else fills these sets. An element that was never learned here is deleted; a learned one that
is missing is added again. Both need to know what every process before this one learned: see
`learned_store`.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ecluse.dnsproxy.learned_store import LearnedStore, boot_id, clock
from ecluse.dnsproxy.proxy_config import ProxyConfig
from ecluse.kernel import read_table
from ecluse.kernel.exit_learned import reconcile_learned
from ecluse.kernel.netlink import NETLINK_NETFILTER, DumpInterruptedError, NetlinkSocket, number
from ecluse.kernel.netlink_stream import NetlinkStream
from ecluse.kernel.nft_monitor import monitor_transactions
from ecluse.kernel.proxy_sets import (
    SetElement,
    add_elements,
    delete_elements,
    set_contents,
    set_handles,
)
from ecluse.policy import IPAddress
from ecluse.ports import KernelChange
from ecluse.ruleset import table_names
from ecluse.ruleset.dns_redirect import KEPT_SECONDS
from ecluse.safe_text import replace_unsafe

_TABLE_HANDLE = 4  # NFTA_TABLE_HANDLE, linux/netfilter/nf_tables.h
_PIECE = 1000
_FRESH = 15
"""Seconds in which an address is not added again: each time is a transaction, which disturbs
every reader of the table.
"""
_GRACE = 120.0
"""Seconds for which an address is remembered after its time: packets refresh it in the kernel, and
we read that once a minute.
"""
_SURELY = 2.0
"""An address with this many seconds left has not expired in the kernel either, which counts whole
seconds. If it is missing there, somebody deleted it.
"""
_PAUSE, _SHARE = 0.25, 10
"""Sets that others change are read again after this many seconds, and after ten times what the
reading took: a flood of changes costs little.
"""
_EVENT_BUFFER = 1 << 20
"""Bytes. A load of 100,000 elements by the daemon may overflow it: the loss is reported, and then
we read the sets.
"""


class LearnedAddresses:
    """The learned addresses and until when they are kept.

    removed: how many addresses of somebody else were deleted; last: the newest of them.
    adopted: how many unknown ones were kept after the journal was lost, since a kept connection may
    depend on each.
    """

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._netlink = NetlinkSocket(NETLINK_NETFILTER)
        self._store = LearnedStore(state_dir, run_dir, boot_id())
        self._sets: dict[str, tuple[int, int]] = {}  # set -> handles of the table and of the set
        self._touched: set[str] = set()
        self._all_touched = False
        self._next = 0.0
        self._saved = False
        self.removed = self.adopted = 0
        self.last = ""
        self._config: ProxyConfig | None = None
        self._outdated = False
        self._learned, self._adopting = self._store.load()
        if not self._adopting:
            self._store.rewrite(self._learned)

    def __len__(self) -> int:
        return sum(map(len, self._learned.until.values()))

    def close(self) -> None:
        """Close the netlink socket and the journal; nothing is written."""
        self._netlink.close()
        self._store.close()

    @property
    def trouble(self) -> str:
        """Say why somebody else's addresses can't be told from ours, empty when they can."""
        return self._store.trouble

    def add_addresses(
        self, services: Iterable[str], addresses: Iterable[IPAddress], origin: str
    ) -> None:
        """Add addresses to the sets of these services, and record them.

        Args:
            services: those that the name is answered for.
            addresses: of one answer.
            origin: the name, or `*.operator.example` for one below a wildcard.

        Raises:
            OSError: they are not all in the kernel, so the answer must not be given.
        """
        config, addresses = self._config, tuple(addresses)
        # The configuration may have changed since the query was sent.
        services = [
            one for one in services if config is None or config.is_answered_for(origin, one)
        ]
        elements = [
            SetElement(name, address)
            for address in addresses
            for service in services
            for name in (
                table_names.learned_set(str(address.version), service),
                table_names.learned_set(str(address.version)),
            )
        ]
        known, until = self._learned.until, clock() + KEPT_SECONDS
        due = [
            one
            for one in elements
            if one.set not in self._sets
            or known.get(one.set, {}).get(one.address, 0.0) < until - _FRESH
        ]
        new: dict[str, dict[IPAddress, float]] = {}
        for one in due:
            if one.address not in known.get(one.set, ()):
                new.setdefault(one.set, {})[one.address] = until
        for name, address in self._add_origin(services, addresses, origin):
            new.setdefault(name, {})[address] = known.get(name, {}).get(address, until)
        if self._store.is_outgrown:
            self._store.rewrite(self._learned)
        # First the journal, then the kernel: an address that only the kernel has would be taken for
        # somebody else's by the next process.
        self._store.append(self._learned.rows(new))
        self._put(due)
        for one in due:
            known.setdefault(one.set, {})[one.address] = until

    def _add_origin(
        self, services: Iterable[str], addresses: Iterable[IPAddress], origin: str
    ) -> Iterator[tuple[str, IPAddress]]:
        """Record what led to these addresses; yield those, by set, for which that is new."""
        for service in services:
            for address in addresses:
                name = table_names.learned_set(str(address.version), service)
                origins = self._learned.origins.setdefault(name, {})
                before = origins.get(address, frozenset())
                if origin not in before:
                    origins[address] = before | {origin}
                    yield name, address

    def _put(self, elements: list[SetElement]) -> None:
        for start in range(0, len(elements), _PIECE):
            with self._new_socket_after_fault():
                add_elements(self._netlink, elements[start : start + _PIECE])

    @contextlib.contextmanager
    def _new_socket_after_fault(self) -> Iterator[None]:
        """Replace the socket after an error: late answers may still arrive on the old one."""
        try:
            yield
        except OSError:
            self._netlink.close()
            self._netlink = NetlinkSocket(NETLINK_NETFILTER)
            raise

    def is_open(self) -> bool:
        """Ask the kernel whether it lets everything pass now; no answer counts as no."""
        try:
            with self._new_socket_after_fault():
                target = read_table.goto_targets(self._netlink, ["forward"])["forward"]
        except OSError:
            return False
        return (target or "").endswith("_open")

    # -- the names that lead to addresses ----------------------------------------------------------

    def apply_config(self, config: ProxyConfig) -> None:
        """Keep addresses by these names from now on.

        `reconcile` then deletes the addresses to which no name leads any more.
        """
        self._config, self._outdated = config, True

    def _delete_nameless(self) -> None:
        """Delete from each service's sets what its names no longer lead to.

        A service that is not in the configuration is left alone: it is not kept at this level, and
        may be again.
        """
        config = self._config
        if config is None:
            return
        answered = (*config.names.values(), *config.wildcards.values())
        for service in {service for each in answered for service in each.services}:
            for digit in ("4", "6"):
                name = table_names.learned_set(digit, service)
                origins = self._learned.origins.get(name, {})
                # Few names are the origin of thousands of addresses: judge each name once.
                lead = {
                    one
                    for one in set().union(*origins.values())
                    if config.is_answered_for(one, service)
                }
                gone = [address for address, names in origins.items() if names.isdisjoint(lead)]
                every = table_names.learned_set(digit)
                others = [
                    addresses
                    for other, addresses in self._learned.until.items()
                    if other not in {name, every} and other.endswith(f"_{digit}")
                ]
                # The service's own set last: should the kernel refuse, the next try finds the same
                # addresses again.
                self._delete(every, [a for a in gone if not any(a in each for each in others)])
                self._delete(name, gone)

    def _delete(self, name: str, gone: Sequence[IPAddress]) -> None:
        there, _ = set_contents(self._netlink, name) if gone and name in self._sets else ({}, False)
        here = [address for address in gone if address in there]
        for start in range(0, len(here), _PIECE):
            with self._new_socket_after_fault():
                delete_elements(self._netlink, name, here[start : start + _PIECE])
        for address in gone:
            self._learned.until.get(name, {}).pop(address, None)
            self._learned.origins.get(name, {}).pop(address, None)

    # -- the kernel's sets -------------------------------------------------------------------------

    def changes(self) -> NetlinkStream[KernelChange]:
        """Return the kernel's transactions from now on. OSError if they can't be received."""

        def is_ours(port: int, _process: int) -> bool:
            return bool(port == self._netlink.socket.getsockname()[0])

        return monitor_transactions(is_ours, _EVENT_BUFFER)

    def is_relevant(self, change: KernelChange) -> bool:
        """Say whether `reconcile` should run after a transaction; remember that sets changed."""
        if change.ours:
            return False
        if change.filled or change.lost:
            self._all_touched = True
        return change.touched or bool(change.filled)

    def seconds_until_due(self) -> float:
        """Return the seconds until sets that others changed are read again, infinite for none."""
        due = self._all_touched or bool(self._touched & self._sets.keys())
        return max(self._next - clock(), 0.0) if due else math.inf

    def reconcile(self) -> None:
        """Reconcile new sets, and sets that others changed. OSError: try again later."""
        with contextlib.suppress(DumpInterruptedError):
            self._reconcile(every=False)

    def _reconcile(self, *, every: bool) -> None:
        """Reconcile the sets that are due, or all.

        New sets are due at once: the connections that depend on them are refused until then.

        Raises:
            DumpInterruptedError: somebody changed the table meanwhile; not all was done.
            OSError: the first fault; the other sets were done all the same.
        """
        table = read_table.table_attributes(self._netlink)
        serial = number(table.get(_TABLE_HANDLE, b"")) if table else 0
        now = {name: (serial, handle) for name, handle in set_handles(self._netlink).items()}
        # Another handle: the table or the set was deleted and made again, so it is empty.
        new = {name for name, both in now.items() if self._sets.get(name) != both}
        self._sets = {name: both for name, both in now.items() if name not in new}
        if self._all_touched:
            self._touched, self._all_touched = set(self._sets), False
        began = clock()
        if every:
            rest = set(self._sets)
        else:
            rest = self._touched & set(now) if began >= self._next else set()
        fault: OSError | None = None
        for name in [*sorted(new), *sorted(rest - new)]:
            try:
                self._reconcile_set(name)
            except DumpInterruptedError:
                raise
            except OSError as error:
                fault = fault or error
                continue
            self._sets[name] = now[name]
            self._touched.discard(name)
        if rest:
            ended = clock()
            self._next = ended + max(_PAUSE, _SHARE * (ended - began))
        if fault:
            raise fault
        if self._adopting:
            self._adopting = False
            self._store.rewrite(self._learned)
        if self._outdated:
            self._delete_nameless()
            self._outdated = False
            self._store.rewrite(self._learned)

    def _reconcile_set(self, name: str) -> None:
        """Reconcile one set with what was learned.

        Elements that were never learned are deleted, missing ones added again, time-outs cut to one
        hour.
        """
        now = clock()
        there, everything = set_contents(self._netlink, name)
        if everything:
            self._delete_foreign(name, [None])
        known = self._learned.until.setdefault(name, {})
        foreign = [address for address in there if address not in known]
        if foreign and self._adopting:
            known.update(dict.fromkeys(foreign, now))
            self.adopted += len(foreign)
        elif foreign and self._store.is_sound:
            self._delete_foreign(name, foreign)
        too_long = [
            address
            for address, seconds in there.items()
            if seconds > KEPT_SECONDS and address in known
        ]
        # Packets refresh an element: the kernel's time is the right one.
        for address in known.keys() & there.keys():
            known[address] = now + min(there[address], KEPT_SECONDS)
        missing = [
            SetElement(name, address, int(until - now))
            for address, until in known.items()
            if address not in there and until - now >= _SURELY
        ]
        self._put([*(SetElement(name, address) for address in too_long), *missing])

    def _delete_foreign(self, name: str, foreign: Sequence[IPAddress | None]) -> None:
        for start in range(0, len(foreign), _PIECE):
            piece = foreign[start : start + _PIECE]
            with self._new_socket_after_fault():
                delete_elements(self._netlink, name, piece)
            self.removed += len(piece)
        self.last = replace_unsafe(f"{foreign[-1] or '*'} in {name}")

    # -- the disk ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Read what packets have refreshed, forget what is over, and write the rest to disk.

        OSError if that fails.
        """
        try:
            self._reconcile(every=True)
        except OSError:
            # `reconcile` reports it. What is known is saved all the same, and nothing is forgotten.
            if self._adopting:
                return
        else:
            self._forget_expired()
            reconcile_learned(self._netlink)
        self._store.rewrite(self._learned)
        # Once empty, the file is not written again and again.
        if self._learned.until or not self._saved:
            self._saved = False
            self._store.save_snapshot(self._learned)
            self._saved = not self._learned.until

    def _forget_expired(self) -> None:
        over, learned = clock() - _GRACE, self._learned
        alive = {
            name: {address: until for address, until in addresses.items() if until > over}
            for name, addresses in learned.until.items()
        }
        learned.until = {name: addresses for name, addresses in alive.items() if addresses}
        learned.origins = {
            name: {
                address: names
                for address, names in origins.items()
                if address in learned.until.get(name, ())
            }
            for name, origins in learned.origins.items()
        }
