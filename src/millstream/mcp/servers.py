"""The ways to a server: a program that is started, or HTTP in its two forms."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Protocol, cast
from urllib.parse import urlsplit

from pydantic import ValidationError
from typing_extensions import TypedDict

from millstream.errors import UserError
from millstream.mcp.client import MCPServerWithClient
from millstream.mcp.connection import Streams
from millstream.tool.threads import in_thread

if TYPE_CHECKING:
    import httpx2
    from mcp import StdioServerParameters


class MCPServerStdioParams(TypedDict):
    """The program that is the server."""

    command: str
    args: NotRequired[list[str]]
    env: NotRequired[dict[str, str]]
    """Added to the few variables that the program gets of ours: PATH, HOME, and the like."""
    cwd: NotRequired[str | Path]
    encoding: NotRequired[str]
    encoding_error_handler: NotRequired[Literal["strict", "ignore", "replace"]]
    """What becomes of bytes that are not of that encoding. If not given, "replace": the line that has
    them is passed over, as any line that is not MCP. With "strict" nothing is read from there on."""


class HttpClientFactory(Protocol):
    """Makes the HTTP client of a connection, which closes it."""

    def __call__(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        """A client of its own for each connection."""
        ...


class MCPServerSseParams(TypedDict):
    """Where a server is that speaks HTTP with SSE, the older of the two forms."""

    url: str
    headers: NotRequired[dict[str, str]]
    timeout: NotRequired[float]
    """Seconds that a request may take; 5, if not given."""
    sse_read_timeout: NotRequired[float]
    """Seconds of silence after which the connection is given up; 300, if not given."""
    auth: NotRequired[Any]
    httpx_client_factory: NotRequired[HttpClientFactory]


class MCPServerStreamableHttpParams(TypedDict):
    """Where a server is that speaks streamable HTTP."""

    url: str
    headers: NotRequired[dict[str, str]]
    timeout: NotRequired[timedelta | float]
    """Seconds that connecting and writing may take; 5, if not given."""
    sse_read_timeout: NotRequired[timedelta | float]
    """Seconds of silence after which an answer is given up; 300, if not given."""
    terminate_on_close: NotRequired[bool]
    """Whether the server is told that its session is over; True, if not given."""
    httpx_client_factory: NotRequired[HttpClientFactory]
    auth: NotRequired[Any]
    ignore_initialized_notification_failure: NotRequired[bool]
    """Has no effect: a server that answers a notification with an error is borne with in any case."""


class MCPServerStdio(MCPServerWithClient[MCPServerStdioParams]):
    """A server that is a program: started where it is needed, talked to over its standard input and output.

    Its name, if none is given, is `stdio: <command>`.
    """

    remedy = "Check that its command runs, and writes nothing but MCP to its standard output."

    def create_streams(self) -> AbstractAsyncContextManager[Streams]:
        """The program, started and talked to; it is stopped when this is left."""
        from mcp import stdio_client

        return stdio_client(self.params, errlog=_stderr())

    def _read(self, params: MCPServerStdioParams) -> StdioServerParameters:
        return _program(_checked(params, MCPServerStdioParams, "MCPServerStdio", "command"))

    def _place(self) -> str:
        return f"stdio: {self.params.command}"


class MCPServerSse(MCPServerWithClient[MCPServerSseParams]):
    """A server that speaks HTTP with SSE, the older of the two forms.

    Its name, if none is given, is `sse: <url>`, without user, password and query: these may be secret.
    """

    remedy = "Check that it runs at its url, and takes these headers."

    def create_streams(self) -> AbstractAsyncContextManager[Streams]:
        """A stream of events, and requests beside it."""
        return _sse(self.params)

    def _read(self, params: MCPServerSseParams) -> dict[str, Any]:
        return _checked(params, MCPServerSseParams, "MCPServerSse", "url")

    def _place(self) -> str:
        return f"sse: {_without_secrets(self.params['url'])}"


class MCPServerStreamableHttp(MCPServerWithClient[MCPServerStreamableHttpParams]):
    """A server that speaks streamable HTTP.

    Its name, if none is given, is `streamable_http: <url>`, without user, password and query:
    these may be secret.
    """

    remedy = "Check that it runs at its url, and takes these headers."

    @property
    def session_id(self) -> str | None:
        """The id of the session that was opened last, if the server gives any."""
        return self._answers.session_id

    def create_streams(self) -> AbstractAsyncContextManager[Streams]:
        """Requests, each of which is answered by a stream or at once."""
        return _streamable_http(self.params, self._answers)

    def _read(self, params: MCPServerStreamableHttpParams) -> dict[str, Any]:
        self._answers = _Answers()
        return _checked(params, MCPServerStreamableHttpParams, "MCPServerStreamableHttp", "url")

    def _reason(self, error: Exception) -> str:
        status = self._answers.status
        told = "" if status is None or status < 400 else f" (the last answer had HTTP status {status})"
        return super()._reason(error) + told

    def _place(self) -> str:
        return f"streamable_http: {_without_secrets(self.params['url'])}"


class _Answers:
    """What the client of the `mcp` package keeps to itself of the answers of a server."""

    session_id: str | None = None
    status: int | None = None

    async def look(self, response: httpx2.Response) -> None:
        self.session_id = response.headers.get("mcp-session-id") or self.session_id
        self.status = response.status_code


@asynccontextmanager
async def _sse(params: dict[str, Any]) -> AsyncGenerator[Streams]:
    from mcp.client.sse import sse_client

    http = await _http_client(params)

    def made(*_: Any, **__: Any) -> httpx2.AsyncClient:
        return http

    async with sse_client(params["url"], httpx_client_factory=made) as streams:
        yield streams


@asynccontextmanager
async def _streamable_http(params: dict[str, Any], answers: _Answers) -> AsyncGenerator[Streams]:
    from mcp.client.streamable_http import streamable_http_client

    http = await _http_client(params)
    http.event_hooks["response"].append(answers.look)
    terminate = params.get("terminate_on_close", True)
    async with (
        http,
        streamable_http_client(params["url"], http_client=http, terminate_on_close=terminate) as streams,
    ):
        yield streams


async def _http_client(params: dict[str, Any]) -> httpx2.AsyncClient:
    import httpx2

    timeout = httpx2.Timeout(
        _seconds(params.get("timeout", 5.0)), read=_seconds(params.get("sse_read_timeout", 300.0))
    )
    given: dict[str, Any] = {"headers": params.get("headers"), "timeout": timeout, "auth": params.get("auth")}
    make = params.get("httpx_client_factory")
    if make is not None:
        return make(**given)
    # It reads certificates, which takes 20 ms.
    return await in_thread(lambda: httpx2.AsyncClient(**given), "mcp")


def _stderr() -> Any:
    """Where a program may write its standard error: ours, where that is a file; in a notebook, say, it is none."""
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            cast("Any", stream).fileno()
            return stream
    return subprocess.DEVNULL


def _program(given: Mapping[str, Any]) -> StdioServerParameters:
    from mcp import StdioServerParameters

    try:
        return StdioServerParameters.model_validate({"encoding_error_handler": "replace", **given})
    except ValidationError as error:
        fields = ", ".join(sorted({str(each["loc"][0]) for each in error.errors()}))
        raise UserError(f"MCPServerStdio: params are not of the right type: {fields}.") from None


def _checked(params: Any, kind: Any, what: str, required: str) -> dict[str, Any]:
    """`params`, if they are what `kind` says.

    Raises:
        UserError: something in them is missing, or unknown.
    """
    if not isinstance(params, Mapping):
        raise UserError(f"{what}: params must be a dict with {required!r}, not {type(params).__name__}.")
    given = dict(cast("Mapping[str, Any]", params))
    known = sorted(kind.__annotations__)
    for name in given:
        if name not in known:
            raise UserError(f"{what}: params have no {name!r}. There are: {', '.join(known)}.")
    if not isinstance(given.get(required), str) or not given[required]:
        raise UserError(f"{what}: params need {required!r}, as text.")
    return given


def _seconds(value: timedelta | float) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
