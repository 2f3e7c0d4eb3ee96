"""`GET /v1/events`: a line of JSON for each event, and a heartbeat when nothing happens."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse

from ecluse.api.http_connection import HEADERS, HttpConnection
from ecluse.api.routes import NDJSON
from ecluse.api.wire import Heartbeat, to_json
from ecluse.results import Event

HEARTBEAT_SECONDS = 15.0


async def stream_events(
    request: BaseRequest, connection: HttpConnection, events: AsyncIterator[Event], heartbeat: float
) -> StreamResponse:
    """Write events until the client is gone or the server stops.

    A client that does not read is dropped. heartbeat: seconds without an event.
    """
    response = StreamResponse(headers={**HEADERS, "Content-Type": NDJSON})
    next_event = asyncio.ensure_future(_next_or_none(events))
    # An async generator subscribes at its first step: it takes it here, before the client is told
    # that the stream runs.
    await asyncio.sleep(0)
    try:
        await response.prepare(request)
        await response.write(_heartbeat_line())
        while not connection.gone.done():
            either: set[asyncio.Future[Any]] = {next_event, connection.gone}
            await asyncio.wait(either, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if not next_event.done():
                await response.write(_heartbeat_line())
                continue
            event = next_event.result()
            if event is None:
                break
            next_event = asyncio.ensure_future(_next_or_none(events))
            await response.write(to_json(event, Event) + b"\n")
    finally:
        next_event.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await next_event
        if isinstance(events, AsyncGenerator):
            await events.aclose()
    return response


async def _next_or_none(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


def _heartbeat_line() -> bytes:
    return to_json(Heartbeat(datetime.now(UTC)), Heartbeat) + b"\n"
