"""Checks of a set-up, made when a run starts and when another agent takes over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millstream.errors import NotSupportedError

if TYPE_CHECKING:
    from millstream.agent.agent import Agent
    from millstream.config import RunConfig


def refuse_unsupported(
    agent: Agent[Any], run_config: RunConfig | None = None, *, hooks: Any = None, session: Any = None
) -> None:
    """Refuse what this version would have to ignore.

    Raises:
        NotSupportedError: the agent, its tools, the configuration or the call asks for it; names the field.
    """
    for where, field, given in (
        ("Runner", "hooks", hooks is not None),
        ("Runner", "session", session is not None),
        *(_asked(f"Agent {agent.name!r}", agent, _OF_AGENTS)),
        *(_asked("RunConfig", run_config, _OF_RUN_CONFIGS)),
        *(each for tool in agent.tools for each in _asked(f"Tool {tool.name!r}", tool, _OF_TOOLS)),
        *(each for item in agent.handoffs for each in _asked("Handoff", item, _OF_HANDOFFS)),
    ):
        if given:
            raise NotSupportedError(f"{where}: {field} is not supported by this version: leave it out.")


# What is not supported yet: fields that must be empty, false or None.
_OF_AGENTS = ("mcp_servers", "input_guardrails", "output_guardrails", "hooks")
_OF_TOOLS = ("needs_approval", "tool_input_guardrails", "tool_output_guardrails", "on_approval_request")
_OF_HANDOFFS = ("nest_handoff_history",)
_OF_RUN_CONFIGS = (
    "nest_handoff_history",
    "handoff_history_mapper",
    "input_guardrails",
    "output_guardrails",
    "session_input_callback",
    "session_settings",
    "reasoning_item_id_policy",
    "output_guardrail_blocked_message",
)


def _asked(where: str, thing: Any, fields: Sequence[str]) -> list[tuple[str, str, bool]]:
    return [(where, field, bool(getattr(thing, field, None))) for field in fields]
