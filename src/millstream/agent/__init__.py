"""Agents: descriptions of who acts in a run."""

from __future__ import annotations

from millstream.agent.agent import (
    Agent,
    AgentBase,
    StopAtTools,
    ToolsToFinalOutputFunction,
    ToolsToFinalOutputResult,
    ToolUseBehavior,
)
from millstream.agent.checks import check_agent, reachable, refuse_unsupported
from millstream.agent.output import AgentOutputSchema, AgentOutputSchemaBase, output_schema_of

__all__ = [
    "Agent",
    "AgentBase",
    "AgentOutputSchema",
    "AgentOutputSchemaBase",
    "StopAtTools",
    "ToolUseBehavior",
    "ToolsToFinalOutputFunction",
    "ToolsToFinalOutputResult",
    "check_agent",
    "output_schema_of",
    "reachable",
    "refuse_unsupported",
]
