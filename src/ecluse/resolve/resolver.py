"""Keeps the addresses of host names fresh ahead of time (`ports.Resolver`).

A change of level never waits for DNS: it uses what is known.
"""

import asyncio
import contextlib
import random
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from typing import Self

from ecluse.dns_exchange import Server
from ecluse.policy import private_kind as is_private
from ecluse.ports import Clock
from ecluse.records import KEEP, KnownAddress, KnownName, NameStatistics
from ecluse.resolve import known_names
from ecluse.resolve.lookup import look_up

_AT_ONCE = 16
"""Names that are asked for at the same time; each is two queries to every resolver."""

_WAITING = 128
"""Names whose look-up is not finished: some may have an answer, and wait for a silent resolver.

So one dead resolver of two does not delay all names: 40 a second rather than 5. Each costs two
sockets for every silent resolver.
"""

_PACE, _BURST = 100, 200
"""Look-ups a second, and at once: with thousands of names the event loop must be free for commands.

Measured with 5,000 names and two resolvers: without a limit, four fifths of a processor, and a cut
waited a second.
"""
_ROUND = 0.1  # seconds between two looks at which names are due; it looks at all of them

_LONGEST_BACK_OFF = 600.0
"""Seconds between two tries while a name fails, at most."""

_MOST_DOUBLINGS = 20
_JITTER = 0.1  # of the wait
_MOST_JITTER = 10.0  # seconds
_HOUSEKEEPING = 60.0  # seconds
_LAST_GOOD = timedelta(days=30)
_SILENT = 86400.0
"""Seconds without any answer before a name's last good addresses may go.

By the monotonic clock: setting the date (a dead battery, then NTP) would end them in a moment.
"""
_LEFT_SECONDS = KEEP.total_seconds()
"""The same for an address that left: a machine may use it for so long."""
_RANDOM = random.SystemRandom()


class DnsResolver:
    """Resolves names with dnspython: asks all servers in parallel and unites their answers.

    The servers, (address, port), come with `watch`: they belong to the site, which a reload may
    change.
    clock: the time written into what is known. timeout: seconds for one server to answer.
    minimum_ttl, maximum_ttl: seconds; bounds of what a TTL may say and so of the time between two
    look-ups.
    known: what was saved before, used until asked again. How long an address stays:
    `resolve/known_names.py`.
    last_good: how long an address outlives its last answer while the resolvers fail.

    A name is asked for again when its first address expires, up to 10 s later so that not all come
    at once; after a failure following 30 s, then twice as long each time, to 10 minutes. All of it
    runs in the event loop that `watch` or `refresh` is first called in; `close` ends it.
    """

    def __init__(
        self,
        clock: Clock,
        timeout: float = 3.0,
        minimum_ttl: float = 30.0,
        maximum_ttl: float = 3600.0,
        known: Mapping[str, KnownName] | None = None,
        last_good: timedelta = _LAST_GOOD,
    ) -> None:
        self._servers: tuple[Server, ...] = ()
        self._clock = clock
        self._timeout = timeout
        self._shortest = minimum_ttl
        self._longest = maximum_ttl
        self._known = dict(known or {})
        self._last_good = last_good
        self._private: frozenset[str] = frozenset()
        self._tallies: dict[str, NameStatistics] = {}
        # name -> address -> since when no answer gives it, in the event loop's seconds
        self._silent: dict[str, dict[str, float]] = {}
        self._watched: dict[str, float] = {}  # name -> when it is due, in the event loop's seconds
        self._failed: dict[str, int] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._asking = asyncio.Semaphore(_AT_ONCE)
        self._waiting = asyncio.Semaphore(_WAITING)
        self._paced = 0.0  # when the next look-up's turn is, in the event loop's seconds
        self._wake = asyncio.Event()
        self._wakes_at = 0.0
        self._scheduler: asyncio.Task[None] | None = None
        self._listeners: weakref.WeakSet[_Changes] = weakref.WeakSet()
        self._closed = False

    def known(self) -> Mapping[str, KnownName]:
        """Return all that is known now; asks no server."""
        return dict(self._known)

    def tallies(self) -> Mapping[str, NameStatistics]:
        """Return the statistics of look-ups, by name, since this resolver was made."""
        return dict(self._tallies)

    def watch(
        self,
        names: Iterable[str],
        servers: Sequence[Server],
        private: AbstractSet[str] = frozenset(),
    ) -> None:
        """Keep these names fresh from now on by these servers, and forget others once they are old.

        private: those of them that may lead to private addresses; of others these are forgotten at
        once. Call it inside the event loop. With other servers than before, names that fail are
        asked for at once.
        """
        now = asyncio.get_running_loop().time()
        wanted = {_normal(name) for name in names}
        due = self._watched
        # What is allowed now was refused so far: ask at once.
        allowed = {_normal(name) for name in private}
        due = {name: moment for name, moment in due.items() if name not in allowed - self._private}
        for name in self._private - allowed:
            addresses = {
                a for a in known_names.addresses_of(self._now(name)) if is_private(ip_address(a))
            }
            self._replace(known_names.without(self._now(name), addresses))
        self._private = frozenset(allowed)
        if tuple(servers) != self._servers:
            self._servers = tuple(servers)
            due = {name: moment for name, moment in due.items() if name not in self._failed}
            self._failed = {}
        self._watched = {
            name: due[name] if name in due else self._first_due(name, now) for name in wanted
        }
        self._failed = {name: count for name, count in self._failed.items() if name in wanted}
        self._wake.set()
        if self._scheduler is None and not self._closed:
            self._scheduler = asyncio.create_task(self._run_schedule(), name="resolver")

    def changes(self) -> AsyncIterator[frozenset[str]]:
        """Yield, until `close`, the names whose addresses changed since the last item."""
        listener = _Changes()
        self._listeners.add(listener)
        if self._closed:
            listener.end()
        return listener

    def due(self) -> Mapping[str, frozenset[str]]:
        """Return the addresses whose time is over, by name: for `let_go`, once unused."""
        now = self._clock()
        found = {
            name: frozenset(
                each.address
                for each in known_names.overdue(known, now, self._last_good)
                if self._long_silent(name, each)
            )
            for name, known in self._known.items()
        }
        return {name: addresses for name, addresses in found.items() if addresses}

    def _long_silent(self, name: str, each: KnownAddress) -> bool:
        now = asyncio.get_running_loop().time()
        since = self._silent.get(name, {}).get(each.address, now)
        return now - since >= (
            _LEFT_SECONDS if each.left else min(_SILENT, self._last_good.total_seconds())
        )

    def used(self, addresses: Mapping[str, AbstractSet[str]]) -> None:
        """Restart the time of these addresses, by name: live connections to them were found."""
        now = self._clock()
        for name in addresses.keys() & self._known.keys():
            self._known[name] = known_names.mark_used(self._known[name], addresses[name], now)

    def let_go(self, addresses: Mapping[str, AbstractSet[str]]) -> None:
        """Forget these addresses, by name, unless an answer has given them again meanwhile."""
        due = self.due()
        for name in addresses.keys() & due.keys():
            self._replace(known_names.without(self._known[name], addresses[name] & due[name]))

    async def refresh(self, names: Iterable[str], seconds: float) -> Mapping[str, KnownName]:
        """Ask for these names now, for at most `seconds`; return what is known then.

        Later answers show in `known` and `changes`.
        """
        wanted = {_normal(name) for name in names}
        tasks = [self._start(name) for name in sorted(wanted)] if not self._closed else []
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return {name: self._known[name] for name in wanted if name in self._known}

    async def close(self) -> None:
        """End every look-up and every `changes`. What is known stays readable."""
        self._closed = True
        tasks = [*self._running.values(), *([self._scheduler] if self._scheduler else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in list(self._listeners):
            listener.end()

    def _first_due(self, name: str, now: float) -> float:
        known = self._known.get(name)
        moment = known_names.expires(known) if known else None
        wait = (
            (moment - self._clock()).total_seconds()
            if moment and not (known and known.failure)
            else 0.0
        )
        return now + min(max(wait, 0.0), self._longest)

    async def _run_schedule(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            for name in [
                n for n, due in self._watched.items() if due <= now and n not in self._running
            ]:
                self._start(name)
            self._forget_old()
            # A name that is being asked for gets its next time when the answer is in, which wakes
            # us if that is sooner.
            waiting = (due for name, due in self._watched.items() if name not in self._running)
            wait = min(max(min(waiting, default=now + _HOUSEKEEPING) - now, _ROUND), _HOUSEKEEPING)
            self._wakes_at = now + wait
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the
            # wake-up (CPython 86296).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _forget_old(self) -> None:
        now = self._clock()
        for name in [
            name for name in self._known if name not in self._watched and name not in self._running
        ]:
            if known_names.is_old(self._known[name], now):
                del self._known[name]
                self._tallies.pop(name, None)
                self._silent.pop(name, None)

    def _start(self, name: str) -> asyncio.Task[None]:
        """Start a look-up, unless one is running."""
        task = self._running.get(name)
        # One that has just ended had its answer before this call.
        if task is None or task.done():
            task = asyncio.create_task(self._ask(name), name=f"resolve {name}")
            self._running[name] = task
            task.add_done_callback(partial(self._done, name))
        return task

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        if self._running.get(name) is not task:
            return
        del self._running[name]
        if name not in self._watched or self._watched[name] < self._wakes_at - _ROUND:
            self._wake.set()

    async def _ask(self, name: str) -> None:
        await asyncio.sleep(self._turn_in())
        async with self._waiting, _Permit(self._asking) as permit:
            try:
                after = await self._look_up(name, permit.release)
            except Exception as error:  # noqa: BLE001 - shown with the name
                after = replace(
                    self._now(name), asked=self._clock(), failure=f"could not be looked up: {error}"
                )
        self._replace(after)
        self._update_silence(after)
        self._schedule(after)

    def _turn_in(self) -> float:
        """Return the seconds until the next look-up may start, and count it as started then."""
        now = asyncio.get_running_loop().time()
        self._paced = max(self._paced + 1 / _PACE, now - _BURST / _PACE)
        return max(self._paced - now, 0.0)

    def _update_silence(self, known: KnownName) -> None:
        """Remember, by the monotonic clock, since when no answer has given an address."""
        before, now = self._silent.get(known.name, {}), asyncio.get_running_loop().time()
        self._silent[known.name] = {
            each.address: before.get(each.address, now)
            for each in known.addresses
            if each.seen != known.asked
        }

    def _now(self, name: str) -> KnownName:
        return self._known.get(name, KnownName(name, ()))

    def _replace(self, after: KnownName) -> None:
        """Replace what is known of a name; tell the listeners if its addresses changed."""
        before = self._now(after.name)
        self._known[after.name] = after
        if known_names.addresses_of(after) != known_names.addresses_of(before):
            for listener in self._listeners:
                listener.add(after.name)

    async def _look_up(self, name: str, heard: Callable[[], None]) -> KnownName:
        if not self._servers:
            return replace(
                self._now(name), asked=self._clock(), failure="no resolver is configured"
            )
        answer = await look_up(
            name,
            self._servers,
            self._timeout,
            may_be_private=name in self._private,
            on_answered=heard,
        )
        # Only now: while the question was under way addresses were used, or let go.
        before, now = self._now(name), self._clock()
        self._tallies[name] = known_names.count_lookup(
            self._tallies.get(name, NameStatistics()), before, answer, now
        )
        return known_names.after_answer(before, answer, now, self._shortest, self._longest)

    def _schedule(self, known: KnownName) -> None:
        if known.name not in self._watched:
            return
        fresh = [each.expires - each.seen for each in known.addresses if each.seen == known.asked]
        if fresh:
            self._failed.pop(known.name, None)
            wait = min(fresh).total_seconds()
        else:
            count = self._failed[known.name] = min(
                self._failed.get(known.name, 0) + 1, _MOST_DOUBLINGS
            )
            wait = min(self._shortest * 2 ** (count - 1), _LONGEST_BACK_OFF)
        wait += _RANDOM.uniform(0.0, min(wait * _JITTER, _MOST_JITTER))
        self._watched[known.name] = asyncio.get_running_loop().time() + wait


class _Permit:
    """A permit of a semaphore that may be released early."""

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore
        self._taken = False

    async def __aenter__(self) -> Self:
        await self._semaphore.acquire()
        self._taken = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        if self._taken:
            self._taken = False
            self._semaphore.release()


class _Changes(AsyncIterator[frozenset[str]]):
    """One reader of changes: each name is queued once, so that a slow reader costs no memory."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._ready = asyncio.Event()
        self._ended = False

    def add(self, name: str) -> None:
        self._names.add(name)
        self._ready.set()

    def end(self) -> None:
        self._ended = True
        self._ready.set()

    async def __anext__(self) -> frozenset[str]:
        while not self._names:
            if self._ended:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        names = frozenset(self._names)
        self._names.clear()
        return names


def _normal(name: str) -> str:
    return name.lower().rstrip(".")
