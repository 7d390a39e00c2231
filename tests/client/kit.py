"""What tests of the client share: a hasty clock, a server, and clients that keep no connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from millstream.client import Client
from millstream.clock import SystemClock
from tests.client.proxy import Proxy, proxy
from tests.server.kit import serving


class HastyClock(SystemClock):
    """Sleeps no longer than it takes to let others go on, and says how long it would have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[tuple[Client, Proxy]]:
    """A client of `app`, and the proxy that it reaches it by: one connection for each request."""
    async with (
        serving(app) as direct,
        proxy(direct.base_url.port) as between,
        reaching(between.url, **options) as client,
    ):
        yield client, between


@contextlib.asynccontextmanager
async def reaching(url: str, **options: Any) -> AsyncIterator[Client]:
    """A client of `url` that opens a connection for each request."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(limits=limits) as http:
        yield Client(url, **{"http_client": http, "clock": HastyClock()} | options)


async def everything(run: Any, after: int = 0, **options: Any) -> list[bytes]:
    """The entries of a run, as JSON."""
    return [entry.to_json() async for entry in run.entries(after, **options)]
