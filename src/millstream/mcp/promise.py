"""What an MCP server is to an agent: a place that lists tools and runs them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from millstream.context import MaybeAwaitable, RunContextWrapper
from millstream.errors import NotSupportedError
from millstream.mcp.approval import RequireApprovalSetting, read_policy
from millstream.tool import default_tool_error_function

if TYPE_CHECKING:
    from typing import Self

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
    from millstream.tool import ToolErrorFunction


class Unset:
    """Stands for a setting that nobody gave, where None means something."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET = Unset()


@dataclass
class MCPToolMetaContext:
    """The call for which a `tool_meta_resolver` is asked."""

    run_context: RunContextWrapper[Any]
    server_name: str
    tool_name: str
    arguments: dict[str, Any] | None


MCPToolMetaResolver: TypeAlias = Callable[[MCPToolMetaContext], MaybeAwaitable[dict[str, Any] | None]]
"""Gives what a call carries as `_meta`: request ids, tenants, and the like. May be async."""


class MCPServer(abc.ABC):
    """A server whose tools an agent may call: `Agent(mcp_servers=[server])`.

    Those that speak MCP are `MCPServerStdio`, `MCPServerSse` and `MCPServerStreamableHttp`. A
    subclass may be anything that lists tools and runs them.

    Args:
        use_structured_content: whether the structured content of a result, where there is some,
            is the output of the tool, in place of the other content.
        require_approval: which tools may be called only when somebody has approved of the call:
            "always" or "never" for all of them, a dict of these by name, lists
            (`{"always": {"tool_names": [...]}}`), or a function of context, agent and tool.
        failure_error_function: makes of a failed call the text that the model is told; None lets
            it end the run. Not given: what the agent's `mcp_config` says.
        tool_meta_resolver: gives what each call carries as `_meta`.
        custom_data_extractor: not supported.
        tool_input_guardrails: judge the calls of all its tools.
        tool_output_guardrails: judge the outputs of all its tools.

    Raises:
        UserError: `require_approval` is no policy.
    """

    def __init__(
        self,
        use_structured_content: bool = False,
        require_approval: RequireApprovalSetting = None,
        failure_error_function: ToolErrorFunction | Unset | None = UNSET,
        tool_meta_resolver: MCPToolMetaResolver | None = None,
        custom_data_extractor: Any = None,
        *,
        tool_input_guardrails: list[ToolInputGuardrail[Any]] | None = None,
        tool_output_guardrails: list[ToolOutputGuardrail[Any]] | None = None,
    ) -> None:
        if custom_data_extractor is not None:
            raise NotSupportedError(
                f"{type(self).__name__}: custom_data_extractor is not supported by this version: leave it out."
            )
        self.use_structured_content = use_structured_content
        self.tool_meta_resolver = tool_meta_resolver
        self.tool_input_guardrails = tool_input_guardrails
        self.tool_output_guardrails = tool_output_guardrails
        self.approval_policy = read_policy(require_approval)
        self._failure_error_function = failure_error_function

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called in messages, spans and prefixed names of tools."""

    @abc.abstractmethod
    async def connect(self) -> None:
        """Be ready for calls. Safe to call twice."""

    @abc.abstractmethod
    async def cleanup(self) -> None:
        """Let go of what `connect` holds. Safe to call twice."""

    @abc.abstractmethod
    async def list_tools(
        self, run_context: RunContextWrapper[Any] | None = None, agent: AgentBase[Any] | None = None
    ) -> list[MCPTool]:
        """The tools that `agent` may call in that run."""

    @abc.abstractmethod
    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        """Run a tool. A result with `is_error` is told to the model, as any other one."""

    @property
    def cached_tools(self) -> list[MCPTool] | None:
        """The tools that were listed last, unfiltered; None where none are kept."""
        return None

    @abc.abstractmethod
    async def list_prompts(self) -> ListPromptsResult:
        """The prompts that the server has."""

    @abc.abstractmethod
    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None) -> GetPromptResult:
        """One prompt, filled in."""

    async def list_resources(self, cursor: str | None = None) -> ListResourcesResult:
        """The resources that the server has, page by page.

        Raises:
            NotImplementedError: this kind of server has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no resources.")

    async def list_resource_templates(self, cursor: str | None = None) -> ListResourceTemplatesResult:
        """The templates of the resources' addresses, page by page.

        Raises:
            NotImplementedError: this kind of server has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no resources.")

    async def read_resource(self, uri: str) -> ReadResourceResult:
        """What stands at `uri`.

        Raises:
            NotImplementedError: this kind of server has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no resources.")

    def failure_error_function(
        self, otherwise: ToolErrorFunction | None = default_tool_error_function
    ) -> ToolErrorFunction | None:
        """What makes text of a failed call: the server's own, or else that of the agent."""
        return otherwise if isinstance(self._failure_error_function, Unset) else self._failure_error_function

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cleanup()
