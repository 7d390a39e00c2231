"""A client of the server's WebSocket that keeps what it hears apart: answers, and the messages of streams."""

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ANSWERS = {"command.done", "command.error", "pong"}
TERMINAL = {"run.completed", "run.failed", "run.cancelled"}
LAST = {*TERMINAL, "stream.gap", "stream.error"}
"""Types of messages after which nothing more comes of a stream."""


def ws_url(client: httpx2.AsyncClient, path: str = "/ws") -> str:
    return str(client.base_url).rstrip("/").replace("http", "ws", 1) + path


@contextlib.asynccontextmanager
async def talking(client: httpx2.AsyncClient, path: str = "/ws", **options: Any) -> AsyncIterator["Talk"]:
    """A connection to the server of `client`, which is broken off behind the block, if it is open still."""
    async with connect(ws_url(client, path), max_size=None, ping_interval=None, **options) as socket:
        try:
            yield Talk(socket)
        finally:
            socket.transport.abort()


class Talk:
    """One connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[bytes] = []
        """The messages of streams, as they came."""
        self._ids = itertools.count(1)

    async def say(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Give a command; its answer. What comes of a stream before is heard."""
        called = next(self._ids)
        await self.socket.send(json.dumps({"type": kind, "id": called, **fields}))
        answer = await self.answer()
        assert answer["id"] == called, answer
        return answer

    async def answer(self) -> dict[str, Any]:
        """The next answer. What comes of a stream before is heard."""
        while True:
            data = await self.socket.recv(decode=False)
            if (told := json.loads(data)).get("type") in ANSWERS:
                return told
            self.heard.append(data)

    async def next(self) -> Any:
        """The next message of a stream."""
        data = await self.socket.recv(decode=False)
        told = json.loads(data)
        assert told.get("type") not in ANSWERS, told
        self.heard.append(data)
        return told

    async def until(self, kind: str) -> None:
        """Hear up to an entry of that type, which may have come before."""
        while kind not in self.types:
            await self.next()

    async def stream(self) -> list[bytes]:
        """What is left of a stream, up to the end of its root run, or of the stream."""
        begun = len(self.heard)
        while True:
            told = await self.next()
            if told.get("type") in LAST or (told.get("depth") == 0 and told["event"]["type"] in TERMINAL):
                return self.heard[begun:]

    async def close_code(self) -> int | None:
        """Hear to the end of the connection; the code that it was closed with."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.heard.append(await self.socket.recv(decode=False))
        return self.socket.close_code

    @property
    def types(self) -> list[str]:
        """The types of what was heard."""
        return types_of(self.heard)


def types_of(messages: list[bytes]) -> list[str]:
    """The types of entries, and of the messages between them."""
    told = [json.loads(each) for each in messages]
    return [each["event"]["type"] if "event" in each else each["type"] for each in told]
