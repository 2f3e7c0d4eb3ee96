"""The stream of events: lines, heartbeats, ends and bounds."""

import asyncio
import contextlib
import json

from tests.unit.api.harness import (
    ask,
    hold,
    is_fast,
    raw,
    running,
)


async def test_a_slow_reader_of_events_is_dropped():
    async with running(stall_seconds=0.5) as (commands, path, _server, _log):
        with hold(path, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            for _ in range(200):
                commands.tell("x" * 20_000)
                await asyncio.sleep(0.01)
                if not commands.subscribers:
                    break
            await asyncio.sleep(0.3)
            assert commands.ended_streams == 1
            await is_fast(path)


async def test_event_streams_are_bounded():
    async with running() as (_, path, *_rest):
        with contextlib.ExitStack() as stack:
            for _ in range(32):
                stack.enter_context(
                    hold(path, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                )
            await asyncio.sleep(0.3)
            status, _, answer = await ask(path, "GET", "/v1/events")
            assert (status, answer["kind"]) == (503, "busy")
            await is_fast(path)


async def test_events_come_as_lines_with_heartbeats_and_end_with_the_client():
    async with running(heartbeat_seconds=0.2) as (commands, path, *_):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"application/x-ndjson" in head
        assert json.loads(await reader.readline())["kind"] == "heartbeat"
        commands.tell("one")
        commands.tell("two")
        assert [json.loads(await reader.readline())["message"] for _ in range(2)] == ["one", "two"]
        assert json.loads(await asyncio.wait_for(reader.readline(), 2))["kind"] == "heartbeat"
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)
        assert (commands.ended_streams, commands.subscribers) == (1, [])


async def test_events_end_when_the_server_stops_or_the_source_ends():
    async with running() as (commands, path, server, _):
        first = asyncio.ensure_future(
            raw(path, b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        )
        await asyncio.sleep(0.1)
        commands.subscribers[0].put_nowait(None)
        assert b"heartbeat" in await asyncio.wait_for(first, 2)
        second = asyncio.ensure_future(
            raw(path, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        )
        await asyncio.sleep(0.1)
        await asyncio.wait_for(server.close(), 3)
        assert (await asyncio.wait_for(second, 2)).endswith(b"0\r\n\r\n")
        assert commands.ended_streams == 2
