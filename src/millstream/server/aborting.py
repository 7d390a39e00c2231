"""A way for an application to break a connection off, which ASGI has none for."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from millstream.delivery.leaving import ABORT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_AT_ONCE = struct.pack("ii", 1, 0)


def with_abort(app: ASGIApp, transport: Any) -> ASGIApp:
    """`app`, whose scopes have a function that breaks off the connection of `transport`, and drops what waits to be sent."""

    def abort() -> None:
        line: socket.socket | None = transport.get_extra_info("socket")
        if line is not None:  # nor does the system keep what it has not sent
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        transport.abort()

    async def abortable(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[ABORT] = abort
        await app(scope, receive, send)

    return abortable
