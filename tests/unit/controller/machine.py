"""A controller over fakes, in an event loop of its own, that can be commanded, broken, killed and
started again.
"""

import asyncio
import gc
import warnings
from dataclasses import replace
from ipaddress import ip_network

from ecluse.controller import Controller
from ecluse.controller.context import Options, Ports
from ecluse.errors import EcluseError
from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from ecluse.records import Action, Actor, Command
from ecluse.ruleset import switch
from tests.fakes import (
    FakeAudit,
    FakeBypassScan,
    FakeClock,
    FakeConntrack,
    FakeDnsExtension,
    FakeExitTable,
    FakeFirewall,
    FakeLinks,
    FakePolicySource,
    FakeResolver,
    FakeState,
)
from tests.unit.ruleset.policies import SITE, ZONES

WHO = Actor(1000, "oncall", 4711, "ecluse")
OPEN, CUT = dict.fromkeys(ZONES, "open"), dict.fromkeys(ZONES, "cut")


def command(action=Action.LEVEL, reason="", actor=WHO, **more):
    """A command as the API makes it of a request."""
    return Command(action, actor, reason, "", **more)


def simple(names: tuple[str, ...] = ("svc-0",)) -> Policy:
    """Give a policy with vital services of these names."""
    return allowlist(*names)


def allowlist(*names: str, hosts: tuple[str, ...] = ()) -> Policy:
    """Give a policy with vital services of these names, `lab` where none is named."""
    lab = Destination(
        Direction.OUTBOUND, hosts, (ip_network("203.0.113.1/32"),), (Traffic(6, 443, 443),)
    )
    one = Service("", "", "", "", Criticality.VITAL, ("care",), (), (lab,))
    return Policy(SITE, tuple(replace(one, name=name) for name in names or ("lab",)))


class Machine:
    """One gateway: its disk (state, audit) and kernel (firewall) outlive the controller."""

    def __init__(self, policy: Policy, addresses=None) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.firewall = FakeFirewall()
        self.state = FakeState()
        self.audit = FakeAudit()
        self.source = FakePolicySource(policy)
        self.resolver = FakeResolver(self.clock, addresses or {})
        self.conntrack = FakeConntrack()
        self.links = FakeLinks(
            (*(n for z in policy.site.zones for n in z.interfaces), "wan0"), routes=("wan0",)
        )
        self.dns_extension = FakeDnsExtension()
        self.dns = self.dns_extension.proxy
        self.bypass_scan = FakeBypassScan()
        self.exit_table = FakeExitTable()
        self.events = []
        self.controller: Controller | None = None

    def run(self, work):
        async def bounded():
            async with asyncio.timeout(20):
                return await work

        return self.loop.run_until_complete(bounded())

    def start(self, closed_at_boot: str = "") -> None:
        ports = Ports(
            self.firewall,
            self.conntrack,
            self.links,
            self.resolver,
            self.state,
            self.audit,
            self.source,
            self.clock,
            self.bypass_scan,
            self.exit_table,
        )
        options = Options(
            version="0",
            dns_uid=989,
            tick=3600,
            seconds=5,
            closed_at_boot=closed_at_boot,
            extensions=(self.dns_extension,),
        )

        async def up() -> None:
            self.controller = Controller(ports, options, log=self.events.append)
            await self.controller.start()

        self.run(up())
        self.settle()

    def settle(self) -> None:
        """Let background work come to rest."""

        async def rest() -> None:
            for _ in range(40):
                await asyncio.sleep(0)
            await asyncio.sleep(0.005)
            supervisor, lock = self.controller.parts.supervisor, self.controller._live.lock
            while supervisor.busy or lock.locked():  # a restoration compiles on a thread
                await asyncio.sleep(0.001)
            while self.writing():  # what no answer waits for, on the writer's thread
                await asyncio.sleep(0.001)
            for _ in range(40):
                await asyncio.sleep(0)

        self.run(rest())

    def writing(self) -> bool:
        """Say whether a record is on its way to the disk: neither written nor refused yet."""
        pending = self.controller._records.queue._pending.values()
        return any(not one.written and not one.failed for one in pending)

    def heal(self) -> None:
        """Let the table be restored: where the kernel refused it, in the next try."""
        self.settle()

        async def healed() -> None:
            while self.controller.parts.reconciler.pending or self.controller._live.lock.locked():
                await asyncio.sleep(0.001)

        self.run(healed())
        self.settle()

    def kill(self) -> None:
        """End the daemon without a word, as SIGKILL would: nothing is written any more."""

        async def cancel() -> None:
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel())
        self.controller = None

    def close(self) -> None:
        self.kill()
        self.loop.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()

    def give(self, work):
        """Give a command and let its after-work come to rest; an EcluseError is the answer."""
        try:
            answer = self.run(work)
        except EcluseError as error:
            answer = error
        self.settle()
        return answer

    def set(self, level: str, *zones: str):
        return self.give(
            self.controller.set_level(level, zones or None, command(Action.LEVEL, "why"))
        )

    def rollback(self, number=None):
        return self.give(self.controller.rollback(number, command(Action.ROLLBACK, "why")))

    def reload(self, policy: Policy):
        self.source.policy = policy
        return self.give(self.controller.reload(command(Action.RELOAD, "why")))

    def status(self):
        return self.run(self.controller.status())

    def address_use(self):
        """Give the part that looks who uses which address, as before its first look."""
        part = self.controller.parts.address_use
        part._next_look = part._soonest = 0.0
        return part

    def alert_texts(self) -> tuple[str, ...]:
        return self.controller.parts.alerts.texts()

    def kernel(self) -> dict[str, str] | None:
        """Read the levels that the kernel's own gates stand for."""
        policy = self.controller._live.current.policy
        chains = self.run(self.firewall.chains())
        return switch.levels_of_targets(policy, self.run(self.firewall.targets(chains)))
