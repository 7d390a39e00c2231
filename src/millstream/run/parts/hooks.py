"""Hooks of a run and of its agents: called in the run's own task, one after the other.

Of two hooks on one moment the run's is called first, but behind a model's answer, where it is
the agent's: as in the SDK. What a hook raises ends the run, and says whose it was; the hook
behind it is not called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from millstream.context import AgentHookContext, RunContextWrapper, settle
from millstream.errors import UserError
from millstream.hooks import AgentHooks, RunHooks
from millstream.run.seams import Seams

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import ToolContext
    from millstream.items import ModelResponse, TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.tool import FunctionTool


class Hooks(Seams):
    """Tells the hooks of a run, and those of the agent that acts, what happens.

    Args:
        hooks: those of the run, or None.

    Raises:
        UserError: they are no `RunHooks`.
    """

    def __init__(self, hooks: Any) -> None:
        self._hooks = check_hooks(hooks)

    async def agent_start(self, run: ActiveRun, agent: Agent[Any]) -> None:
        """An agent begins to act."""
        context = _hook_context(run)
        await _call(self._hooks, "on_agent_start", context, agent)
        await _call(agent.hooks, "on_start", context, agent)

    async def model_start(
        self, run: ActiveRun, agent: Agent[Any], instructions: str | None, input: Sequence[TResponseInputItem]
    ) -> None:
        """A model is about to be called. The hooks get the very list that it will be given."""
        context = run.progress.context_wrapper
        await _call(self._hooks, "on_llm_start", context, agent, instructions, input)
        await _call(agent.hooks, "on_llm_start", context, agent, instructions, input)

    async def model_end(self, run: ActiveRun, agent: Agent[Any], response: ModelResponse) -> None:
        """A model has answered."""
        context = run.progress.context_wrapper
        await _call(agent.hooks, "on_llm_end", context, agent, response)
        await _call(self._hooks, "on_llm_end", context, agent, response)

    async def tool_start(self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool) -> None:
        """A tool is about to run."""
        agent: Any = context.agent
        await _call(self._hooks, "on_tool_start", context, agent, tool)
        await _call(agent.hooks, "on_tool_start", context, agent, tool)

    async def tool_end(
        self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool, output: Any
    ) -> None:
        """A tool has run."""
        agent: Any = context.agent
        await _call(self._hooks, "on_tool_end", context, agent, tool, output)
        await _call(agent.hooks, "on_tool_end", context, agent, tool, output)

    async def handoff(self, run: ActiveRun, source: Agent[Any], target: Agent[Any]) -> None:
        """An agent hands over: its own hooks are told, as in the SDK, and not those of the agent that takes over."""
        context = run.progress.context_wrapper
        await _call(self._hooks, "on_handoff", context=context, from_agent=source, to_agent=target)
        await _call(source.hooks, "on_handoff", context, agent=target, source=source)

    async def final_output(self, run: ActiveRun, agent: Agent[Any], output: Any) -> None:
        """There is an output; its guardrails have yet to judge it."""
        context = _hook_context(run)
        await _call(self._hooks, "on_agent_end", context, agent, output)
        await _call(agent.hooks, "on_end", context, agent, output)


async def _call(
    hooks: RunHooks[Any] | AgentHooks[Any] | None, name: str, /, *args: Any, **named: Any
) -> None:
    if hooks is None:
        return
    try:
        await settle(getattr(hooks, name)(*args, **named))
    except Exception as error:
        with contextlib.suppress(Exception):  # an exception that is frozen, or has ideas of its own
            error.add_note(f"Raised by the hook {type(hooks).__name__}.{name}.")
        raise


def _hook_context(run: ActiveRun) -> AgentHookContext[Any]:
    """The context of the run as such hooks receive it: all that it has is shared."""
    context = run.progress.context_wrapper
    return AgentHookContext(**{each.name: getattr(context, each.name) for each in fields(RunContextWrapper)})


def check_hooks(hooks: Any) -> RunHooks[Any] | None:
    """Hooks as a run takes them.

    Raises:
        UserError: they are none.
    """
    if hooks is None or isinstance(hooks, RunHooks):
        return cast("RunHooks[Any] | None", hooks)
    given = type(hooks).__name__
    if isinstance(hooks, AgentHooks):
        raise UserError(
            f"hooks={given}(...): these are hooks of an agent, and a run takes RunHooks. "
            "Give them to their agent: Agent(hooks=...)."
        )
    raise UserError(f"hooks takes an instance of a subclass of RunHooks, or None, not {given}.")
