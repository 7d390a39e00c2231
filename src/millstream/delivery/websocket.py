"""A run over a WebSocket: one JSON object a message, and commands from the client.

| the client sends | what happens |
|---|---|
| `{"type": "cancel", "mode": "now"}` | the run is stopped; modes as in `RunResultStreaming.cancel` |
| `{"type": "ping"}` | `{"type": "pong"}` comes back |
| anything else | `{"type": "command.error", …}` comes back, and the stream goes on |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, get_args

from millstream import codec
from millstream.clock import time_limit
from millstream.delivery.frame import PONG, Message, command_error_message
from millstream.delivery.leaving import TookNothingError, first_of, log_let_go
from millstream.delivery.options import SEND_SECONDS, OnDisconnect, Options, check_handle, clock_of
from millstream.errors import DecodeError
from millstream.events import CancelMode

if TYPE_CHECKING:
    from millstream.delivery.feed import Feed
    from millstream.result import RunResultStreaming

MAX_COMMAND = 16 * 1024
"""Bytes or characters of a command; what is longer is none."""

_ENDED, _BROKEN, _BAD_REQUEST = 1000, 1011, 1008
"""Close codes: the run has ended; the stream of it could not go on; a position that is none."""


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


async def to_websocket(
    run: RunResultStreaming,
    websocket: WebSocket,
    *,
    after: int | str | None = None,
    depth: int | None = None,
    types: Iterable[str] | None = None,
    send_timeout: float = SEND_SECONDS,
    on_disconnect: OnDisconnect = "continue",
) -> None:
    """Send `run` to a WebSocket until its end; returns when it is closed or the client is gone.

    ```python
    @app.websocket("/chat")
    async def chat(websocket: WebSocket):
        await websocket.accept()
        prompt = await websocket.receive_text()
        await to_websocket(Runner.run_streamed(agent, prompt), websocket)
    ```

    Each message is an entry of the log as JSON. Closed with 1000 after the terminal entry, with
    1011 after `stream.gap` or `stream.error`, with 1008 for a position that the run does not
    have. Accepts the connection if that was not done.

    Args:
        run: the handle.
        websocket: nobody else may receive from it meanwhile.
        after: the position behind which to begin.
        depth: see `to_sse`.
        types: see `to_sse`.
        send_timeout: how many seconds a client may take nothing before it is let go.
        on_disconnect: what becomes of the run when this client leaves before its end.

    Raises:
        UserError: an argument that cannot work.
    """
    options = Options(
        "to_websocket()",
        after=after,
        depth=depth,
        types=types,
        heartbeat=None,  # a WebSocket has pings of its own, which servers send
        send_timeout=send_timeout,
        on_disconnect=on_disconnect,
    )
    check_handle("to_websocket()", run)
    line = _Line(websocket, run, options)
    position = options.position_in(run)
    try:
        await line.accept()
        if isinstance(position, Message):
            await line.send(position)
            await line.close(_BAD_REQUEST)
        else:
            await line.follow(position)
    except _GoneError:
        pass
    except TookNothingError:
        log_let_go(run.run_id, send_timeout)


class _GoneError(Exception):
    """The client is gone."""


class _Line:
    """One connection: what is sent on it, and what comes."""

    def __init__(self, websocket: WebSocket, run: RunResultStreaming, options: Options) -> None:
        self._websocket = websocket
        self._run = run
        self._options = options
        self._sending = asyncio.Lock()

    async def follow(self, position: int) -> None:
        """Send the run beyond `position` and obey the client, until one of the two is at its end."""
        loop = asyncio.get_running_loop()
        feed = self._options.feed(self._run, position)
        try:
            sender = loop.create_task(self._send_all(feed))
            await first_of(sender, loop.create_task(self._obey()))
            await self.close(sender.result())
        finally:
            if not feed.is_over and self._options.on_disconnect == "cancel":
                self._run.cancel()
            await feed.aclose()

    async def accept(self) -> None:
        """Accept the connection, if that was not done. The same errors as `send`."""
        state = getattr(self._websocket, "application_state", None)  # Starlette's
        if state is None or state.name == "CONNECTING":
            await self._within_time(self._websocket.accept())

    async def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            TookNothingError: the client did not take it in time.
            _GoneError: there is no client.
        """
        async with self._sending:
            await self._within_time(self._websocket.send_text(message.json.decode()))

    async def close(self, code: int) -> None:
        """Close the connection. The same errors as `send`."""
        await self._within_time(self._websocket.close(code))

    async def _within_time(self, sending: Awaitable[None]) -> None:
        try:
            async with time_limit(clock_of(self._run), self._options.send_timeout, TookNothingError()):
                await sending
        except TookNothingError:
            raise
        except Exception as error:  # each framework has a class of its own for it
            raise _GoneError from error

    async def _send_all(self, feed: Feed) -> int:
        """Send what the feed gives. Returns the code to close with."""
        last = None
        while (messages := await feed.next()) is not None:
            for message in messages:
                await self.send(message)
                last = message
        return _BROKEN if last is not None and last.position is None else _ENDED

    async def _obey(self) -> None:
        while True:
            try:
                received = await self._websocket.receive()
            except Exception as error:
                raise _GoneError from error
            if received["type"] == "websocket.disconnect":
                raise _GoneError
            # Answered before the next is received: who sends without reading fills his own buffers.
            answer = self._answer(received.get("text") or received.get("bytes") or "")
            if answer is not None:
                await self.send(answer)

    def _answer(self, data: str | bytes) -> Message | None:
        """Do what the client asks for. What to tell it, if anything."""
        if len(data) > MAX_COMMAND:
            return command_error_message("too_long", f"A command has at most {MAX_COMMAND} bytes.")
        try:
            command = codec.decode(data)
        except DecodeError:
            return command_error_message("not_json", "A command is a JSON object with a `type`.")
        match command:
            case {"type": "ping"}:
                return PONG
            case {"type": "cancel"}:
                mode = command.get("mode", "now")
                if mode not in _MODES:
                    return command_error_message("unknown_mode", f"`mode` is one of {', '.join(_MODES)}.")
                self._run.cancel(mode)
                return None
            case _:
                return command_error_message("unknown_command", "Commands are `cancel` and `ping`.")


_MODES = get_args(CancelMode)
