"""Servers that speak MCP, whatever the way to them. All of the protocol is the `mcp` package's."""

from __future__ import annotations

import abc
import contextlib
import contextvars
import functools
import importlib
import logging
import math
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from millstream.clock import current_clock, time_limit
from millstream.context import RunContextWrapper
from millstream.errors import MCPServerError, MissingExtraError, UserError
from millstream.mcp.connection import Connection, ConnectionLostError, Connections, Streams
from millstream.mcp.filters import ToolFilter, check_filter, filtered
from millstream.mcp.promise import UNSET, MCPServer, MCPToolMetaResolver, Unset
from millstream.mcp.trouble import is_cut_off, is_session_over, reason

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client.session import MessageHandlerFnT
    from mcp.shared.dispatcher import ProgressFnT
    from mcp.types import (
        CallToolResult,
        GetPromptResult,
        ListPromptsResult,
        ListResourcesResult,
        ListResourceTemplatesResult,
        ReadResourceResult,
    )
    from mcp.types import Tool as MCPTool

    from millstream.agent import AgentBase
    from millstream.guardrail import ToolInputGuardrail, ToolOutputGuardrail
    from millstream.mcp.approval import RequireApprovalSetting
    from millstream.tool import ToolErrorFunction

T = TypeVar("T")
Params = TypeVar("Params")

PROGRESS: contextvars.ContextVar[ProgressFnT | None] = contextvars.ContextVar("mcp_progress", default=None)
"""Who is told of the progress of a call. Not an argument: subclasses have `call_tool` as the SDK has it."""

logger = logging.getLogger("millstream")


class MCPServerWithClient(MCPServer, Generic[Params]):
    """A server that the client of the `mcp` package talks to.

    It connects when it is first used, and again where the connection was lost: `connect()` only
    does so earlier. Each event loop has a connection of its own, which ends with `cleanup()`,
    with its loop, or with this object, whatever comes first; calls may come from any task.

    Args:
        params: where the server is.
        cache_tools_list: whether its tools are asked for once, not in every turn.
        name: what it is called; if not given, the kind of server and where it is.
        client_session_timeout_seconds: how long an answer may take; None or 0 for as long as it takes.
        tool_filter: which tools agents are shown: a function, or `create_static_tool_filter(...)`.
        use_structured_content: see `MCPServer`, as for the arguments that are not told here.
        max_retry_attempts: how often a request that failed is made again, calls of tools too; -1
            for no limit.
        retry_backoff_seconds_base: seconds before the first of these; twice as many before each further one.
        message_handler: an async function that is told of what the server says unasked.
        require_approval: which tools need approval.
        failure_error_function: makes text of a failed call.
        tool_meta_resolver: gives the `_meta` of a call.
        custom_data_extractor: not supported.
        retry_backoff_seconds_max: as long as the wait gets at most.
        tool_input_guardrails: judge calls.
        tool_output_guardrails: judge outputs.
        max_list_pages: how many pages a listing may have.

    Raises:
        MissingExtraError: the `mcp` package is not installed.
        UserError: an argument is not what it can be.
        ValueError: a number is out of its range.
    """

    remedy: ClassVar[str]
    """What to check where it cannot be reached."""

    def __init__(
        self,
        params: Params,
        cache_tools_list: bool = False,
        name: str | None = None,
        client_session_timeout_seconds: float | None = 5,
        tool_filter: ToolFilter = None,
        use_structured_content: bool = False,
        max_retry_attempts: int = 0,
        retry_backoff_seconds_base: float = 1.0,
        message_handler: MessageHandlerFnT | None = None,
        require_approval: RequireApprovalSetting = None,
        failure_error_function: ToolErrorFunction | Unset | None = UNSET,
        tool_meta_resolver: MCPToolMetaResolver | None = None,
        custom_data_extractor: Any = None,
        retry_backoff_seconds_max: float | None = None,
        *,
        tool_input_guardrails: list[ToolInputGuardrail[Any]] | None = None,
        tool_output_guardrails: list[ToolOutputGuardrail[Any]] | None = None,
        max_list_pages: int | None = None,
    ) -> None:
        _require_mcp(type(self).__name__)
        super().__init__(
            use_structured_content=use_structured_content,
            require_approval=require_approval,
            failure_error_function=failure_error_function,
            tool_meta_resolver=tool_meta_resolver,
            custom_data_extractor=custom_data_extractor,
            tool_input_guardrails=tool_input_guardrails,
            tool_output_guardrails=tool_output_guardrails,
        )
        check_filter(tool_filter)
        _check_seconds("client_session_timeout_seconds", client_session_timeout_seconds)
        _check_seconds("retry_backoff_seconds_base", retry_backoff_seconds_base)
        _check_seconds("retry_backoff_seconds_max", retry_backoff_seconds_max)
        if max_retry_attempts < -1:
            raise ValueError("max_retry_attempts must be 0 or more, or -1 for no limit.")
        if max_list_pages is not None and max_list_pages < 1:
            raise ValueError("max_list_pages must be 1 or more, or None for no limit.")
        self.params = self._read(params)
        self.cache_tools_list = cache_tools_list
        self.tool_filter = tool_filter
        self.client_session_timeout_seconds = client_session_timeout_seconds
        self.max_retry_attempts = max_retry_attempts
        self.retry_backoff_seconds_base = retry_backoff_seconds_base
        self.retry_backoff_seconds_max = retry_backoff_seconds_max
        self.max_list_pages = max_list_pages
        self.message_handler = message_handler
        self._name = name or self._place()
        self._tools = _Tools()
        self._connections = Connections()
        # Owners of connections hold nothing of this object, so that it can go, and take them with it.
        weakref.finalize(self, self._connections.leave).atexit = False

    @abc.abstractmethod
    def _read(self, params: Params) -> Any:
        """Check `params`, and make of them what is kept."""

    @abc.abstractmethod
    def _place(self) -> str:
        """The name of a server that was given none."""

    @abc.abstractmethod
    def create_streams(self) -> AbstractAsyncContextManager[Streams]:
        """The way to the server: opened and closed by the connection's own task. Each call gives a new one."""

    @property
    def name(self) -> str:
        """The name that was given, or else what kind of server it is, and where."""
        return self._name

    @property
    def cached_tools(self) -> list[MCPTool] | None:
        """The tools that were listed last, unfiltered; None before that, and after `invalidate_tools_cache`."""
        return None if self._tools.listed is None else list(self._tools.listed)

    async def connect(self) -> None:
        """Connect the running event loop now, rather than when the first call is made.

        Raises:
            MCPServerError: it cannot be reached, or does not speak MCP.
        """
        await self._connected()

    async def cleanup(self) -> None:
        """Close all connections, and wait for that of the running event loop. Who calls again, connects again."""
        await self._connections.close()

    def invalidate_tools_cache(self) -> None:
        """Ask the server for its tools the next time, even if they are kept."""
        self._tools.forget()

    async def list_tools(
        self, run_context: RunContextWrapper[Any] | None = None, agent: AgentBase[Any] | None = None
    ) -> list[MCPTool]:
        """The tools that pass the filter. All pages are read; `cache_tools_list` keeps them until the server says that they changed.

        Raises:
            MCPServerError: it cannot be reached, did not answer in time, or answered what is not MCP.
            UserError: the filter is a function, and `run_context` or `agent` is missing.
        """
        tools = self._tools.listed if self.cache_tools_list else None
        if tools is None:
            changes = self._tools.changes
            tools = await self._with_retries(self._fetch_tools)
            if changes == self._tools.changes:  # else they are old already
                self._tools.listed = tools
        return await filtered(tools, self.tool_filter, self.name, run_context, agent)

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        """Run a tool. It is not called again where the answer was lost, unless `max_retry_attempts` says so.

        Raises:
            MCPServerError: it cannot be reached, did not answer in time, or answered what is not MCP.
            mcp.MCPError: the server refused the call.
        """
        on_progress = PROGRESS.get()

        async def call(client: Client) -> CallToolResult:
            return await client.call_tool(
                tool_name, arguments, progress_callback=on_progress, meta=cast("Any", meta)
            )

        return await self._with_retries(lambda: self._ask(call, repeatable=False))

    async def list_prompts(self) -> ListPromptsResult:
        """The prompts that the server has: all pages of them.

        Raises:
            MCPServerError: as for `list_tools`.
            mcp.MCPError: the server refused the request.
        """

        async def page(client: Client, cursor: str | None) -> ListPromptsResult:
            return await client.list_prompts(cursor=cursor)

        first, *others = await self._pages(page)
        prompts = [prompt for result in (first, *others) for prompt in result.prompts]
        return first.model_copy(update={"prompts": prompts, "next_cursor": None})

    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None) -> GetPromptResult:
        """One prompt, filled in.

        Raises:
            MCPServerError: as for `list_tools`.
            mcp.MCPError: the server has no such prompt, or refused the request.
        """
        return await self._ask(lambda client: client.get_prompt(name, arguments))

    async def list_resources(self, cursor: str | None = None) -> ListResourcesResult:
        """One page of the resources that the server has; `next_cursor` leads to the next one.

        Raises:
            MCPServerError: as for `list_tools`.
            mcp.MCPError: the server refused the request.
        """
        return await self._ask(lambda client: client.list_resources(cursor=cursor))

    async def list_resource_templates(self, cursor: str | None = None) -> ListResourceTemplatesResult:
        """One page of the templates of the resources' addresses.

        Raises:
            MCPServerError: as for `list_tools`.
            mcp.MCPError: the server refused the request.
        """
        return await self._ask(lambda client: client.list_resource_templates(cursor=cursor))

    async def read_resource(self, uri: str) -> ReadResourceResult:
        """What stands at `uri`.

        Raises:
            MCPServerError: as for `list_tools`.
            mcp.MCPError: the server has no such resource, or refused the request.
        """
        return await self._ask(lambda client: client.read_resource(uri))

    async def _fetch_tools(self) -> list[MCPTool]:
        from mcp import MCPError

        try:
            pages = await self._pages(lambda client, cursor: client.list_tools(cursor=cursor))
        except MCPError as error:
            raise self._failed(f"it refused to list its tools: {error}") from error
        tools: dict[str, MCPTool] = {}
        for tool in (tool for page in pages for tool in page.tools):
            if tools.setdefault(tool.name, tool) is not tool:
                logger.warning(
                    "MCP server %r lists two tools called %r: the first one counts", self.name, tool.name
                )
        return list(tools.values())

    async def _pages(self, page: Callable[[Client, str | None], Awaitable[T]]) -> list[T]:
        """All pages of a listing."""
        pages: list[T] = []
        cursors: set[str | None] = {None}
        cursor: str | None = None
        while True:
            pages.append(await self._ask(functools.partial(_page, page, cursor)))
            cursor = cast("Any", pages[-1]).next_cursor
            if cursor is None:
                return pages
            if cursor in cursors:
                raise self._failed("its listing goes in circles: a page leads to one before it")
            if self.max_list_pages is not None and len(pages) >= self.max_list_pages:
                raise self._failed(f"its listing has more than {self.max_list_pages} pages (max_list_pages=)")
            cursors.add(cursor)

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        done = 0
        while True:
            try:
                return await attempt()
            except Exception as error:
                if done == self.max_retry_attempts:
                    raise
                wait = min(
                    self.retry_backoff_seconds_base * 2.0 ** min(done, 1000),
                    math.inf if self.retry_backoff_seconds_max is None else self.retry_backoff_seconds_max,
                )
                logger.info("MCP server %r: %s; trying again in %g s", self.name, error, wait)
            done += 1
            await current_clock().sleep(wait)

    async def _ask(self, request: Callable[[Client], Awaitable[T]], *, repeatable: bool = True) -> T:
        """The answer to a request, which is made again where the connection was lost and that does no harm."""
        try:
            return await self._once(request)
        except ConnectionLostError as error:
            if not (repeatable or error.did_nothing):
                raise self._lost() from error
        try:
            return await self._once(request)
        except ConnectionLostError as error:
            raise self._lost() from error

    async def _once(self, request: Callable[[Client], Awaitable[T]]) -> T:
        from mcp import MCPError
        from mcp.types import REQUEST_TIMEOUT

        connection = await self._connected()
        try:
            return await self._in_time(connection, request)
        except (ConnectionLostError, MCPServerError):
            raise
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT and self._limit is not None:
                connection.is_suspect = True
                raise self._late() from error
            if is_cut_off(error):
                raise ConnectionLostError("The stream of the answer ended.") from error
            if not is_session_over(error):
                raise
            connection.leave()
            raise ConnectionLostError("The server has forgotten the session.", did_nothing=True) from error
        except Exception as error:
            why = self._reason(error)
            raise self._failed(f"it gave an answer that cannot be used: {why}") from error

    async def _in_time(self, connection: Connection, request: Callable[[Client], Awaitable[T]]) -> T:
        late = self._late()
        try:
            async with time_limit(current_clock(), self._limit, late):
                return await connection.ask(request)
        except MCPServerError as error:
            if error is late:
                connection.is_suspect = True
            raise

    async def _connected(self) -> Connection:
        """A connection of this loop that is open, and does not just look so.

        Raises:
            MCPServerError: it cannot be opened.
        """
        connection = self._connections.here(self._connect)
        try:
            await connection.opened()
        except Exception as error:
            raise self._failed(self._reason(error)) from error
        if connection.is_suspect and not await self._lives(connection):
            connection.leave()
            return await self._connected()
        return connection

    async def _lives(self, connection: Connection) -> bool:
        """Whether a server that was too slow answers at all. One that does not hangs, for this connection at least."""
        with contextlib.suppress(Exception):
            await self._in_time(connection, lambda client: client.list_tools())
        return connection.is_usable and not connection.is_suspect

    def _connect(self) -> Connection:
        limit, handler = self._limit, _handler(self._tools, self.message_handler)

        def client(transport: AbstractAsyncContextManager[Streams]) -> Client:
            from mcp import Client

            return Client(transport, read_timeout_seconds=limit, message_handler=handler, cache=None)

        return Connection(self.name, self.create_streams(), client)

    @property
    def _limit(self) -> float | None:
        return self.client_session_timeout_seconds or None

    def _reason(self, error: Exception) -> str:
        return reason(error)

    def _late(self) -> MCPServerError:
        return self._failed(f"it did not answer within {self._limit} s (client_session_timeout_seconds=)")

    def _lost(self) -> MCPServerError:
        return self._failed("the connection was lost before it answered", "The next call connects again.")

    def _failed(self, why: str, remedy: str | None = None) -> MCPServerError:
        return MCPServerError(self.name, f"MCP server {self.name!r}: {why}. {remedy or self.remedy}")


class _Tools:
    """The tools that a server listed last."""

    def __init__(self) -> None:
        self.listed: list[MCPTool] | None = None
        self.changes = 0
        """How often they were said to have changed."""

    def forget(self) -> None:
        self.listed = None
        self.changes += 1


def _handler(tools: _Tools, user: MessageHandlerFnT | None) -> MessageHandlerFnT:
    async def handle(message: Any) -> None:
        if getattr(message, "method", None) == "notifications/tools/list_changed":
            tools.forget()
        if user is not None:
            await user(message)

    return handle


async def _page(page: Callable[[Client, str | None], Awaitable[T]], cursor: str | None, client: Client) -> T:
    return await page(client, cursor)


def _require_mcp(what: str) -> None:
    """Import the package here, where a server is described: it takes a second, which no event loop should feel.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        importlib.import_module("mcp")
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "mcp") from error
    for late in ("jsonschema", "referencing", "mcp.client.sse", "mcp.client.streamable_http"):
        importlib.import_module(late)


def _check_seconds(name: str, seconds: Any) -> None:
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise UserError(f"{name} is a number of seconds, not {seconds!r}.")
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(f"{name} must be 0 or more seconds, and finite.")
