"""Who takes part in a run, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.agent import reachable
from millstream.run.parts.budget import BudgetPart
from millstream.run.parts.guardrails import InputGuardrails, ToolGuardrails
from millstream.run.parts.hold import OutputGuardrails
from millstream.run.parts.hooks import Hooks
from millstream.run.parts.session import SessionPart
from millstream.run.parts.spans import trace_run
from millstream.run.seams import Seams, Together

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.config import RunConfig
    from millstream.run.parts.budget import Ledger


def parts_of(
    agent: Agent[Any],
    config: RunConfig,
    *,
    ledger: Ledger | None = None,
    hooks: Any = None,
    session: Any = None,
) -> Seams:
    """The seams of a run that begins with `agent`: those of all who have something to do in it.

    Args:
        agent: the run's first agent.
        config: the run's.
        ledger: where its usage is counted, if it has a budget.
        hooks: the `RunHooks` of the caller, or None.
        session: the session of the caller, or None.
    """
    parts: list[Seams] = [trace_run(config)]
    # In the order in which they are asked: spans, session, budget, guardrails, hooks.
    if session is not None:
        parts.append(SessionPart(session, config))
    if ledger is not None:
        parts.append(BudgetPart(ledger))
    parts += _guards_and_hooks(agent, config, hooks)
    return Together(parts) if len(parts) > 1 else parts[0]


def _guards_and_hooks(agent: Agent[Any], config: RunConfig, hooks: Any) -> list[Seams]:
    """Guardrails, hooks, and then the guardrails of the output: of that the hooks are told first."""
    parts: list[Seams] = []
    agents, are_all = reachable(agent)
    on_input = config.input_guardrails or ()
    if on_input or not are_all or any(each.input_guardrails for each in agents):
        parts.append(InputGuardrails(on_input, agent))
    if not are_all or any(map(_has_guarded_tools, agents)):
        parts.append(ToolGuardrails())
    if hooks is not None or not are_all or any(each.hooks is not None for each in agents):
        parts.append(Hooks(hooks))
    on_output = config.output_guardrails or ()
    if on_output or not are_all or any(each.output_guardrails for each in agents):
        parts.append(OutputGuardrails(on_output))
    return parts


def _has_guarded_tools(agent: Agent[Any]) -> bool:
    # Tools of MCP servers are not known before the run.
    return bool(agent.mcp_servers) or any(
        getattr(tool, "tool_input_guardrails", None) or getattr(tool, "tool_output_guardrails", None)
        for tool in agent.tools
    )
