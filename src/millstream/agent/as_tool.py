"""An agent as a tool of another agent: how it is described, called and answered.

What is described here is run by `millstream.nested`, which stands above runs and their results.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from typing_extensions import TypedDict

from millstream.agent.checks import check_max_turns
from millstream.agent.tool_input import AgentToolInput
from millstream.context import MaybeAwaitable, ToolContext
from millstream.errors import UserError
from millstream.items import ItemHelpers, MessageOutputItem, ToolCallOutputItem, ToolOrigin, ToolOriginType
from millstream.tool import FunctionTool, ToolErrorFunction
from millstream.tool.function import Invoker

if TYPE_CHECKING:
    from openai.types.responses import ResponseFunctionToolCall

    from millstream.agent.agent import Agent
    from millstream.config import RunConfig
    from millstream.events import StreamEvent
    from millstream.hooks import RunHooks


class AgentToolStreamEvent(TypedDict):
    """An event of an agent that runs as a tool."""

    event: StreamEvent
    """One of the three kinds of `stream_events()`, in its order."""
    agent: Agent[Any]
    """The agent that acts."""
    tool_call: ResponseFunctionToolCall | None
    """The call that it answers."""


OnStream: TypeAlias = Callable[[AgentToolStreamEvent], MaybeAwaitable[None]]
OutputExtractor: TypeAlias = Callable[[Any], Awaitable[str]]
"""Makes the tool's output of the result of the agent's run."""


@dataclass(frozen=True)
class AgentTool:
    """How an agent runs as a tool: what `Agent.as_tool` was told of its run."""

    agent: Agent[Any]
    run_config: RunConfig | None
    max_turns: int | None
    hooks: RunHooks[Any] | None
    previous_response_id: str | None
    conversation_id: str | None
    session: Any
    on_stream: OnStream | None


class AgentInvoker(Invoker):
    """Answers a tool call by a run of an agent.

    Args:
        described: how the agent runs.
        input: what the model writes, and what becomes of it.
        extract_output: makes the tool's output of the result; None for the agent's output itself.
        failure_error_function: makes the text that the model is told of a run that failed.
    """

    def __init__(
        self,
        described: AgentTool,
        input: AgentToolInput,
        extract_output: OutputExtractor | None,
        failure_error_function: ToolErrorFunction | None,
    ) -> None:
        super().__init__(failure_error_function)
        self._described = described
        self._input = input
        self._extract_output = extract_output
        # By its name, as runs stand above agents; and here, where agents are described: an event
        # loop should not have to wait for it.
        self._nested: Any = importlib.import_module("millstream.nested")
        self._nested.check(described)

    @property
    def agent(self) -> Agent[Any]:
        """The agent that runs."""
        return self._described.agent

    async def invoke(self, context: ToolContext[Any], arguments: str) -> Any:
        """What the agent's run comes to."""
        # A test of a tool may call it with less than a `ToolContext`.
        params = self._input.read(getattr(context, "tool_name", self.agent.name), arguments)
        given = await self._input.build(params)
        tool_input = params if self._input.is_structured else None
        result = await self._nested.run_agent(self._described, context, given, tool_input)
        if result.interruptions:
            return result.final_output
        if self._extract_output is not None:
            return await self._extract_output(result)
        return _output(result)


def _output(result: Any) -> Any:
    """The output of the run; where that is empty, and nobody judged it so, the last words that were said in it."""
    output = result.final_output
    is_empty = output is None or (isinstance(output, str) and not output)
    if not is_empty or result.output_guardrail_results:
        return output
    for item in reversed(result.new_items):
        if isinstance(item, MessageOutputItem):
            said = ItemHelpers.text_message_output(item)
        elif isinstance(item, ToolCallOutputItem) and isinstance(item.output, str):
            said = item.output
        else:
            continue
        if said:
            return said
    return output


def agent_of(tool: Any) -> Agent[Any] | None:
    """The agent that `tool` runs; None for a tool that is no agent."""
    invoker = getattr(tool, "on_invoke_tool", None)
    return invoker.agent if isinstance(invoker, AgentInvoker) else None


def agent_tool(
    described: AgentTool,
    *,
    name: str | None,
    description: str | None,
    input: AgentToolInput,
    extract_output: OutputExtractor | None,
    failure_error_function: ToolErrorFunction | None,
    is_enabled: Any,
    needs_approval: Any,
) -> FunctionTool:
    """The tool that `Agent.as_tool` gives.

    Raises:
        UserError: something of the description cannot work, by its name.
    """
    agent = described.agent
    _check(described, extract_output, failure_error_function)
    if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(
            f"Agent {agent.name!r}: as_tool(tool_name=...) takes text, not {type(name).__name__}."
        )
    name = name or re.sub(r"[^a-zA-Z0-9_]", "_", agent.name).lower()
    return FunctionTool(
        name=name,
        description=description or "",
        params_json_schema=input.json_schema,
        on_invoke_tool=AgentInvoker(described, input, extract_output, failure_error_function),
        is_enabled=is_enabled,
        needs_approval=needs_approval,
        tool_origin=ToolOrigin(
            type=ToolOriginType.AGENT_AS_TOOL, agent_name=agent.name, agent_tool_name=name
        ),
    )


def _check(
    described: AgentTool,
    extract_output: OutputExtractor | None,
    failure_error_function: ToolErrorFunction | None,
) -> None:
    where = f"Agent {described.agent.name!r}: as_tool"
    functions = {
        "on_stream": described.on_stream,
        "custom_output_extractor": extract_output,
        "failure_error_function": failure_error_function,
    }
    for option, function in functions.items():
        if function is not None and not callable(function):
            raise UserError(f"{where}({option}=...) takes a function or None, not {type(function).__name__}.")
    check_max_turns(described.max_turns)
    config = described.run_config
    if config is not None and config.log is not None:
        raise UserError(
            f"{where}(run_config=...) has a log, and a run that is nested is written in the log of its root: "
            "leave it out."
        )
