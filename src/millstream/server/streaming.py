"""An answer that streams to one client, whatever its messages are."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from starlette.responses import Response

from millstream.delivery.sse import SSE_HEADERS, SseFrames, send_stream
from millstream.server.answers import ProblemError, problem_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import Receive, Scope, Send

    from millstream.delivery.feed import Messages
    from millstream.server.service import Service


class Streamed(Response):
    """Streams `feed` to one client, in a place of its caller. Who leaves takes nothing with him, unless that was wished.

    Args:
        feed: what is sent; closed in any case.
        caller: whose place it takes.
        service: the server; where it stops, the end says when to come back.
        named: see `sse_frame`.
        headers: besides those of every stream.
        on_left: called where the client left before the end, and the server does not stop.
    """

    def __init__(
        self,
        feed: Messages,
        caller: str,
        service: Service,
        *,
        named: bool = False,
        headers: Mapping[str, str] | None = None,
        on_left: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(status_code=200, headers={**SSE_HEADERS, **(headers or {})})
        self._feed = feed
        self._caller = caller
        self._service = service
        self._named = named
        self._on_left = on_left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; returns at its end, or when the client is gone."""
        service, feed = self._service, self._feed
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        try:
            with service.streaming(feed, self._caller):
                await send_stream(
                    _Pieces(SseFrames(feed, named=self._named), service),
                    (scope, receive, send),
                    headers,
                    run_id=feed.run_id,
                    clock=service.clock,
                    send_timeout=service.send_timeout,
                )
        except ProblemError as refused:
            await problem_answer(refused.problem)(scope, receive, send)
        finally:
            left = not feed.is_over
            await feed.aclose()
            if left and self._on_left is not None and not service.is_stopping:
                await self._on_left()


class _Pieces:
    """The pieces of a stream; where the server stops, the last one says when to come back."""

    def __init__(self, frames: SseFrames, service: Service) -> None:
        self._frames = frames
        self._service = service
        self._is_over = False

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._frames)
        except StopAsyncIteration:
            if self._is_over or not self._service.is_stopping:
                raise
            self._is_over = True
            return b"retry: %d\n\n" % random.randint(SOONEST, LATEST)


SOONEST, LATEST = 1000, 3000
"""Milliseconds after which there should be another server, where one stops: a thousand readers do not all come back at once."""
