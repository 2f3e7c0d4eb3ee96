"""Quotas by pool and by uid."""

import asyncio

from ecluse.api.quota import CONNECTION_QUOTAS, Quota, QuotaCounter
from tests.unit.api.harness import (
    SYSTEM_PYTHON,
    descriptors,
    is_fast,
    running,
)

_FLOOD = """
import socket, sys, time
held = []
for number in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(sys.argv[1])
    held.append(s)
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_users_thousand_connections_do_not_lock_out_root_or_another_user():
    async with running() as (_, path, server, _log):
        before = descriptors()
        flood = await asyncio.create_subprocess_exec(
            SYSTEM_PYTHON,
            "-I",
            "-c",
            _FLOOD,
            str(path),
            "900",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            user=61011,
            group=61011,
            extra_groups=[],
            cwd="/",
        )
        assert await asyncio.wait_for(flood.stdout.readline(), 20) == b"held\n"
        assert server._acceptor.quotas.taken()["none"] == CONNECTION_QUOTAS["none"].per_uid
        await is_fast(path)
        assert server._acceptor.quotas.turned_away == 900 - CONNECTION_QUOTAS["none"].per_uid
        assert descriptors() - before < CONNECTION_QUOTAS["none"].per_uid + 20
        await is_fast(path)
        flood.stdin.close()
        await flood.wait()


def test_places_are_given_back():
    quotas = QuotaCounter({"a": Quota(3, 2), "b": Quota(1, 1)})
    assert [quotas.enter("a", 1) for _ in range(3)] == [True, True, False]
    assert quotas.enter("b", 1)
    assert [quotas.enter("a", 2), quotas.enter("a", 3)] == [True, False]
    quotas.leave("a", 1)
    assert quotas.enter("a", 3)
    assert (quotas.taken(), quotas.turned_away) == ({"a": 3, "b": 1}, 2)


def test_all_rooms_together_leave_descriptors_for_the_daemon():
    assert sum(quota.total for quota in CONNECTION_QUOTAS.values()) <= 768
