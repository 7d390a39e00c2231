"""A run over a WebSocket: one JSON object a message, and commands from the client.

| the client sends | what happens |
|---|---|
| `{"type": "cancel", "mode": "now"}` | the run is stopped; modes as in `RunResultStreaming.cancel` |
| `{"type": "ping"}` | `{"type": "pong"}` comes back |
| anything else | `{"type": "command.error", …}` comes back, and the stream goes on |
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from millstream import codec
from millstream.delivery.frame import PONG, Message, command_error_message
from millstream.delivery.leaving import TookNothingError, break_off, first_of, log_let_go
from millstream.delivery.line import BAD_REQUEST, GoneError, Line, WebSocket
from millstream.delivery.options import SEND_SECONDS, OnDisconnect, Options, check_handle, clock_of
from millstream.errors import DecodeError
from millstream.events import CancelMode

if TYPE_CHECKING:
    from millstream.result import RunResultStreaming

MAX_COMMAND = 16 * 1024
"""Bytes or characters of a command; what is longer is none."""


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
    line = Line(websocket, clock=clock_of(run), send_timeout=send_timeout)
    position = options.position_in(run)
    try:
        if _is_new(websocket):
            await line.within_time(websocket.accept)
        if isinstance(position, Message):
            await line.send(position)
            await line.close(BAD_REQUEST)
        else:
            await _follow(run, line, options, position)
    except GoneError:
        pass
    except TookNothingError:
        log_let_go(run.run_id, send_timeout, "websocket")
        await break_off(getattr(websocket, "scope", {}))


def _is_new(websocket: WebSocket) -> bool:
    """Whether nobody has accepted the connection yet."""
    state = getattr(websocket, "application_state", None)  # Starlette's
    return state is None or state.name == "CONNECTING"


async def _follow(run: RunResultStreaming, line: Line, options: Options, position: int) -> None:
    """Send the run beyond `position` and obey the client, until one of the two is at its end."""

    async def obey(data: str | bytes) -> None:
        answer = _answer(run, data)
        if answer is not None:
            await line.send(answer)

    loop = asyncio.get_running_loop()
    feed = options.feed(run, position)
    try:
        sender = loop.create_task(line.send_all(feed))
        await first_of(sender, loop.create_task(line.hear(obey)))
        await line.close(sender.result())
    finally:
        if not feed.is_over and options.on_disconnect == "cancel":
            run.cancel()
        await feed.aclose()


def _answer(run: RunResultStreaming, data: str | bytes) -> Message | None:
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
            run.cancel(mode)
            return None
        case _:
            return command_error_message("unknown_command", "Commands are `cancel` and `ping`.")


_MODES = get_args(CancelMode)
