"""A line: one WebSocket, on which whole messages go out within time, and what comes is heard one after the other.

Rules of this file:

1. A message is sent as a whole, whoever sends it: the entries of a run and the answers to commands
   come from two tasks.
2. What comes next is received when what came before was heard to its end. Who sends without reading
   fills his own buffers, and waits.
3. A client that is gone is a `GoneError`, whatever its framework raises, and no error of anybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from millstream.clock import time_limit
from millstream.delivery.leaving import TookNothingError

if TYPE_CHECKING:
    from millstream.clock import Clock
    from millstream.delivery.feed import Messages
    from millstream.delivery.frame import Message

ENDED, BAD_REQUEST, BROKEN, RESTARTS = 1000, 1008, 1011, 1012
"""Close codes: all was sent; what was asked for cannot be; a stream could not go on; the server stops."""


class WebSocket(Protocol):
    """What is needed of a WebSocket. That of Starlette and FastAPI has it."""

    async def accept(self) -> None:
        """Take the connection."""
        ...

    async def send_text(self, data: str) -> None:
        """Send one message; raises if the client is gone."""
        ...

    async def receive(self) -> Mapping[str, Any]:
        """The next ASGI message: `websocket.receive` or `websocket.disconnect`."""
        ...

    async def close(self, code: int = 1000) -> None:
        """Close the connection."""
        ...


class GoneError(Exception):
    """The client is gone."""


class Line:
    """One connection.

    Args:
        websocket: nobody else may receive from it.
        clock: measures how long the client takes nothing.
        send_timeout: how many seconds that may be.
    """

    def __init__(self, websocket: WebSocket, *, clock: Clock, send_timeout: float) -> None:
        self._websocket = websocket
        self._clock = clock
        self._send_timeout = send_timeout
        self._sending = asyncio.Lock()

    async def send(self, message: Message) -> None:
        """Send one message. The errors of `within_time`."""
        await self.within_time(lambda: self._websocket.send_text(message.json.decode()))

    async def send_all(self, feed: Messages) -> int:
        """Send what a feed gives, to its end. The code to close with for it; the errors of `send`."""
        last = None
        while (messages := await feed.next()) is not None:
            for message in messages:
                await self.send(message)
                last = message
        return BROKEN if last is not None and last.position is None else ENDED

    async def hear(self, hear: Callable[[str | bytes], Awaitable[None]]) -> NoReturn:
        """Let `hear` have each message that comes, when it is done with the one before.

        Raises:
            GoneError: the client is gone.
        """
        while True:
            try:
                received = await self._websocket.receive()
            except Exception as error:
                raise GoneError from error
            if received["type"] == "websocket.disconnect":
                raise GoneError
            await hear(received.get("text") or received.get("bytes") or "")

    async def close(self, code: int) -> None:
        """Close the connection. The errors of `within_time`."""
        await self.within_time(lambda: self._websocket.close(code))

    async def within_time(self, send: Callable[[], Awaitable[None]]) -> None:
        """Send something, when nothing else is being sent.

        Raises:
            TookNothingError: the client did not take it in time.
            GoneError: there is no client.
        """
        async with self._sending:
            try:
                async with time_limit(self._clock, self._send_timeout, TookNothingError()):
                    await send()
            except TookNothingError:
                raise
            except Exception as error:  # each framework has a class of its own for it
                raise GoneError from error
