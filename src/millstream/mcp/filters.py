"""Filters: which tools of an MCP server an agent is shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypeAlias, cast

from typing_extensions import TypedDict

from millstream.context import MaybeAwaitable, RunContextWrapper, settle
from millstream.errors import UserError

if TYPE_CHECKING:
    from mcp.types import Tool as MCPTool

    from millstream.agent import AgentBase

logger = logging.getLogger("millstream")


@dataclass
class ToolFilterContext:
    """For whom a filter decides."""

    run_context: RunContextWrapper[Any]
    agent: AgentBase[Any]
    server_name: str


class ToolFilterStatic(TypedDict):
    """Tools by their names: the allowed ones (all, where the list is missing) without the blocked ones."""

    allowed_tool_names: NotRequired[list[str]]
    blocked_tool_names: NotRequired[list[str]]


ToolFilterCallable: TypeAlias = Callable[[ToolFilterContext, "MCPTool"], MaybeAwaitable[bool]]
"""Says of one tool whether it is shown. May be async."""

ToolFilter: TypeAlias = ToolFilterCallable | ToolFilterStatic | None
"""What `tool_filter=` takes."""


def create_static_tool_filter(
    allowed_tool_names: list[str] | None = None, blocked_tool_names: list[str] | None = None
) -> ToolFilterStatic | None:
    """A filter by names; None, which lets all tools pass, where neither list is given."""
    static: ToolFilterStatic = {}
    if allowed_tool_names is not None:
        static["allowed_tool_names"] = allowed_tool_names
    if blocked_tool_names is not None:
        static["blocked_tool_names"] = blocked_tool_names
    return static or None


def check_filter(tool_filter: Any) -> None:
    """Refuse what is no filter.

    Raises:
        UserError: it is neither a function nor a dict of the two lists.
    """
    if tool_filter is None or callable(tool_filter):
        return
    if isinstance(tool_filter, dict) and set(cast("dict[str, Any]", tool_filter)) <= _LISTS:
        return
    raise UserError(
        "tool_filter takes a function of context and tool, or a dict with allowed_tool_names and "
        f"blocked_tool_names, not {tool_filter!r}."
    )


async def filtered(
    tools: Sequence[MCPTool],
    tool_filter: ToolFilter,
    server_name: str,
    run_context: RunContextWrapper[Any] | None,
    agent: AgentBase[Any] | None,
) -> list[MCPTool]:
    """The tools that the filter lets pass. A function that raises lets its tool not pass, and is logged.

    Raises:
        UserError: a function is to be asked, and nobody said for which run and agent.
    """
    if tool_filter is None:
        return list(tools)
    if not callable(tool_filter):
        allowed = tool_filter.get("allowed_tool_names")
        blocked = tool_filter.get("blocked_tool_names", [])
        return [t for t in tools if (allowed is None or t.name in allowed) and t.name not in blocked]
    if run_context is None or agent is None:
        raise UserError(
            f"MCP server {server_name!r}: its tool_filter is a function, which is asked for a run and an agent: "
            "list_tools(run_context, agent)."
        )
    context = ToolFilterContext(run_context, agent, server_name)
    return [tool for tool in tools if await _passes(tool, tool_filter, context)]


_LISTS = {"allowed_tool_names", "blocked_tool_names"}


async def _passes(tool: MCPTool, tool_filter: ToolFilterCallable, context: ToolFilterContext) -> bool:
    try:
        return bool(await settle(tool_filter(context, tool)))
    except Exception:
        # Who was to say that the tool may be seen did not.
        logger.exception(
            "MCP server %r: its tool_filter raised for %s, which is left out", context.server_name, tool.name
        )
        return False
