"""The process of the DNS proxy: its background tasks."""

import asyncio

import pytest

from ecluse.dnsproxy import process


async def test_what_runs_beside_is_begun_again_and_told_for_as_long_as_it_fails(monkeypatch):
    monkeypatch.setattr(process, "_RESTART", 0.01)
    monkeypatch.setattr(process, "_CALM", 0.05)
    trouble, calls = {"disk": ""}, []

    async def work() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise TypeError("nobody foresaw this")
        await asyncio.sleep(3600)

    task = asyncio.create_task(process.run_forever(trouble, "hearing of changes", work))
    async with asyncio.timeout(60):  # a machine may be very busy
        while "hearing of changes" not in trouble:
            await asyncio.sleep(0.001)
        assert "nobody foresaw this" in trouble["hearing of changes"]
        while len(calls) < 3 or "hearing of changes" in trouble:
            await asyncio.sleep(0.005)
    assert not task.done()
    assert trouble == {"disk": ""}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
