"""What was answered, by set: recorded, put into the kernel before the answer is given, put back
when it is gone, kept on disk.

Nobody else fills these sets. What they hold and was never learned here is taken out; what was
learned and is missing is put back. Both need to know what was learned, whatever process of the gate
it was: see `record`.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ecluse.dnsproxy import learned_snapshot
from ecluse.dnsproxy.learned_journal import Held, LearnedJournal, Origins
from ecluse.dnsproxy.learned_snapshot import clock
from ecluse.kernel import read_table
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
from ecluse.ruleset.proxy_config import ProxyConfig
from ecluse.safe_text import replace_unsafe

_TABLE_HANDLE = 4
_PIECE = 1000
_FRESH = 15
"""Seconds in which an address is not put in again: each time is a transaction, which disturbs
whoever reads the table.
"""
_GRACE = 120.0
"""Seconds in which an address that is over is still known: packets refresh it in the kernel, and we
read that once a minute.
"""
_SURELY = 2.0
"""An address with as many seconds left is not over in the kernel either, whose clock is read in
whole seconds: it was deleted.
"""
_PAUSE, _SHARE = 0.25, 10
"""Sets that others change are read again after so many seconds, and ten times what the reading
took: a flood costs little.
"""
_EVENT_BUFFER = 1 << 20
"""A load of the daemon's with 100,000 elements need not be heard out: what is dropped is said, and
we look.
"""


class LearnedAddresses:
    """The addresses in the kernel's sets, and until when they are kept.

    removed: addresses of others that were taken out, last: the newest. adopted: those that nothing
    told of, when the record was lost; they stay, since a kept connection may live on each.
    """

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._file = state_dir / learned_snapshot.FILE
        self._boot = learned_snapshot.boot_id()
        self._netlink = NetlinkSocket(NETLINK_NETFILTER)
        self._record = LearnedJournal(run_dir, self._boot)
        self._sets: dict[str, tuple[int, int]] = {}
        self._touched: set[str] = set()
        self._all_touched = False
        self._next = 0.0
        self._saved = False
        self.removed = self.adopted = 0
        self.last = ""
        known, led, whole = self._record.load()
        kept, before, boot = learned_snapshot.read_snapshot(self._file, self._boot)
        # The first process since the machine started finds nothing of its own in the kernel.
        self._adopting = not whole and boot in {"", self._boot}
        self._held: Held = {} if whole else kept
        self._origins: Origins = {} if whole else before
        self._orders: ProxyConfig | None = None
        self._outdated = False
        for name, origins in led.items():
            self._origins.setdefault(name, {}).update(origins)
        most = clock() + KEPT_SECONDS
        for name, every in known.items():
            held = self._held.setdefault(name, {})
            held.update({address: min(until, most) for address, until in every.items()})
        if not self._adopting:
            self._record.renew(self._held, self._origins)

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def close(self) -> None:
        """Let go of the kernel and of the record, and write nothing."""
        self._netlink.close()
        self._record.close()

    @property
    def trouble(self) -> str:
        """Say why strangers can't be told, empty when they can."""
        return self._record.trouble

    def learn(self, services: Iterable[str], addresses: Iterable[IPAddress], led: str) -> None:
        """Put addresses into the sets of these services.

        OSError: they are not all there, so do not answer with them.

        led: the name that stands for itself, or `*.operator.example` for one below a wildcard.
        """
        orders, addresses = self._orders, tuple(addresses)
        # Orders may have changed since the question left.
        services = [one for one in services if orders is None or orders.leads(led, one)]
        wanted = [
            SetElement(name, address)
            for address in addresses
            for service in services
            for name in (
                table_names.learned_set(str(address.version), service),
                table_names.learned_set(str(address.version)),
            )
        ]
        until = clock() + KEPT_SECONDS
        fresh = until - _FRESH
        due = [
            one
            for one in wanted
            if one.set not in self._sets
            or self._held.get(one.set, {}).get(one.address, 0.0) < fresh
        ]
        new: Held = {}
        for one in due:
            if one.address not in self._held.get(one.set, ()):
                new.setdefault(one.set, {})[one.address] = until
        for name, address in self._led(services, addresses, led):
            new.setdefault(name, {})[address] = self._held.get(name, {}).get(address, until)
        if self._record.is_outgrown:
            self._record.renew(self._held, self._origins)
        self._record.append(new, self._origins)
        self._put(due)
        for one in due:
            self._held.setdefault(one.set, {})[one.address] = until

    def _led(
        self, services: Iterable[str], addresses: Iterable[IPAddress], led: str
    ) -> Iterator[tuple[str, IPAddress]]:
        """Take note of what led to these addresses; give, by set, those of which that is new."""
        for service in services:
            for address in addresses:
                name = table_names.learned_set(str(address.version), service)
                origins = self._origins.setdefault(name, {})
                before = origins.get(address, frozenset())
                if led not in before:
                    origins[address] = before | {led}
                    yield name, address

    def _put(self, wanted: list[SetElement]) -> None:
        for start in range(0, len(wanted), _PIECE):
            with self._fresh_after_fault():
                add_elements(self._netlink, wanted[start : start + _PIECE])

    @contextlib.contextmanager
    def _fresh_after_fault(self) -> Iterator[None]:
        """Take another socket after a refusal: answers of what the kernel refused may still be
        under way on this one.
        """
        try:
            yield
        except OSError:
            self._netlink.close()
            self._netlink = NetlinkSocket(NETLINK_NETFILTER)
            raise

    def is_open(self) -> bool:
        """Say whether the kernel lets everything pass now: its own word, in the moment of the
        question. No word is a no.
        """
        try:
            with self._fresh_after_fault():
                target = read_table.goto_targets(self._netlink, ["forward"])["forward"]
        except OSError:
            return False
        return (target or "").endswith("_open")

    # -- what names lead to ------------------------------------------------------------------------

    def obey(self, orders: ProxyConfig) -> None:
        """Know by which names addresses are kept from now on; `tend` lets those go to which none
        leads any more.
        """
        self._orders, self._outdated = orders, True

    def _let_go(self) -> None:
        """Take out of a service's sets what its names no longer lead to.

        A service that is not in the orders is left alone.
        """
        orders = self._orders
        if orders is None:
            return
        answered = (*orders.names.values(), *orders.wildcards.values())
        for service in {service for each in answered for service in each.services}:
            for digit in ("4", "6"):
                name = table_names.learned_set(digit, service)
                origins = self._origins.get(name, {})
                # Of thousands of addresses few names are the origin.
                lead = {led for led in set().union(*origins.values()) if orders.leads(led, service)}
                gone = [address for address, led in origins.items() if led.isdisjoint(lead)]
                every = table_names.learned_set(digit)
                others = [
                    n for n in self._held if n not in {name, every} and n.endswith(f"_{digit}")
                ]
                # The service's own set last: should the kernel refuse, the next try finds the same
                # to do.
                self._forget(
                    every, [a for a in gone if not any(a in self._held[n] for n in others)]
                )
                self._forget(name, gone)

    def _forget(self, name: str, gone: Sequence[IPAddress]) -> None:
        held, origins = self._held.get(name, {}), self._origins.get(name, {})
        there, _ = set_contents(self._netlink, name) if gone and name in self._sets else ({}, False)
        here = [address for address in gone if address in there]
        for start in range(0, len(here), _PIECE):
            with self._fresh_after_fault():
                delete_elements(self._netlink, name, here[start : start + _PIECE])
        for address in gone:
            held.pop(address, None)
            origins.pop(address, None)

    # -- the kernel's sets -------------------------------------------------------------------------

    def changes(self) -> NetlinkStream[KernelChange]:
        """Hear the kernel's transactions from now on. OSError when that is not possible."""

        def is_ours(port: int, _process: int) -> bool:
            return bool(port == self._netlink.socket.getsockname()[0])

        return monitor_transactions(is_ours, _EVENT_BUFFER)

    def hear(self, change: KernelChange) -> bool:
        """Take note of a transaction; say whether it is worth a look."""
        if change.ours:
            return False
        if change.filled or change.lost:
            self._all_touched = True
        return change.touched or bool(change.filled)

    def tend(self) -> None:
        """Look at the sets that were made anew, and at those that others changed.

        OSError: try again later.
        """
        with contextlib.suppress(DumpInterruptedError):
            self._look(every=False)

    def _look(self, *, every: bool) -> None:
        """Set right what is due.

        Those made anew are at once: a kept flow may be waiting. DumpInterruptedError: not all.
        """
        table = read_table.table_attributes(self._netlink)
        serial = number(table.get(_TABLE_HANDLE, b"")) if table else 0
        now = {name: (serial, handle) for name, handle in set_handles(self._netlink).items()}
        anew = {name for name, which in now.items() if self._sets.get(name) != which}
        self._sets = {name: which for name, which in now.items() if name not in anew}
        if self._all_touched:
            self._touched, self._all_touched = set(self._sets), False
        began = clock()
        rest = (
            (set(self._sets) if every else self._touched & set(now))
            if every or began >= self._next
            else set()
        )
        fault: OSError | None = None
        for name in [*sorted(anew), *sorted(rest - anew)]:
            try:
                self._settle(name)
            except DumpInterruptedError:
                raise
            except OSError as error:  # the other sets are no worse for it
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
            self._record.renew(self._held, self._origins)
        if self._outdated:
            self._let_go()
            self._outdated = False
            self._record.renew(self._held, self._origins)

    def _settle(self, name: str) -> None:
        """Bring a set and what we know of it together: who is no child of ours goes, who is missing
        comes back.
        """
        now = clock()
        there, everything = set_contents(self._netlink, name)
        if everything:
            self._take_out(name, [None])
        held = self._held.setdefault(name, {})
        strange = [address for address in there if address not in held]
        if strange and self._adopting:
            held.update(dict.fromkeys(strange, now))
            self.adopted += len(strange)
        elif strange and self._record.is_sound:
            self._take_out(name, strange)
        endless = [
            address
            for address, seconds in there.items()
            if seconds > KEPT_SECONDS and address in held
        ]
        for address in held.keys() & there.keys():
            held[address] = now + min(there[address], KEPT_SECONDS)
        missing = [
            SetElement(name, address, int(until - now))
            for address, until in held.items()
            if address not in there and until - now >= _SURELY
        ]
        self._put([*(SetElement(name, address) for address in endless), *missing])

    def _take_out(self, name: str, strange: Sequence[IPAddress | None]) -> None:
        for start in range(0, len(strange), _PIECE):
            piece = strange[start : start + _PIECE]
            with self._fresh_after_fault():
                delete_elements(self._netlink, name, piece)
            self.removed += len(piece)
        self.last = replace_unsafe(f"{strange[-1] or '*'} in {name}")

    # -- the disk ----------------------------------------------------------------------------------

    def save(self) -> None:
        """Look at what packets have kept alive, forget what is over, and put the rest on disk.

        OSError when that fails.
        """
        try:
            self._look(every=True)
        except (
            OSError
        ):  # `tend` says so; what is known is saved all the same, and nothing is forgotten
            if self._adopting:
                return
        else:
            over = clock() - _GRACE
            alive = {
                name: {address: until for address, until in every.items() if until > over}
                for name, every in self._held.items()
            }
            self._held = {name: every for name, every in alive.items() if every}
            self._origins = {
                name: {
                    address: led
                    for address, led in every.items()
                    if address in self._held.get(name, ())
                }
                for name, every in self._origins.items()
            }
        self._record.renew(self._held, self._origins)
        if self._held or not self._saved:
            self._saved = False
            learned_snapshot.write_snapshot(self._file, self._held, self._origins, self._boot)
            self._saved = not self._held
