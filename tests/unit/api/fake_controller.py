"""A small controller in memory: only the controller is fake, sockets and HTTP are real."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType

from ecluse.alerts import Alert
from ecluse.errors import NotFoundError, RequestError, StaleError
from ecluse.records import Action, Actor, Generation
from ecluse.results import (
    AddressState,
    Change,
    DnsState,
    Event,
    ExitDeviceState,
    LiveFlow,
    NameState,
    Plan,
    Purge,
    Refused,
    RefusedFlow,
    SecondLockState,
    ServiceStatus,
    Status,
    TableUse,
)  # fmt: skip

AT = datetime(2026, 11, 23, 2, 12, 5, tzinfo=UTC)
ROOT = Actor(0, "root", 41, "ecluse", 1000)
ZONES = ("care", "guests", "gateway")
DIGEST = "sha256:" + "ab" * 32


def _who(command):
    return command.actor, command.reason, command.authorised_by


@dataclass
class FakeController:
    levels: dict = field(default_factory=lambda: dict.fromkeys(ZONES, "open"))
    history: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    senders: list = field(default_factory=list)
    expected: list = field(default_factory=list)
    attempts: list = field(default_factory=list)
    raising: Exception | None = None
    delay: float = 0.0
    finished: int = 0
    unrecorded: tuple = ()
    verified: bool = True
    name: str = "chu-example"
    title: str = "CHU d'Exempl\u00e9"
    purge_polls: int = 2
    lock_polls: int = 3
    lock_wanted: bool = True
    subscribers: list = field(default_factory=list)
    ended_streams: int = 0
    reading: int = 0
    most_reading: int = 0
    forbidden_fails: bool = False
    routes: tuple = ()

    def __post_init__(self):
        self._new(Action.START, ROOT, "first start", "")

    def _new(self, action, actor, reason, authorised_by, back_to=None):
        number = len(self.history) + 1
        self.history.append(
            Generation(
                number,
                AT + timedelta(minutes=number),
                action,
                MappingProxyType(dict(self.levels)),
                DIGEST,
                DIGEST,
                actor,
                reason,
                authorised_by,
                number - 1,
                back_to,
            )
        )
        return self.history[-1]

    def _expects(self, expect, sender):
        self.senders.append((sender.gone(), sender.early))
        self.expected.append(expect)
        if expect not in {None, len(self.history)}:
            raise StaleError(f"generation {len(self.history)} came first; nothing was opened")

    async def _reads(self):
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.reading -= 1
        if self.raising:
            raise self.raising

    async def _change(self, command, before):
        await asyncio.sleep(self.delay)
        if self.raising:
            raise self.raising
        self.finished += 1
        made = self._new(command.action, *_who(command), command.back_to)
        closed = any(level != "open" for level in self.levels.values())
        kept, ended = (("laboratory",), ("web-mail",)) if closed else ((), ())
        return Change(
            made, before != self.levels, self.verified, kept, ended, self.unrecorded, 1.25
        )

    def extension_routes(self):
        return self.routes

    async def status(self):
        await self._reads()
        newest = self.history[-1]
        return Status(
            self.name,
            self.title,
            "0.1.0",
            MappingProxyType(dict(self.levels)),
            newest.number,
            newest.at,
            newest.actor.user,
            newest.reason,
            newest.authorised_by,
            armed=True,
            in_step=True,
            checked=AT,
            recorded=not self.unrecorded,
            services=self._services(),
            refused_packets=7,
            refused_inbound_packets=2,
            purge=None,
            last_tamper=None,
            last_leak=None,
            warnings=("the review date of 'laboratory' is past",),
            dns=DnsState("cut", working=True, learned=3, refused=5, strained={"rate": 1}),
            second_lock=SecondLockState(
                "isolate", True, True, "", AT, (ExitDeviceState("wan0", 1, 2, 3),)
            ),
            tables=(TableUse("connections", 12, 262144, "net.netfilter.nf_conntrack_max"),),
            alerts=(
                Alert(
                    "routes-unknown", {"error": "no socket"}, AT, "warning", "no routes: no socket"
                ),
            ),
        )

    def _services(self):
        return (
            ServiceStatus(
                "laboratory",
                "Outside laboratory",
                "vital",
                "Biology",
                "+33 5 55 55 01 00",
                "kept",
                ("care",),
                ("care",),
                1200,
                90_000,
                AT,
                (AddressState("results.lab.example", "203.0.113.10", 30, expired=False),),
                date(2026, 1, 31),
                ("its review date is past",),
                (
                    NameState(
                        "results.lab.example",
                        "front.lab.example",
                        AT,
                        "192.0.2.53 answered SERVFAIL",
                        1,
                        0,
                        AT,
                        AT,
                        2,
                        {"192.0.2.53": {"answered": 2, "servfail": 2}},
                        ("it has one address",),
                    ),
                ),
            ),
            ServiceStatus(
                "web-mail",
                "Mail",
                "deferrable",
                "IT",
                "1234",
                "closed",
                ("guests",),
                (),
                0,
                0,
                None,
                (),
                None,
                (),
            ),
        )

    async def services(self):
        await self._reads()
        return self._services()

    def generations(self):
        return tuple(reversed(self.history))

    def generation(self, number):
        if not 1 <= number <= len(self.history):
            raise NotFoundError(
                f"there is no generation {number}", hint="'ecluse history' lists them"
            )
        return self.history[number - 1]

    def purge(self, number):
        if number == 1:
            return None
        self.purge_polls -= 1
        if self.purge_polls > 0:
            return Purge(number, "running")
        return Purge(
            number, "done", ended=3, kept=5, examples=("tcp 10.10.0.5:40000 -> 198.51.100.7:443",)
        )

    async def second_lock(self, number):
        self.lock_polls -= 1
        state = SecondLockState(
            "isolate", self.lock_wanted, True, "why", AT, (ExitDeviceState("wan0", 12, 2, 0),)
        )
        if self.lock_polls > 0 and self.lock_wanted:
            return replace(state, stands=False, being_set=True)
        return state if self.lock_wanted else replace(state, stands=False)

    def closes(self, level, zones):
        return level in {"cut", "isolate"}

    async def set_level(self, level, zones, command, *, expect=None):
        self.calls.append(("level", level, zones, *_who(command)))
        self._expects(expect, command.sender)
        if level not in {"open", "reduced", "cut", "isolate"}:
            raise RequestError(
                f"there is no level '{level}'", hint="the levels are open, reduced, cut, isolate"
            )
        before = dict(self.levels)
        self.levels.update(dict.fromkeys(zones or ZONES, level))
        return await self._change(command, before)

    async def rollback(self, number, command, *, expect=None):
        self.calls.append(("rollback", number, *_who(command)))
        self._expects(expect, command.sender)
        target = self.generation(number if number is not None else len(self.history) - 1)
        before, self.levels = dict(self.levels), dict(target.levels)
        return await self._change(replace(command, back_to=target.number), before)

    async def reload(self, command, *, expect=None):
        self.calls.append(("reload", expect, *_who(command)))
        self.senders.append((command.sender.gone(), command.sender.early))
        if expect not in {None, DIGEST}:
            raise StaleError(
                "the files changed since the plan was shown", hint="look at the plan again"
            )
        return await self._change(command, None)

    async def plan(self, *, level, zones, rollback, reload):
        self.calls.append(("plan", level, zones, rollback, reload))
        await self._reads()
        return Plan(
            dict(self.levels),
            DIGEST,
            ("+ add element", "- delete element"),
            ("service 'pacs' is new",),
            ("laboratory",),
            ("web-mail",),
            4,
            9,
            (LiveFlow("tcp 10.10.0.5:40000 -> 198.51.100.7:443", "care", ""),),
            (),
        )

    async def refused(self, limit):
        self.calls.append(("refused", limit))
        await self._reads()
        flow = RefusedFlow("10.10.0.66", "198.51.100.7", "tcp", 443, 900, 54_000, 12, "care")
        return Refused(
            (flow,)[:limit], (replace(flow, destination="", port=0),)[:limit], full=False
        )

    async def events(self):
        queue = asyncio.Queue(100)
        self.subscribers.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self.subscribers.remove(queue)
            self.ended_streams += 1

    def tell(self, message):
        for queue in self.subscribers:
            queue.put_nowait(Event(AT, "level", message, 1, MappingProxyType(dict(self.levels))))

    async def forbidden(self, actor, what):
        if self.forbidden_fails:
            raise OSError("No space left on device")
        self.attempts.append((actor, what))
