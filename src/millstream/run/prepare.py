"""An agent made ready for one turn: its model, and what that is told, for this context and now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millstream.tool import FunctionTool, tool_names

if TYPE_CHECKING:
    from millstream.agent import Agent, AgentOutputSchemaBase
    from millstream.config import ModelSettings, RunConfig
    from millstream.handoff import Handoff
    from millstream.models.promise import Model
    from millstream.run.active import ActiveRun
    from millstream.tool import Tool


@dataclass(frozen=True)
class PreparedAgent:
    """An agent prepared for one turn."""

    agent: Agent[Any]
    model: Model
    settings: ModelSettings
    instructions: str | None
    tools: list[Tool]
    """Those that the model is shown."""
    by_name: dict[str, FunctionTool]
    """Those that are called, by the names that the model calls them by."""
    handoffs: dict[str, Handoff[Any, Any]]
    """By the names of their tools."""
    output_schema: AgentOutputSchemaBase | None


async def prepare(agent: Agent[Any], run: ActiveRun) -> PreparedAgent:
    """Ask `agent` for all that its next model call needs: whatever it makes by functions is made here.

    Raises:
        UserError: two of its tools have one name, where the policy is to raise; or a function
            of the agent's gave what cannot be used.
        Exception: what a function of the agent's raised.
    """
    progress = run.progress
    context = progress.context_wrapper
    instructions = await agent.get_system_prompt(context)
    tools = await agent.get_all_tools(context)
    handoffs = await agent.get_handoffs(context)
    by_name = tool_names(agent.name, tools, handoffs, policy=run.config.tool_name_collision_policy)
    # Of one name, the model is shown the one that is called.
    tools = [each for each in tools if not isinstance(each, FunctionTool) or by_name.get(each.name) is each]
    last = {handoff.tool_name: handoff for handoff in handoffs}
    settings = agent.settings_for(run.config.model).resolve(run.config.model_settings)
    if agent.reset_tool_choice and id(agent) in progress.have_used_tools:
        settings = settings.resolve_tool_choice(None)
    return PreparedAgent(
        agent=agent,
        model=model_of(agent, run.config),
        settings=settings,
        instructions=instructions,
        tools=tools,
        by_name=by_name,
        handoffs={each.tool_name: each for each in handoffs if last[each.tool_name] is each},
        output_schema=agent.output_schema(),
    )


def model_of(agent: Agent[Any], config: RunConfig) -> Model:
    """The model that answers for `agent` in a run.

    Raises:
        UnknownModelError: nobody serves it.
        MissingKeyError: it needs a key, and there is none.
    """
    wanted = config.model if config.model is not None else agent.model
    if wanted is not None and not isinstance(wanted, str):
        return wanted
    return config.get_model_provider().get_model(wanted)
