"""Denied attempts are written in a bounded number of lines."""

import asyncio
import json

from ecluse.api.denied_attempts import (
    LINES_A_DAY,
    LINES_PER_UID,
    LINES_PER_UID_A_DAY,
    MAX_UIDS,
    DeniedAttempts,
)
from ecluse.records import Actor
from tests.unit.api.fake_controller import FakeController
from tests.unit.api.harness import (
    LEVEL,
    ListLog,
    ask_as,
    request_bytes,
    running,
)


async def test_attempts_of_many_users_are_bounded_and_summed_up():
    commands = FakeController()
    denied = DeniedAttempts(commands.forbidden, ListLog(), window=0.2)
    for _ in range(15):
        for uid in range(100):
            await denied.record_attempt(lambda uid=uid: Actor(uid, f"u{uid}", 5, "x"), uid, "GET /")
    written = len(commands.attempts)
    assert written == (MAX_UIDS + 1) * LINES_PER_UID
    await asyncio.sleep(0.4)
    summaries = [what for _, what in commands.attempts[written:]]
    assert len(summaries) == MAX_UIDS + 1
    assert sum(int(what.split()[0]) for what in summaries) + written == denied.total == 1500
    await denied.record_attempt(lambda: Actor(1, "u1", 5, "x"), 1, "GET /again")
    assert commands.attempts[-1][1] == "GET /again"
    await denied.close()


async def attempts(denied: DeniedAttempts, uids: range, times: int) -> None:
    """Have each of these users try so often in each of the windows, which the test ends itself."""
    for _ in range(times):
        for uid in uids:
            await denied.record_attempt(
                lambda uid=uid: Actor(uid, f"u{uid}", 5, "x"), uid, f"GET /{uid}"
            )
    denied._end_window()


async def test_a_day_has_so_many_lines_whoever_tries_and_however_often():
    """RED before: one user wrote 15,840 lines a day, 40 users 522,720 (10 and 331 MB)."""
    commands = FakeController()
    denied = DeniedAttempts(commands.forbidden, ListLog(), window=3600, day=7200)
    for _ in range(200):
        await attempts(denied, range(1), LINES_PER_UID + 5)
    await asyncio.sleep(0)
    one = len(commands.attempts)
    assert one == LINES_PER_UID_A_DAY + 1, "and that there is no room for more"
    assert "a day has no room for more" in commands.attempts[-1][1]
    for _ in range(10):
        for first in range(100, 100 + 40 * MAX_UIDS, MAX_UIDS):
            await attempts(denied, range(first, first + MAX_UIDS), 2)
    await asyncio.sleep(0)
    assert len(commands.attempts) <= 2 * LINES_A_DAY + 1
    firsts = {actor.uid for actor, _ in commands.attempts}
    assert len(firsts) >= LINES_A_DAY, "who is new is named, though others used the day up"
    denied._end_day()
    await asyncio.sleep(0)
    summaries = [what for _, what in commands.attempts if "more attempts" in what]
    told = sum(int(what.split()[0]) for what in summaries)
    assert told + len(commands.attempts) - len(summaries) == denied.total, "none is passed over"
    assert "beyond the lines that a day has for them" in summaries[-1]
    await attempts(denied, range(1), 1)
    assert commands.attempts[-1][1] == "GET /0", "another day"
    await denied.close()


async def test_a_day_that_is_over_is_told_by_itself():
    commands = FakeController()
    denied = DeniedAttempts(commands.forbidden, ListLog(), window=3600, day=1.0)
    async with asyncio.timeout(20):
        while not any("beyond the lines" in what for _, what in commands.attempts):
            await attempts(denied, range(1), LINES_PER_UID + 1)
            await asyncio.sleep(0)
    await denied.close()


async def test_a_flood_of_attempts_writes_few_lines():
    async with running() as (commands, path, server, _):
        script = request_bytes("POST", "/v1/level", json.dumps(LEVEL).encode(), close=False)
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/python3",
            "-I",
            "-c",
            "import socket, sys\ns = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "d = sys.stdin.buffer.read()\n"
            "for _ in range(200):\n s.sendall(d); s.recv(65536)",
            str(path),
            stdin=asyncio.subprocess.PIPE,
            user=61011,
            group=61011,
            extra_groups=[],
            cwd="/",
        )
        await process.communicate(script)
        assert process.returncode == 0
        assert len(commands.attempts) == 10
        await server.close()
        assert len(commands.attempts) == 11
        actor, what = commands.attempts[-1]
        assert actor.uid == 61011
        assert what.startswith("190 more attempts")
        assert not [call for call in commands.calls if call[0] == "level"]


async def test_a_refusal_stands_when_it_cannot_be_recorded():
    async with running(FakeController(forbidden_fails=True)) as (_, path, _server, log):
        assert (await ask_as(61011, [], path, "GET", "/v1/status"))[0] == 403
        assert "could not be recorded" in log.lines[-1][1]
