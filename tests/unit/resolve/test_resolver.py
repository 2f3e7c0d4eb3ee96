"""The resolver as it runs: schedule, changes, refresh, close; against a real server that fails each
way.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import dns.rcode
import pytest

from ecluse.records import KnownAddress, KnownName
from ecluse.resolve.lookup import LookupResult
from ecluse.resolve.resolver import DnsResolver
from tests.unit.resolve.server import Server, drop, rcode, records

NAME = "lab.example"


def now():
    return datetime.now(UTC)


@pytest.fixture
async def server():
    async with Server() as server:
        yield server


@pytest.fixture
async def make(server):
    made = []

    def build(servers=None, **options):
        values = {"clock": now, "timeout": 0.3, "minimum_ttl": 0.2, "maximum_ttl": 3600}
        resolver = DnsResolver(**{**values, **options})
        made.append(resolver)
        resolver.watch([], [server.address] if servers is None else servers)
        return resolver

    yield build
    for resolver in made:
        await resolver.close()
    left = [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("resolve")]
    assert not left


def texts(known):
    return [each.address for each in known.addresses]


async def until(condition, seconds=3.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.01)


async def test_watched_names_become_known_and_are_told(server, make):
    server.put(NAME, "203.0.113.10", "2001:db8::10")
    server.put("bank.example", "203.0.113.20")
    resolver = make()
    changes = resolver.changes()
    resolver.watch(["LAB.example.", "bank.example"], [server.address])
    told = await anext(changes)
    while told < {NAME, "bank.example"}:
        told |= await anext(changes)
    assert texts(resolver.known()[NAME]) == ["203.0.113.10", "2001:db8::10"]
    assert set(resolver.known()) == {NAME, "bank.example"}


async def test_a_name_is_asked_for_again_when_it_expires_and_only_changes_are_told(server, make):
    server.put(NAME, "203.0.113.10", ttl=0)
    resolver = make()
    changes = resolver.changes()
    resolver.watch([NAME], [server.address])
    assert await anext(changes) == {NAME}
    await until(lambda: server.asked[NAME, "A", "udp"] >= 3)
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    server.put(NAME, "203.0.113.11", ttl=0)
    assert await asyncio.wait_for(waiting, 2) == {NAME}
    assert texts(resolver.known()[NAME]) == ["203.0.113.10", "203.0.113.11"]


async def test_a_long_ttl_is_not_asked_for_again(server, make):
    server.put(NAME, "203.0.113.10", ttl=100)
    resolver = make()
    resolver.watch([NAME], [server.address])
    await until(lambda: NAME in resolver.known())
    resolver.watch([NAME], [server.address])
    await asyncio.sleep(0.5)
    assert server.asked[NAME, "A", "udp"] == 1


async def test_maximum_ttl_bounds_the_wait(server, make):
    server.put(NAME, "203.0.113.10", ttl=86_400)
    resolver = make(maximum_ttl=0.3)
    resolver.watch([NAME], [server.address])
    await until(lambda: server.asked[NAME, "A", "udp"] >= 2)


async def test_thousands_of_names_are_asked_for_at_a_pace_and_the_loop_stays_free(
    make, monkeypatch
):
    asked = []

    async def answered(name, servers, seconds, **_):
        asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.001)
        return LookupResult({}, frozenset({4, 6}), ())

    monkeypatch.setattr("ecluse.resolve.resolver.look_up", answered)
    resolver = make(minimum_ttl=60)
    rounds = []
    monkeypatch.setattr(resolver, "_forget_old", lambda: rounds.append(1))
    turns, turn_in = [], resolver._turn_in

    def noted():
        turns.append(turn_in())
        return turns[-1]

    monkeypatch.setattr(resolver, "_turn_in", noted)
    begun = asyncio.get_running_loop().time()
    resolver.watch([f"n{n}.example" for n in range(5000)], [("192.0.2.53", 53)])
    await until(lambda: len(asked) >= 300, 60)
    assert set(turns[:200]) == {0.0}, "200 at once"
    assert len(asked) <= 200 + 100 * (asked[-1] - begun) + 1, "then 100 a second"
    assert len(rounds) < 10, "all of them are looked through now and then, not at every answer"
    assert resolver._wakes_at - asyncio.get_running_loop().time() > 30, (
        "and nobody looks until one is due"
    )


async def test_the_shortest_ttl_of_an_answer_says_when_to_ask_again(server, make):
    server.answers[NAME] = records((NAME, 0, "203.0.113.10"), (NAME, 3000, "2001:db8::10"))
    resolver = make()
    resolver.watch([NAME], [server.address])
    await until(lambda: server.asked[NAME, "A", "udp"] >= 2)


def waits(resolver, known, times):
    """Give the seconds until the next look-up of a name, for each of so many times that this became
    known.
    """
    found = []
    for _ in range(times):
        resolver._schedule(known)
        found.append(resolver._watched[known.name] - asyncio.get_running_loop().time())
    return found


async def test_names_are_spread_and_a_name_that_fails_for_days_is_asked_for_every_ten_minutes(make):
    resolver = make(minimum_ttl=30)
    resolver.watch([NAME], [])
    await until(lambda: NAME in resolver.known())
    at = now()
    good = KnownName(NAME, (KnownAddress("203.0.113.10", at, at + timedelta(seconds=1000)),), at)
    spread = waits(resolver, good, 200)
    assert 999 < min(spread) < 1003 and 1007 < max(spread) < 1011
    failing = waits(resolver, KnownName(NAME, (), at, "timeout"), 40)
    assert 29 < failing[0] < 34 and 59 < failing[1] < 67
    assert all(599 < wait < 611 for wait in failing[10:])


FAILURES = {
    "silent": drop,
    "servfail": rcode(dns.rcode.SERVFAIL),
    "nxdomain": rcode(dns.rcode.NXDOMAIN),
    "empty": records(),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_the_last_good_answer_stands_when_all_fails(server, make, failure):
    server.put(NAME, "203.0.113.10", ttl=0)
    resolver = make()
    resolver.watch([NAME], [server.address])
    await until(lambda: NAME in resolver.known())
    server.answers[NAME] = FAILURES[failure]
    await until(lambda: resolver.known()[NAME].failure)
    assert texts(resolver.known()[NAME]) == ["203.0.113.10"]
    server.put(NAME, "203.0.113.10", ttl=0)
    await until(lambda: not resolver.known()[NAME].failure)


async def test_failures_back_off(server, make):
    server.answers[NAME] = rcode(dns.rcode.SERVFAIL)
    resolver = make(minimum_ttl=0.1)
    resolver.watch([NAME], [server.address])
    await asyncio.sleep(1.3)  # due after 0.1, 0.2, 0.4, 0.8 s
    assert 3 <= server.asked[NAME, "A", "udp"] <= 5
    known = resolver.known()[NAME]
    assert known == KnownName(NAME, (), known.asked, "127.0.0.1 answered SERVFAIL", known.since)


async def test_saved_names_are_known_at_once_and_asked_for_when_they_expire(server, make):
    server.put(NAME, "203.0.113.11")
    server.put("bank.example", "203.0.113.20")

    def saved(name, expires, failure=""):
        address = KnownAddress("203.0.113.10", now(), now() + timedelta(seconds=expires))
        return name, KnownName(name, (address,), now(), failure)

    failed = saved("failed.example", 600, "timeout")
    resolver = make(known=dict([saved(NAME, -60), saved("bank.example", 600), failed]))
    assert texts(resolver.known()[NAME]) == ["203.0.113.10"]
    resolver.watch([NAME, "bank.example", "failed.example"], [server.address])
    await until(lambda: server.asked["failed.example", "A", "udp"])
    await until(lambda: texts(resolver.known()[NAME]) == ["203.0.113.10", "203.0.113.11"])
    assert server.asked["bank.example", "A", "udp"] == 0


async def test_refresh_gives_what_is_known_in_time(server, make):
    server.put(NAME, "203.0.113.10")
    server.answers["slow.example"] = drop
    resolver = make(timeout=5)
    begun = time.monotonic()
    known = await resolver.refresh([NAME, "slow.example"], 0.4)
    assert 0.35 < time.monotonic() - begun < 2.5
    assert list(known) == [NAME] and texts(known[NAME]) == ["203.0.113.10"]


async def test_refresh_asks_again_although_nothing_expired(server, make):
    server.put(NAME, "203.0.113.10", ttl=3000)
    resolver = make()
    resolver.watch([NAME], [server.address])
    await until(lambda: NAME in resolver.known())
    server.put(NAME, "203.0.113.11", ttl=3000)
    known = await resolver.refresh([NAME], 60)
    assert "203.0.113.11" in texts(known[NAME])


async def test_refresh_takes_no_look_up_that_has_just_ended_for_its_own(server, make):
    """RED before: whoever heard of the answer and asked again at once was given the same answer."""
    server.put(NAME, "203.0.113.10", ttl=3000)
    resolver = make()
    changes = resolver.changes()
    resolver.watch([NAME], [server.address])
    assert await anext(changes) == {NAME}
    server.put(NAME, "203.0.113.11", ttl=3000)
    known = await resolver.refresh([NAME], 60)
    assert "203.0.113.11" in texts(known[NAME])
    await until(lambda: not resolver._running)


async def test_refresh_that_is_cancelled_leaves_the_resolver_whole(server, make):
    server.answers[NAME] = drop
    resolver = make()
    task = asyncio.ensure_future(resolver.refresh([NAME], 10))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.put(NAME, "203.0.113.10")
    await until(lambda: not resolver._running)
    assert texts((await resolver.refresh([NAME], 2))[NAME]) == ["203.0.113.10"]


async def test_names_no_longer_watched_leave_once_old(server, make):
    at = [datetime(2026, 3, 4, tzinfo=UTC)]
    server.put(NAME, "203.0.113.10")
    resolver = make(clock=lambda: at[0])
    resolver.watch([NAME], [server.address])
    await until(lambda: NAME in resolver.known())
    resolver.watch([], [server.address])
    await asyncio.sleep(0.05)
    assert NAME in resolver.known()
    at[0] += timedelta(minutes=31)
    resolver.watch([], [server.address])
    await until(lambda: NAME not in resolver.known())
    assert NAME not in resolver.tallies() and NAME not in resolver._silent, "nothing of it is left"


async def test_many_names_never_more_than_sixteen_at_once(server, make):
    names = [f"n{n}.example" for n in range(100)]
    running = [0, 0]
    for n, name in enumerate(names):
        server.put(name, f"203.0.113.{n}")
    real = server.judge

    def judge(query, transport):
        running[1] = max(running[1], running[0])
        return real(query, transport)

    server.judge = judge
    server.delay = 0.02
    resolver = make()
    resolver._asking = _Counting(resolver._asking, running)
    known = await resolver.refresh(names, 5)
    assert len(known) == 100
    assert 2 <= running[1] <= 16


class _Counting:
    def __init__(self, room, running):
        self.room, self.running = room, running

    async def acquire(self):
        await self.room.acquire()
        self.running[0] += 1

    def release(self):
        self.running[0] -= 1
        self.room.release()


async def test_one_dead_resolver_of_two_does_not_hold_up_all_names(server, make):
    names = [f"n{n}.example" for n in range(100)]
    async with Server() as dead:
        for n, name in enumerate(names):
            server.put(name, f"203.0.113.{n}")
            dead.answers[name] = drop
        patient = make([server.address, dead.address], timeout=600.0)
        asking = asyncio.ensure_future(patient.refresh(names, 600))
        # Each waits for the dead one meanwhile, so if they kept their places no more than 16 would
        # have been asked for.
        await until(lambda: all(server.asked[name, "A", "udp"] for name in names), 60)
        assert not patient.known(), "it is waited for"
        await patient.close()
        await asking
        resolver = make([server.address, dead.address], timeout=5.0)
        known = await resolver.refresh(names[:3], 60)
        assert all(entry.addresses and not entry.failure for entry in known.values())
        outcomes = resolver.tallies()["n1.example"].outcomes["127.0.0.1"]
        assert outcomes == {"answered": 1, "empty": 1, "timeout": 2}, "it was waited for"
    assert resolver._asking._value == 16 and resolver._waiting._value == 128


async def test_every_reader_of_changes_is_told_and_close_ends_them(server, make):
    server.put(NAME, "203.0.113.10")
    resolver = make()
    one, two = resolver.changes(), resolver.changes()
    resolver.watch([NAME], [server.address])
    assert await anext(one) == await anext(two) == {NAME}
    waiting = asyncio.ensure_future(anext(one, "ended"))
    await asyncio.sleep(0)
    await resolver.close()
    assert await waiting == "ended"
    assert [item async for item in two] == []
    assert [item async for item in resolver.changes()] == []
    assert texts(resolver.known()[NAME]) == ["203.0.113.10"]
    await resolver.close()


async def test_close_in_the_middle_of_everything(server, make):
    server.answers[NAME] = drop
    resolver = make(timeout=30)
    resolver.watch([NAME], [server.address])
    refreshing = asyncio.ensure_future(resolver.refresh([NAME, "other.example"], 30))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(resolver.close(), 1)
    assert await asyncio.wait_for(refreshing, 1) is not None


async def test_other_servers_are_asked_at_once_for_what_failed(server, make):
    async with Server() as other:
        other.put(NAME, "203.0.113.10")
        resolver = make(minimum_ttl=60)
        resolver.watch([NAME], [server.address])
        await until(lambda: NAME in resolver.known())
        assert resolver.known()[NAME].failure
        resolver.watch([NAME], [other.address])
        await until(lambda: texts(resolver.known()[NAME]) == ["203.0.113.10"])
        assert server.asked[NAME, "A", "udp"] == 1


async def test_no_resolver_is_a_failure_in_words(make):
    known = await make(servers=[]).refresh([NAME], 1)
    assert known[NAME].failure == "no resolver is configured"


async def test_a_fault_of_our_own_is_shown_with_the_name(make, monkeypatch):
    async def broken(*_, **__):
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr("ecluse.resolve.resolver.look_up", broken)
    known = await make().refresh([NAME], 1)
    assert known[NAME].failure == "could not be looked up: what nobody thought of"


@pytest.fixture
def quick(monkeypatch):
    """Half an hour of ours passes at once: what is left of it is the clock that a test sets."""
    monkeypatch.setattr("ecluse.resolve.resolver._LEFT_SECONDS", 0.0)


async def test_an_address_leaves_only_when_it_is_let_go_and_that_is_told(server, make, quick):
    at = [datetime(2026, 3, 4, tzinfo=UTC)]
    server.put(NAME, "203.0.113.10", ttl=0)
    resolver = make(clock=lambda: at[0])
    await resolver.refresh([NAME], 2)
    server.put(NAME, "203.0.113.11", ttl=0)
    await resolver.refresh([NAME], 2)
    assert resolver.due() == {}
    at[0] += timedelta(minutes=29)
    resolver.used({NAME: {"203.0.113.10"}, "unknown.example": {"203.0.113.10"}})
    at[0] += timedelta(minutes=29)
    await resolver.refresh([NAME], 2)
    assert resolver.due() == {}, "it was in use 29 minutes ago"
    at[0] += timedelta(minutes=1)
    assert resolver.due() == {NAME: {"203.0.113.10"}}
    changes = resolver.changes()
    resolver.let_go({NAME: {"203.0.113.10", "203.0.113.11"}})
    assert await asyncio.wait_for(anext(changes), 1) == {NAME}
    assert texts(resolver.known()[NAME]) == ["203.0.113.11"], "only what is due goes"


async def test_use_that_is_noted_while_a_question_is_under_way_is_not_lost(server, make):
    server.put(NAME, "203.0.113.10", ttl=0)
    resolver = make()
    await resolver.refresh([NAME], 2)
    server.delay = 0.2
    asking = asyncio.ensure_future(resolver.refresh([NAME], 2))
    await asyncio.sleep(0.05)
    resolver.used({NAME: {"203.0.113.10"}})
    await asking
    assert resolver.known()[NAME].addresses[0].used is not None


async def test_a_clock_that_is_set_far_ahead_ends_no_last_good_address(server, make):
    """The bound is days, and some of them must have been ours: NTP may set the clock while the
    resolvers are away.
    """
    at = [datetime(2000, 1, 1, tzinfo=UTC)]
    server.put(NAME, "203.0.113.10", ttl=0)
    resolver = make(clock=lambda: at[0])
    await resolver.refresh([NAME], 2)
    server.answers[NAME] = drop
    at[0] = datetime(2026, 3, 4, tzinfo=UTC)
    await resolver.refresh([NAME], 2)
    assert resolver.due() == {}
    resolver._silent[NAME]["203.0.113.10"] -= 86_400
    assert resolver.due() == {NAME: {"203.0.113.10"}}, "positive control: a day without a word"


async def test_a_clock_that_is_set_far_ahead_ends_no_half_hour_of_what_just_left(server, make):
    at = [datetime(2026, 3, 4, tzinfo=UTC)]
    server.put(NAME, "203.0.113.10", ttl=0)
    resolver = make(clock=lambda: at[0])
    await resolver.refresh([NAME], 2)
    at[0] += timedelta(days=365)
    server.put(NAME, "203.0.113.11", ttl=0)
    await resolver.refresh([NAME], 2)
    assert resolver.known()[NAME].addresses[0].left
    assert resolver.due() == {}, "a machine was given it a moment ago"
    resolver._silent[NAME]["203.0.113.10"] -= 1800
    assert resolver.due() == {NAME: {"203.0.113.10"}}, "positive control: half an hour of ours"


async def test_last_good_addresses_have_an_upper_bound(server, make):
    at = [datetime(2026, 3, 4, tzinfo=UTC)]
    server.put(NAME, "203.0.113.10", ttl=0)
    resolver = make(clock=lambda: at[0], last_good=timedelta(seconds=0.2))
    await resolver.refresh([NAME], 2)
    server.answers[NAME] = rcode(dns.rcode.SERVFAIL)
    at[0] += timedelta(seconds=1)
    await resolver.refresh([NAME], 2)
    await asyncio.sleep(0.25)
    assert resolver.due() == {}, "half an hour at the least"
    at[0] += timedelta(minutes=30)
    assert resolver.due() == {NAME: {"203.0.113.10"}}
    server.put(NAME, "203.0.113.10", ttl=0)
    await resolver.refresh([NAME], 2)
    assert resolver.due() == {}


async def test_what_is_allowed_to_be_private_is_asked_for_at_once(server, make):
    server.put(NAME, "10.1.2.3")
    resolver = make(minimum_ttl=60)
    resolver.watch([NAME], [server.address])
    await until(lambda: NAME in resolver.known())
    assert "'private: true'" in resolver.known()[NAME].failure
    resolver.watch([NAME], [server.address], frozenset({NAME}))
    await until(lambda: resolver.known()[NAME].addresses)
    assert texts(resolver.known()[NAME]) == ["10.1.2.3"]
    resolver.watch([NAME], [server.address])
    assert texts(resolver.known()[NAME]) == [], "forgotten as soon as it is allowed no more"


async def test_every_look_up_is_counted(server, make):
    server.put(NAME, "203.0.113.10", ttl=0)
    resolver = make()
    await resolver.refresh([NAME], 2)
    server.answers[NAME] = rcode(dns.rcode.NXDOMAIN)
    await resolver.refresh([NAME], 2)
    tally = resolver.tallies()[NAME]
    assert (tally.lookups, tally.answers) == (2, 1)
    assert tally.outcomes == {"127.0.0.1": {"answered": 1, "ttl-0": 1, "empty": 1, "nxdomain": 2}}
