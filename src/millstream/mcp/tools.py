"""The tools of MCP servers as function tools of an agent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from millstream.context import RunContextWrapper, ToolContext, settle
from millstream.errors import (
    AgentsException,
    DuplicateToolError,
    MCPServerError,
    MCPToolCancellationError,
    ModelBehaviorError,
    SchemaError,
    ToolFailedError,
)
from millstream.items import ToolOrigin, ToolOriginType
from millstream.mcp.approval import needs_approval
from millstream.mcp.client import PROGRESS
from millstream.mcp.names import prefixed_names
from millstream.mcp.promise import MCPServer, MCPToolMetaContext
from millstream.mcp.results import error_text, output_of
from millstream.schema import ensure_strict_json_schema
from millstream.tool import FunctionTool, default_tool_error_function
from millstream.tool.function import Invoker
from millstream.tracing import FunctionSpanData, get_current_span, mcp_tools_span

if TYPE_CHECKING:
    from mcp.shared.dispatcher import ProgressFnT
    from mcp.types import CallToolResult
    from mcp.types import Tool as MCPTool

    from millstream.agent import AgentBase
    from millstream.tool import Tool, ToolErrorFunction

logger = logging.getLogger("millstream")


class MCPUtil:
    """Makes function tools of the tools of MCP servers. Agents do so by themselves, in every turn."""

    @classmethod
    async def get_all_function_tools(
        cls,
        servers: list[MCPServer],
        convert_schemas_to_strict: bool,
        run_context: RunContextWrapper[Any],
        agent: AgentBase[Any],
        failure_error_function: ToolErrorFunction | None = default_tool_error_function,
        include_server_in_tool_names: bool = False,
        reserved_tool_names: set[str] | None = None,
    ) -> list[Tool]:
        """The tools of all `servers`, in their order; the servers are asked side by side.

        Raises:
            MCPServerError: one of them cannot be asked.
            DuplicateToolError: two of them have a tool of one name, and servers are not in the names.
        """
        listed = await _all(*(_listed(server, run_context, agent) for server in servers))
        if include_server_in_tool_names:
            names = prefixed_names(
                [
                    (server.name, [t.name for t in tools])
                    for server, tools in zip(servers, listed, strict=True)
                ],
                frozenset(reserved_tool_names or ()),
            )
        else:
            _check_names(servers, listed)
            names = [[None] * len(tools) for tools in listed]
        return [
            cls.to_function_tool(
                tool,
                server,
                convert_schemas_to_strict,
                agent,
                failure_error_function,
                tool_name_override=name,
            )
            for server, tools, given in zip(servers, listed, names, strict=True)
            for tool, name in zip(tools, given, strict=True)
        ]

    @classmethod
    async def get_function_tools(
        cls,
        server: MCPServer,
        convert_schemas_to_strict: bool,
        run_context: RunContextWrapper[Any],
        agent: AgentBase[Any],
        failure_error_function: ToolErrorFunction | None = default_tool_error_function,
        include_server_in_tool_names: bool = False,
        tool_name_override: Callable[[MCPTool], str] | None = None,
        reserved_tool_names: set[str] | None = None,
        server_index: int = 0,
    ) -> list[Tool]:
        """The tools of one server.

        Args:
            server: the server.
            convert_schemas_to_strict: see `to_function_tool`.
            run_context: the run that asks.
            agent: the agent that asks.
            failure_error_function: makes text of a failed call, where the server has none of its own.
            include_server_in_tool_names: give names as `mcp_<server>__<tool>`.
            tool_name_override: gives the name of each tool.
            reserved_tool_names: names that these may not be.
            server_index: has no effect.

        Raises:
            MCPServerError: it cannot be asked.
        """
        tools = await _listed(server, run_context, agent)
        names: list[str | None] = [tool_name_override(tool) if tool_name_override else None for tool in tools]
        if include_server_in_tool_names and tool_name_override is None:
            own = (server.name, [tool.name for tool in tools])
            names = list(prefixed_names([own], frozenset(reserved_tool_names or ()))[0])
        return [
            cls.to_function_tool(
                tool,
                server,
                convert_schemas_to_strict,
                agent,
                failure_error_function,
                tool_name_override=name,
            )
            for tool, name in zip(tools, names, strict=True)
        ]

    @classmethod
    def to_function_tool(
        cls,
        tool: MCPTool,
        server: MCPServer,
        convert_schemas_to_strict: bool,
        agent: AgentBase[Any] | None = None,
        failure_error_function: ToolErrorFunction | None = default_tool_error_function,
        tool_name_override: str | None = None,
    ) -> FunctionTool:
        """A function tool that calls `tool` on `server`.

        Args:
            tool: the tool, as the server lists it.
            server: the server.
            convert_schemas_to_strict: make its parameters a strict schema. One that no strict
                schema says the same as stays what it is.
            agent: the agent that it is for, which an approval policy is asked with.
            failure_error_function: makes text of a failed call, where the server has none of its own.
            tool_name_override: what the model calls it, where that is not its name.
        """
        schema, strict = _parameters(tool, convert_schemas_to_strict)
        title = tool.title or (tool.annotations.title if tool.annotations else None)
        name = tool_name_override or tool.name
        return FunctionTool(
            name=name,
            description=tool.description or title or "",
            params_json_schema=schema,
            on_invoke_tool=_MCPInvoker(
                server, tool, name, server.failure_error_function(failure_error_function)
            ),
            strict_json_schema=strict,
            needs_approval=needs_approval(server.approval_policy, tool, agent),
            tool_input_guardrails=server.tool_input_guardrails,
            tool_output_guardrails=server.tool_output_guardrails,
            tool_origin=ToolOrigin(ToolOriginType.MCP, mcp_server_name=server.name),
            title=title,
            mcp_annotations=tool.annotations,
        )

    @classmethod
    async def invoke_mcp_tool(
        cls,
        server: MCPServer,
        tool: MCPTool,
        context: RunContextWrapper[Any],
        input_json: str,
        *,
        meta: dict[str, Any] | None = None,
        tool_display_name: str | None = None,
    ) -> Any:
        """Call `tool` with the arguments that a model wrote, and give its output.

        A result that says of itself that it is an error is an output too, for the model to read;
        `context.failure` has it then. Progress that the server reports is that of `context`.

        Raises:
            ModelBehaviorError: the arguments are not a JSON object.
            MCPServerError: the server cannot be reached, or did not answer as one.
            MCPToolCancellationError: the call was cancelled, but not by whoever made it.
            mcp.MCPError: the server refused the call.
            ToolFailedError: anything else that went wrong.
        """
        name = tool_display_name or tool.name
        arguments = _arguments(name, input_json)
        span = get_current_span()
        if span is not None and isinstance(span.span_data, FunctionSpanData):
            span.span_data.mcp_data = {"server": server.name}
        with _progress_to(context):
            result = await _call(server, tool, context, arguments, meta)
        if result.is_error and isinstance(context, ToolContext):
            context.failure = ToolFailedError(
                f"MCP tool {tool.name} of server {server.name!r} failed: {error_text(result)}"
            )
        return output_of(result, use_structured_content=server.use_structured_content)


class _MCPInvoker(Invoker):
    """Calls a tool of a server."""

    def __init__(
        self, server: MCPServer, tool: MCPTool, name: str, failure_error_function: ToolErrorFunction | None
    ) -> None:
        super().__init__(failure_error_function)
        self._server = server
        self._tool = tool
        self._name = name

    async def invoke(self, context: ToolContext[Any], arguments: str) -> Any:
        """The tool's output."""
        return await MCPUtil.invoke_mcp_tool(
            self._server, self._tool, context, arguments, tool_display_name=self._name
        )


async def _call(
    server: MCPServer,
    tool: MCPTool,
    context: RunContextWrapper[Any],
    arguments: dict[str, Any],
    meta: dict[str, Any] | None,
) -> CallToolResult:
    from mcp import MCPError

    try:
        meta = await _meta(server, tool, context, arguments, meta)
        # Servers of users' own may have a `call_tool` that knows no `meta`.
        more = {} if meta is None else {"meta": meta}
        return await server.call_tool(tool.name, arguments, **more)
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        raise MCPToolCancellationError(
            f"Failed to call tool {tool.name!r} on MCP server {server.name!r}: tool execution was cancelled."
        ) from error
    except (AgentsException, MCPError):
        raise
    except Exception as error:
        raise ToolFailedError(
            f"Error invoking MCP tool {tool.name} on server {server.name!r}: {error}"
        ) from error


async def _meta(
    server: MCPServer,
    tool: MCPTool,
    context: RunContextWrapper[Any],
    arguments: dict[str, Any],
    given: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """What the call carries as `_meta`: what the server's resolver says, under what the caller does."""
    if server.tool_meta_resolver is None:
        return given
    asked = MCPToolMetaContext(context, server.name, tool.name, dict(arguments))
    resolved: Any = await settle(server.tool_meta_resolver(asked))
    if resolved is not None and not isinstance(resolved, dict):
        raise TypeError(f"tool_meta_resolver gave {type(resolved).__name__}, not a dict or None.")
    return {**(resolved or {}), **(given or {})} or None


class _progress_to:
    """Tells `context` of the progress of a call that is made within."""

    def __init__(self, context: RunContextWrapper[Any]) -> None:
        self._on_progress = _teller(context) if isinstance(context, ToolContext) else None

    def __enter__(self) -> None:
        self._token = PROGRESS.set(self._on_progress)

    def __exit__(self, *_: object) -> None:
        PROGRESS.reset(self._token)


def _teller(context: ToolContext[Any]) -> ProgressFnT:
    async def tell(progress: float, total: float | None, message: str | None) -> None:
        said = {"progress": progress, "total": total, "message": message}
        await context.progress({name: value for name, value in said.items() if value is not None})

    return tell


def _arguments(name: str, input_json: str) -> dict[str, Any]:
    try:
        given: Any = json.loads(input_json) if input_json.strip() else {}
    except ValueError:
        problem = ""
    else:
        if isinstance(given, dict):
            return cast("dict[str, Any]", given)
        problem = ": expected a JSON object"
    # Not raised from the error: it carries the arguments themselves.
    raise ModelBehaviorError(f"Invalid JSON input for tool {name}{problem}")


def _parameters(tool: MCPTool, to_strict: bool) -> tuple[dict[str, Any], bool]:
    """The schema of a tool's arguments, and whether it is strict."""
    plain, properties = dict(tool.input_schema), dict[str, Any](properties={})
    # Of an object whose properties nobody told, a strict schema would make one that has none.
    if to_strict and not (plain.get("type") == "object" and "properties" not in plain):
        try:
            return ensure_strict_json_schema({"type": "object", **properties, **plain}), True
        except SchemaError as error:
            logger.info("MCP tool %r keeps its schema: %s", tool.name, error)
    return {**properties, **plain}, False


async def _listed(
    server: MCPServer, run_context: RunContextWrapper[Any], agent: AgentBase[Any]
) -> list[MCPTool]:
    with mcp_tools_span(server=server.name) as span:
        try:
            tools = await server.list_tools(run_context, agent)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            raise MCPServerError(
                server.name, f"MCP server {server.name!r}: listing its tools was cancelled."
            ) from error
        span.span_data.result = [tool.name for tool in tools]
    return tools


def _is_cancelled() -> bool:
    """Whether somebody wants the task that runs here to stop."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _all(*listings: Any) -> list[list[MCPTool]]:
    results = await asyncio.gather(*listings, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[list[MCPTool]]", results)


def _check_names(servers: list[MCPServer], listed: list[list[MCPTool]]) -> None:
    owners: dict[str, MCPServer] = {}
    for server, tools in zip(servers, listed, strict=True):
        for tool in tools:
            if owners.setdefault(tool.name, server) is not server:
                raise DuplicateToolError(
                    f"MCP servers {owners[tool.name].name!r} and {server.name!r} both have a tool called "
                    f"{tool.name!r}. Filter one of them out (tool_filter=), or tell the model which is whose: "
                    "mcp_config={'include_server_in_tool_names': True}."
                )
