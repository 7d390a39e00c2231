"""The response class of Starlette, and so of FastAPI. Imported where one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from millstream.delivery.sse import SSE_HEADERS

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.types import Receive, Scope, Send

    from millstream.delivery.sse import SseApp


class SseResponse(Response):
    """A stream as a response. Headers and cookies may be added, and a background task runs at its end.

    Args:
        stream: what is sent.
    """

    def __init__(self, stream: SseApp) -> None:
        self._stream = stream
        self.status_code = 200
        self.background: BackgroundTask | None = None
        self.init_headers(SSE_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; returns at its end, or when the client is gone."""
        await self._stream(scope, receive, send, headers=self.raw_headers)
        if self.background is not None:
            await self.background()
