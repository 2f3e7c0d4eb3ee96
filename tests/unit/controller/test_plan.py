"""What a change would do: told without doing it, and without holding anything up."""

import asyncio
import threading
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ecluse.errors import RequestError
from ecluse.flow_judge import ConntrackEntry, Tuple
from ecluse.policy import Policy, SecondLock
from tests.unit.controller.machine import OPEN, Machine, allowlist, command
from tests.unit.ruleset.policies import SITE, ZONES


def plan(machine, level):
    return machine.run(
        machine.controller.plan(level=level, zones=None, rollback=None, reload=False)
    )


def test_a_cut_at_isolate_says_which_services_it_lets_through(machine):
    assert machine.set("cut").opened == (), "everything passed before"
    isolated = machine.set("isolate")
    assert isolated.opened == ()
    assert isolated.ended
    planned = plan(machine, "cut")
    assert planned.services_opened == isolated.ended
    assert machine.set("cut").opened == isolated.ended
    assert machine.set("cut").opened == (), "it was so already"


def test_an_opening_tells_what_was_closed(machine):
    ended = machine.set("cut").ended
    assert machine.set("open").opened == ended


ISOLATED = dict.fromkeys(ZONES, "isolate")


MORE_THAN_ALL_THREADS = 40
"""asyncio's own pool has at most 32 (concurrent.futures.thread), and 6 on two processors."""


@pytest.fixture
def hung(machine):
    """Let whoever reads from the disk wait, as one that hangs does, until the test is over."""
    over = threading.Event()
    load, read = machine.source.load, machine.state.read_policy

    def waits(work):
        def waiting(*given):
            over.wait(60)
            return work(*given)

        return waiting

    machine.source.load, machine.state.read_policy = waits(load), waits(read)
    yield over
    over.set()


@pytest.mark.parametrize(
    "plan", [{"rollback": 1, "reload": False}, {"rollback": None, "reload": True}]
)
def test_plans_that_wait_for_the_disk_hold_up_no_healing_and_no_closing(machine, hung, plan):
    """RED before: a healing compiled in the pool in which they waited, and had the writer's lock
    meanwhile.
    """
    machine.set("cut")
    ask = machine.controller.plan

    async def bad_night():
        plans = [
            asyncio.create_task(ask(level=None, zones=None, **plan))
            for _ in range(MORE_THAN_ALL_THREADS)
        ]
        await asyncio.sleep(0.01)
        machine.firewall.tamper("flush ruleset", "meddler", 4242)
        while not machine.controller._live.lock.locked():
            await asyncio.sleep(0)
        answer = await machine.controller.set_level("isolate", None, command())
        status = await machine.controller.status()
        hung.set()
        await asyncio.gather(*plans)
        return answer, status

    answer, status = machine.run(bad_night())
    assert answer.changed
    assert answer.verified
    assert status.last_tamper.pid == 4242
    machine.settle()
    assert machine.kernel() == ISOLATED


def test_a_reload_lets_nobody_out_by_taking_the_only_shut_zone_away(machine):
    machine.set("cut", "guests")
    fewer = replace(SITE, zones=tuple(zone for zone in SITE.zones if zone.name != "guests"))
    answer = machine.reload(Policy(fewer, allowlist().services))
    assert isinstance(answer, RequestError)
    assert "guests" in answer.message
    assert machine.kernel() == OPEN | {"guests": "cut"}


def test_kept_flows_that_the_second_lock_would_drop_are_named():
    policy = allowlist()
    machine = Machine(replace(policy, site=replace(policy.site, second_lock=SecondLock.CUT)))
    machine.start()
    ours, meant, real = map(ip_address, ("10.10.0.5", "203.0.113.1", "198.51.100.7"))
    machine.conntrack.table = [
        ConntrackEntry(6, Tuple(ours, meant, 40000, 443), Tuple(real, ours, 443, 40000))
    ]
    assert any("translate to 198.51.100.7" in text for text in plan(machine, "cut").warnings)
    machine.close()
