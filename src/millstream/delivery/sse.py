"""A run as server-sent events: for any framework, for plain ASGI, for Starlette and FastAPI.

One way for all three: a `Feed` gives what is ready, `SseFrames` makes one piece of bytes of it,
`SseApp` sends each piece in one write until the client is gone.

One client, one reader of the run: a client that is slow costs its lag, one that leaves takes
nothing with it (`on_disconnect` may wish otherwise), and one that takes nothing for
`send_timeout` seconds is let go, and may resume.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from millstream.clock import time_limit
from millstream.delivery.frame import HEARTBEAT, Message, sse_frame
from millstream.delivery.leaving import TookNothingError, break_off, first_of, log_let_go
from millstream.delivery.options import (
    HEARTBEAT_SECONDS,
    SEND_SECONDS,
    OnDisconnect,
    Options,
    check_handle,
    clock_of,
    last_position,
)
from millstream.errors import MissingExtraError, UserError

if TYPE_CHECKING:
    from starlette.responses import Response

    from millstream.clock import Clock
    from millstream.delivery.feed import Messages
    from millstream.result import RunResultStreaming

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

SSE_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx passes on what it gets, when it gets it
}
"""The headers of a stream. `no-transform` keeps proxies from compressing, which would hold frames back."""


def to_sse(
    run: RunResultStreaming,
    *,
    after: int | str | None = None,
    depth: int | None = None,
    types: Iterable[str] | None = None,
    named: bool = False,
    heartbeat: float = HEARTBEAT_SECONDS,
    send_timeout: float = SEND_SECONDS,
    on_disconnect: OnDisconnect = "continue",
) -> Response:
    """A response for Starlette and FastAPI that streams `run` as server-sent events.

    ```python
    @app.post("/chat")
    async def chat(prompt: str):
        return to_sse(Runner.run_streamed(agent, prompt))
    ```

    One frame per entry of the log: its position as `id:`, its JSON as `data:`. The last frame is
    the terminal entry of the run or the `run.paused` at which it waits, or a `stream.gap` or `stream.error`
    that has no id.

    Args:
        run: the handle.
        after: the position behind which to begin; also the client's `Last-Event-ID` as it came.
            One that this run does not have is answered with status 400, and one behind which
            nothing comes any more with 204, at which browsers stop to reconnect.
        depth: how deep a run may be nested whose events are sent: 0 for this run alone, None for all.
        types: which types of events to send, for example `["tool.started", "response.output_text.delta"]`;
            None for all. The terminal entry is always sent, and the client's position moves on.
        named: write the type of each event on an `event:` line as well.
        heartbeat: after how many seconds of silence a comment is sent.
        send_timeout: how many seconds a client may take nothing before it is let go.
        on_disconnect: what becomes of the run when this client leaves before its end.

    Raises:
        UserError: an argument that cannot work.
        MissingExtraError: Starlette is not installed. `sse_app` and `sse_frames` do without.
    """
    stream = sse_app(
        run,
        after=after,
        depth=depth,
        types=types,
        named=named,
        heartbeat=heartbeat,
        send_timeout=send_timeout,
        on_disconnect=on_disconnect,
    )
    try:
        from millstream.delivery.response import SseResponse
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "starlette":
            raise
        raise MissingExtraError("to_sse()", "server") from None
    return SseResponse(stream)


def sse_app(
    run: RunResultStreaming,
    *,
    after: int | str | None = None,
    depth: int | None = None,
    types: Iterable[str] | None = None,
    named: bool = False,
    heartbeat: float = HEARTBEAT_SECONDS,
    send_timeout: float = SEND_SECONDS,
    on_disconnect: OnDisconnect = "continue",
) -> SseApp:
    """The response of `to_sse` as an ASGI application, which is called once, with the request that it answers.

    Raises:
        UserError: an argument that cannot work.
    """
    options = Options(
        "sse_app()",
        after=after,
        depth=depth,
        types=types,
        named=named,
        heartbeat=heartbeat,
        send_timeout=send_timeout,
        on_disconnect=on_disconnect,
    )
    return SseApp(check_handle("sse_app()", run), options)


def sse_frames(
    run: RunResultStreaming,
    *,
    after: int | str | None = None,
    depth: int | None = None,
    types: Iterable[str] | None = None,
    named: bool = False,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> SseFrames:
    """The body of `to_sse` as an async iterator of bytes, for any framework.

    Each piece holds whole frames and is to be written in one go. Send `SSE_HEADERS` with it.
    Leaving the iterator leaves the run alone; `RunConfig.when_unread` may wish otherwise.
    A position that the run does not have gives one `stream.error` frame.
    """
    options = Options("sse_frames()", after=after, depth=depth, types=types, named=named, heartbeat=heartbeat)
    position = options.position_in(check_handle("sse_frames()", run))
    if isinstance(position, Message):
        return SseFrames(None, named=named, first=position)
    return SseFrames(options.feed(run, position), named=named)


class SseFrames:
    """The pieces of an SSE body. May be read in one task and closed in another, or be dropped.

    Args:
        feed: what is sent; None for nothing.
        named: see `sse_frame`.
        first: a message that goes before.
    """

    def __init__(self, feed: Messages | None, *, named: bool = False, first: Message | None = None) -> None:
        self._feed = feed
        self._named = named
        self._first = first

    def __aiter__(self) -> SseFrames:
        return self

    async def __anext__(self) -> bytes:
        """The next piece: all frames that are ready, or a heartbeat."""
        first, self._first = self._first, None
        if first is not None:
            return sse_frame(first, named=self._named)
        messages = None if self._feed is None else await self._feed.next()
        if messages is None:
            raise StopAsyncIteration
        return b"".join([sse_frame(message, named=self._named) for message in messages]) or HEARTBEAT

    async def aclose(self) -> None:
        """Leave the run; it goes on. Safe to call twice."""
        self._first = None
        if self._feed is not None:
            await self._feed.aclose()


class SseApp:
    """One response, as an ASGI application that is called once.

    Args:
        run: the handle; let go of when the response ends.
        options: checked.
    """

    def __init__(self, run: RunResultStreaming, options: Options) -> None:
        self._run: RunResultStreaming | None = run
        self._options = options

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, *, headers: Headers | None = None
    ) -> None:
        """Answer a request.

        Args:
            scope: of the request.
            receive: tells when the client is gone.
            send: takes the response.
            headers: those of the response; None for `SSE_HEADERS`.
        """
        run, self._run = self._run, None  # a response that is kept must not keep the handle
        if run is None:
            raise UserError("This response was sent already: call to_sse() or sse_app() for each request.")
        if headers is None:
            headers = [(name.encode(), value.encode()) for name, value in SSE_HEADERS.items()]
        position = self._options.position_in(run)
        if isinstance(position, Message):
            json_headers = [*_without_type(headers), (b"content-type", b"application/json")]
            await _answer(send, 400, json_headers, position.json)
        elif run.is_complete and position == last_position(run):
            await _answer(send, 204, _without_type(headers), b"")
        else:
            feed = self._options.feed(run, position)
            try:
                await send_stream(
                    SseFrames(feed, named=self._options.named),
                    (scope, receive, send),
                    headers,
                    run_id=run.run_id,
                    clock=clock_of(run),
                    send_timeout=self._options.send_timeout,
                )
            finally:
                if not feed.is_over and self._options.on_disconnect == "cancel":
                    run.cancel()
                await feed.aclose()


async def send_stream(
    pieces: AsyncIterable[bytes],
    asgi: tuple[Scope, Receive, Send],
    headers: Headers,
    *,
    run_id: str,
    clock: Clock,
    send_timeout: float,
) -> None:
    """Answer a request with a stream, to its end or until its client is gone: that is no error of anybody's.

    Args:
        pieces: the stream.
        asgi: scope, receive and send of the request.
        headers: those of the answer.
        run_id: the run, for the log.
        clock: measures how long the client takes nothing.
        send_timeout: how many seconds that may be.
    """
    scope, receive, send = asgi
    try:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        if scope["method"] == "HEAD":
            await send(_END)
        else:
            await send_body(pieces, receive, send, clock=clock, send_timeout=send_timeout)
    except TookNothingError:
        log_let_go(run_id, send_timeout, "sse")
        await break_off(scope)
    except OSError:  # what servers raise where the client is gone
        pass


async def send_body(
    pieces: AsyncIterable[bytes], receive: Receive, send: Send, *, clock: Clock, send_timeout: float
) -> None:
    """Send each piece in one write, and the end of the body. Returns early when the client is gone.

    Raises:
        TookNothingError: the client did not take a piece within `send_timeout` seconds.
        OSError: what some servers raise where the client is gone.
    """

    async def write() -> None:
        async for piece in pieces:
            async with time_limit(clock, send_timeout, TookNothingError()):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        async with time_limit(clock, send_timeout, TookNothingError()):
            await send(_END)

    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    loop = asyncio.get_running_loop()
    await first_of(loop.create_task(write()), loop.create_task(disconnect()))


_END = {"type": "http.response.body", "body": b"", "more_body": False}


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _without_type(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name != b"content-type"]
