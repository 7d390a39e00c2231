"""A server on a free port of loopback, on the loop that runs here, and a client of it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2
import uvicorn

from millstream.client import SseEvent, SseParser

PATIENCE = 50


class Host(uvicorn.Server):
    """A real HTTP server."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()  # they belong to the test runner


@contextlib.asynccontextmanager
async def hosting(app: Any, **options: Any) -> AsyncIterator[str]:
    """The address of `app`, served over HTTP for as long as it takes. `options` are uvicorn's."""
    usual = {
        "log_config": None,
        "log_level": "critical",
        "lifespan": "on",
        "timeout_graceful_shutdown": 1,
        "ws_ping_interval": None,  # a slow machine is no client that is gone
    }
    config = uvicorn.Config(app, **cast("Any", usual | options))
    server = Host(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve([listening]))
        while not server.started:
            assert not task.done(), "the server did not start"
            await asyncio.sleep(0)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of `app`, served over HTTP. `options` are uvicorn's."""
    async with (
        hosting(app, **options) as url,
        asyncio.timeout(PATIENCE),
        httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as client,
    ):
        yield client


async def events_of(client: httpx2.AsyncClient, run_id: str, after: int = 0, **query: Any) -> list[SseEvent]:
    """The stream of a run to its end."""
    parser, events = SseParser(), list[SseEvent]()
    async with client.stream("GET", f"/runs/{run_id}/events", params={"after": after, **query}) as response:
        assert response.status_code == 200, await response.aread()
        async for piece in response.aiter_raw():
            events += parser.feed(piece)
    return events
