"""A connection on which the headers of a request do not come to an end is closed.

Uvicorn has a limit for connections that are idle between two requests, and none for those that are amid
the headers of one: whoever sends a byte a minute holds a connection for ever, as often as he likes
("slowloris"). `millstream serve` speaks HTTP by this class; behind a proxy such limits are the proxy's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from millstream.server.aborting import with_abort

HEADER_SECONDS = 30.0
"""Seconds that a client may take for the headers of a request, from its connection or its first byte on."""

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HeaderLimit(AutoHTTPProtocol):
    """The HTTP of uvicorn, with a limit of time for headers."""

    seconds = HEADER_SECONDS
    """How long they may take."""

    app: Any  # these three are uvicorn's
    transport: Any
    cycle: Any
    """Uvicorn's last request whose headers came; None where there was none."""
    _timer: asyncio.TimerHandle | None = None
    _has_begun = False
    """Whether anything came of the request that is waited for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        super().connection_made(transport)
        self.app = with_abort(self.app, transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Something came: the rest of headers, perhaps."""
        super().data_received(data)
        if not self._awaits_headers():
            self._stop()
            return
        self._has_begun = True
        if self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop()
        super().connection_lost(exc)

    def _awaits_headers(self) -> bool:
        is_ours = self.transport.get_protocol() is self  # a WebSocket's are not, once it is one
        return is_ours and (self.cycle is None or self.cycle.response_complete)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.seconds, self._give_up)

    def _stop(self) -> None:
        self._has_begun = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._awaits_headers() and not self.transport.is_closing():
            if self._has_begun:
                self.transport.write(_TOO_SLOW)
            self.transport.close()
