"""The port `ExitTable`: table `netdev ecluse_exit` of the namespace that the process lives in."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from ecluse.errors import KernelError
from ecluse.exit_ports import ExitCounts, ExitReading
from ecluse.kernel import read_exit_table
from ecluse.kernel.exit_learned import reconcile_learned
from ecluse.kernel.libnftables import new_context, refusal_text
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    kernel_errors,
    retry_interrupted,
)
from ecluse.kernel.read_exit_table import ExitContents
from ecluse.kernel.read_table import in_one_generation
from ecluse.ports import CounterValue
from ecluse.ruleset import exit_text
from ecluse.ruleset.exit_values import ExitDevice, ExitLock, Standing

HINT = "'nft list table netdev ecluse_exit' shows what stands in the kernel now"
T = TypeVar("T")
Digests = dict[tuple[str, str], bytes]


class NftExitTable:
    """The second lock in the kernel.

    Its transactions run on a thread and in a libnftables context of their own: a large set takes
    seconds, and a cut must not wait for it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="exit-table")
        self._context: Any = None
        self._applied: tuple[ExitLock, Digests] | None = None

    async def apply(self, lock: ExitLock, *, whole: bool = False) -> None:
        """Make the table, or restate the one that stands; one transaction, counters stay."""
        await self._run("put the second lock in place", lambda: self._apply(lock, whole=whole))

    async def remove(self) -> None:
        """Remove the table; none there is no error."""
        await self._run("remove the second lock", self._remove)

    async def read_counts(self, lock: ExitLock) -> ExitReading:
        """Read what left and what was dropped; compares nothing."""
        return await self._run(
            "read the second lock's counters", lambda: retry_interrupted(lambda: _read_counts(lock))
        )

    async def read_table(self, lock: ExitLock | None) -> ExitReading:
        """Read what stands, and compare it with what is meant (None: no table)."""
        return await self._run(
            "read the second lock", lambda: retry_interrupted(lambda: self._read_table(lock))
        )

    def close(self) -> None:
        """End the thread; the kernel stays as it is."""
        self._thread.submit(self._drop_context)
        self._thread.shutdown()

    def _drop_context(self) -> None:
        self._context = None

    async def _run(self, doing: str, work: Callable[[], T]) -> T:
        with kernel_errors(doing):
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _apply(self, lock: ExitLock, *, whole: bool) -> None:
        last, self._applied = self._applied, None
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            refusal = ""
            # On old kernels a chain goes with its device: then what was read is no longer true.
            for _ in range(2):
                standing = retry_interrupted(lambda: read_exit_table.read_names(netlink))
                sound = _unchanged(last[0], lock, standing) if last and not whole else frozenset()
                refusal = self._refusal(exit_text.table_text(lock, standing, sound))
                if not refusal:
                    break
            if refusal:
                raise KernelError(
                    "the kernel refused the second lock; nothing was changed by it\n" + refusal,
                    hint=HINT,
                )
            if lock.learns:
                reconcile_learned(netlink)
            # Only the reading is repeated while others change the ruleset: the transaction counts.
            contents = retry_interrupted(lambda: _contents(netlink))
        if contents.names == exit_text.names(lock):
            left_alone = _left_alone(lock, sound, standing, last[1] if last else {})
            self._applied = lock, contents.digests | left_alone

    def _remove(self) -> None:
        self._applied = None
        if refusal := self._refusal(exit_text.REMOVAL):
            raise KernelError("the kernel keeps the second lock\n" + refusal, hint=HINT)

    def _refusal(self, text: str) -> str:
        if self._context is None:
            self._context = new_context()
        code, _, error = self._context.cmd(text)
        return refusal_text(code, error)

    def _read_table(self, lock: ExitLock | None) -> ExitReading:
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            if not read_exit_table.exists(netlink):
                missing = () if lock is None else ("there is no table netdev ecluse_exit",)
                return ExitReading(stands=False, faults=missing)
            contents = _contents(netlink)
            rows, full = read_exit_table.read_dropped(netlink)
            devices = tuple(one.name for one in lock.devices) if lock else ()
            hooks = read_exit_table.hooked_chains(netlink, devices)
        return ExitReading(
            stands=True,
            faults=tuple(self._faults(lock, contents, hooks)),
            hooks_read=hooks is not None,
            counts=tuple(_counts(lock, contents.counters)) if lock else (),
            dropped=rows,
            full=full,
        )

    def _faults(
        self, lock: ExitLock | None, contents: ExitContents, hooks: dict[str, str] | None
    ) -> Iterator[str]:
        if lock is None:
            yield "table netdev ecluse_exit stands, and none is meant to"
            return
        meant = exit_text.names(lock)
        for kind, here, there in (
            ("chain", contents.names.chains, meant.chains),
            ("set", contents.names.sets, meant.sets),
            ("counter", contents.names.counters, meant.counters),
        ):
            yield from (f"{kind} {name} is missing" for name in sorted(there - here))
            yield from (f"{kind} {name} is not ours" for name in sorted(here - there))
        if self._applied is None or self._applied[0] != lock:
            yield "its rules are not known to be as meant: it was not put there by this process"
        elif self._applied[1] != contents.digests:
            yield "somebody changed its rules or sets"
        for one in lock.devices:
            if hooks is not None and hooks.get(one.name) != exit_text.on_chain(one):
                yield f"the kernel asks it nothing of what leaves by {one.name}"


def _unchanged(last: ExitLock, lock: ExitLock, standing: Standing) -> frozenset[ExitDevice]:
    """Give the devices of a lock whose chains stand already, by the lock that was applied last.

    200 devices restated hold nf_tables for half a second: every other transaction waits.
    """
    if replace(last, devices=()) != replace(lock, devices=()):
        return frozenset()
    return frozenset(
        one
        for one in {*last.devices} & {*lock.devices}
        if (own := exit_text.device_names(one)).chains <= standing.chains
        and own.counters <= standing.counters
    )


def _left_alone(
    lock: ExitLock, sound: Iterable[ExitDevice], standing: Standing, before: Digests
) -> Digests:
    """Give the digests, as they were known, of what a restatement did not write.

    That is the sound devices' chains, and sets that stood. Who changed it since is found by them.
    """
    names = {name for one in sound for name in exit_text.device_names(one).chains}
    names |= exit_text.names(lock).sets & standing.sets
    return {key: digest for key, digest in before.items() if key[1] in names}


def _contents(netlink: NetlinkSocket) -> ExitContents:
    return in_one_generation(netlink, lambda: read_exit_table.read_contents(netlink))


def _read_counts(lock: ExitLock) -> ExitReading:
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        counters = read_exit_table.read_counters(netlink)
        rows, full = read_exit_table.read_dropped(netlink)
    counts = tuple(_counts(lock, counters))
    return ExitReading(stands=bool(counters), counts=counts, dropped=rows, full=full)


def _counts(lock: ExitLock, values: dict[str, CounterValue]) -> Iterator[ExitCounts]:
    none = CounterValue(0, 0)
    for one in lock.devices:
        yield ExitCounts(
            one.name,
            *(values.get(exit_text.counter(kind, one), none) for kind in exit_text.COUNTERS),
        )
