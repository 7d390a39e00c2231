"""Trouble: what went wrong with a connection, in the words of somebody who is to mend it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from pydantic import ValidationError

if TYPE_CHECKING:
    from mcp import MCPError


def innermost(error: BaseException) -> BaseException:
    """The first error within a group of them: what went wrong first."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def reason(error: BaseException) -> str:
    """Why something did not work, without the address of a server, which may have a secret in it."""
    import httpx2
    from mcp import MCPError
    from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

    error = innermost(error)
    if isinstance(error, httpx2.HTTPStatusError):
        return f"it answered with HTTP status {error.response.status_code}"
    if isinstance(error, httpx2.TimeoutException):
        return "it did not answer in time"
    if isinstance(error, httpx2.TransportError):
        return f"it could not be reached ({type(error).__name__}: {error})"
    if isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT:
        return "it did not answer in time"
    if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        return "it ended, or closed the connection, before it had answered"
    if isinstance(error, MCPError):
        return f"it did not go along ({error.message})"
    if isinstance(error, ValidationError):
        return "it is not what MCP says"
    if isinstance(error, OSError) and error.errno is not None:
        return f"it could not be started ({os.strerror(error.errno)})"
    return f"{type(error).__name__}: {error}"


def is_cut_off(error: MCPError) -> bool:
    """Whether the stream of events that was to bring the answer ended before it did."""
    from mcp.types import CONNECTION_CLOSED

    # Made by the client of the `mcp` package, too; but the code alone may be the server's own.
    return error.code == CONNECTION_CLOSED and error.message.startswith("SSE stream")


def is_session_over(error: MCPError) -> bool:
    """Whether a server that speaks HTTP does not know the session any more: it answered 404, and did nothing."""
    from mcp.types import INVALID_REQUEST

    # Made by the client of the `mcp` package, which has no code of its own for this.
    return error.code == INVALID_REQUEST and error.message == "Session terminated"
