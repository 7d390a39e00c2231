"""The WebSocket of uvicorn, with limits on what it does not pass on to an application, and so no application can bound.

Uvicorn answers each ping by itself, however much of that waits to be sent: whoever pings and reads nothing fills
the server's memory. It collects the pieces of a message by their bytes alone: those that have none cost it
memory without end. And it lets lie a handshake that is none, by POST say, instead of closing its connection.
`millstream serve` speaks WebSocket by this class.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from millstream.server.aborting import with_abort

MAX_PIECES = 4096
"""Frames that a message may be sent in."""

_NO_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_BIG = 1009


class FrameLimit(WebSocketsSansIOProtocol):
    """The WebSocket of uvicorn, where a client that takes nothing is not read either."""

    app: Any  # these two are uvicorn's
    transport: Any
    _is_full = False
    """Whether as much waits to be sent as may."""
    _pieces = 0
    """Frames that came of a message that is not whole yet."""

    def connection_made(self, transport: Any) -> None:
        """A client is there, whose connection was an HTTP one so far."""
        super().connection_made(transport)
        self.app = with_abort(self.app, transport)

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        self._is_full = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has taken what it was sent."""
        self._is_full = False
        super().resume_writing()
        if not self.read_paused:  # by uvicorn, for an application that is not ready for more
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Something came: its pings are answered by now."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self.handshake_initiated:  # uvicorn has handed over all of it
            self.transport.write(_NO_HANDSHAKE)
            self.transport.close()
        elif self._is_full and self.transport.is_reading():
            self.transport.pause_reading()

    def handle_cont(self, event: Any) -> None:
        """One more piece of a message came."""
        self._pieces = 0 if event.fin else self._pieces + 1
        if self._pieces <= MAX_PIECES:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(_TOO_BIG, f"a message in more than {MAX_PIECES} frames")
            self.handle_parser_exception()
