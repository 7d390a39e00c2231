"""Hooks: callbacks on what happens in a run. Subclass one, and override what you want to see.

They are called in the run's own task, which waits for them. What one raises ends the run, with a
note that says whose it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from millstream.context import AgentHookContext, RunContextWrapper, TContext

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.items import ModelResponse, TResponseInputItem
    from millstream.tool import Tool


class RunHooks(Generic[TContext]):
    """Callbacks on a whole run, whichever agent acts. Each does nothing unless overridden."""

    async def on_llm_start(
        self,
        context: RunContextWrapper[TContext],
        agent: Agent[TContext],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        """A model is about to be asked."""

    async def on_llm_end(
        self, context: RunContextWrapper[TContext], agent: Agent[TContext], response: ModelResponse
    ) -> None:
        """A model has answered."""

    async def on_agent_start(self, context: AgentHookContext[TContext], agent: Agent[TContext]) -> None:
        """An agent begins to act."""

    async def on_agent_end(
        self, context: AgentHookContext[TContext], agent: Agent[TContext], output: Any
    ) -> None:
        """An agent has produced an output; guardrails have yet to judge it."""

    async def on_handoff(
        self,
        context: RunContextWrapper[TContext],
        from_agent: Agent[TContext],
        to_agent: Agent[TContext],
    ) -> None:
        """One agent hands over to another."""

    async def on_tool_start(
        self, context: RunContextWrapper[TContext], agent: Agent[TContext], tool: Tool
    ) -> None:
        """A tool is about to run."""

    async def on_tool_end(
        self, context: RunContextWrapper[TContext], agent: Agent[TContext], tool: Tool, result: object
    ) -> None:
        """A tool has returned."""


class AgentHooks(Generic[TContext]):
    """Callbacks on one agent. Each does nothing unless overridden."""

    async def on_start(self, context: AgentHookContext[TContext], agent: Agent[TContext]) -> None:
        """The agent begins to act."""

    async def on_end(self, context: AgentHookContext[TContext], agent: Agent[TContext], output: Any) -> None:
        """The agent has produced an output; guardrails have yet to judge it."""

    async def on_handoff(
        self, context: RunContextWrapper[TContext], agent: Agent[TContext], source: Agent[TContext]
    ) -> None:
        """This agent, `source`, hands over to `agent`, whose own hooks are not told."""

    async def on_tool_start(
        self, context: RunContextWrapper[TContext], agent: Agent[TContext], tool: Tool
    ) -> None:
        """A tool is about to run."""

    async def on_tool_end(
        self, context: RunContextWrapper[TContext], agent: Agent[TContext], tool: Tool, result: object
    ) -> None:
        """A tool has returned."""

    async def on_llm_start(
        self,
        context: RunContextWrapper[TContext],
        agent: Agent[TContext],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        """The model is about to be asked."""

    async def on_llm_end(
        self, context: RunContextWrapper[TContext], agent: Agent[TContext], response: ModelResponse
    ) -> None:
        """The model has answered."""
