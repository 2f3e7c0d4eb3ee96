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


async def stream(
    request: BaseRequest, connection: HttpConnection, events: AsyncIterator[Event], heartbeat: float
) -> StreamResponse:
    """Write events until the client is gone or the server stops.

    A client that does not read is dropped.
    """
    response = StreamResponse(headers={**HEADERS, "Content-Type": NDJSON})
    coming = asyncio.ensure_future(_next(events))
    await asyncio.sleep(
        0
    )  # an async generator subscribes at its first step: let it, before we say we listen
    try:
        await response.prepare(request)
        await response.write(_pulse())
        while not connection.gone.done():
            either: set[asyncio.Future[Any]] = {coming, connection.gone}
            await asyncio.wait(either, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                await response.write(_pulse())
                continue
            event = coming.result()
            if event is None:
                break
            coming = asyncio.ensure_future(_next(events))
            await response.write(to_json(event, Event) + b"\n")
    finally:
        coming.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await coming
        if isinstance(events, AsyncGenerator):
            await events.aclose()
    return response


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


def _pulse() -> bytes:
    return to_json(Heartbeat(datetime.now(UTC)), Heartbeat) + b"\n"
