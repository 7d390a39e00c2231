"""Clients that are cut off, by both transports: what they have then, and what they get when they come back."""

import contextlib
import random
from collections.abc import Callable
from typing import Any

import httpx2
from websockets.exceptions import WebSocketException

from millstream.client import SseParser
from tests.server.talk import talking

Entries = list[bytes]
"""Entries of a run as they were sent, from the first: so many is the position that a client has."""


class Sse:
    """Server-sent events."""

    async def rest(self, client: httpx2.AsyncClient, run_id: str, after: int = 0) -> Entries:
        """The stream of a run from behind `after` to its end."""
        seen = Entries()
        async with client.stream("GET", f"/runs/{run_id}/events", params={"after": after}) as response:
            if response.status_code == 204:
                return seen
            assert response.status_code == 200, await response.aread()
            await self._read(response, seen)
        return seen

    async def until_cut(
        self,
        client: httpx2.AsyncClient,
        run_id: str,
        enough: Callable[[Entries], bool] = lambda seen: False,
    ) -> Entries:
        """What arrives whole before the line breaks, or before it is `enough` and the client breaks it."""
        seen = Entries()
        with contextlib.suppress(httpx2.TransportError):
            async with client.stream("GET", f"/runs/{run_id}/events") as response:
                await self._read(response, seen, enough)
        return seen

    async def _read(
        self,
        response: httpx2.Response,
        seen: Entries,
        enough: Callable[[Entries], bool] = lambda seen: False,
    ) -> None:
        parser = SseParser()
        async for piece in response.aiter_raw():
            for event in parser.feed(piece):
                seen.append(event.data.encode())
                if enough(seen):
                    return


class WebSocket:
    """A WebSocket."""

    async def rest(self, client: httpx2.AsyncClient, run_id: str, after: int = 0) -> Entries:
        """As of `Sse`."""
        async with talking(client) as talk:
            told = await talk.say("follow", run_id=run_id, after=after)
            return await talk.stream() if told["is_followed"] else []

    async def until_cut(
        self,
        client: httpx2.AsyncClient,
        run_id: str,
        enough: Callable[[Entries], bool] = lambda seen: False,
    ) -> Entries:
        """As of `Sse`."""
        seen = Entries()
        with contextlib.suppress(WebSocketException, OSError, EOFError):
            # Uncompressed, so that a place among the bytes of the entries is one on the wire.
            async with talking(client, open_timeout=None, compression=None) as talk:
                seen = talk.heard
                await talk.say("follow", run_id=run_id)
                while not enough(seen):
                    await talk.next()
        return seen


def cut_places(told: Entries, seed: int, count: int = 200) -> list[int]:
    """Places, by bytes from the beginning of an answer, at which a line to whoever is told that breaks amid it."""
    at_least = sum(len(entry) + 2 for entry in told)  # whichever the transport, and heads come besides
    return random.Random(seed).sample(range(at_least), count)


TRANSPORTS: dict[str, Any] = {"sse": Sse(), "websocket": WebSocket()}
"""By their names."""
