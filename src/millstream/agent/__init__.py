"""Agents: descriptions of who acts in a run."""

from __future__ import annotations

from millstream.agent.agent import (
    Agent,
    AgentBase,
    MCPConfig,
    StopAtTools,
    ToolsToFinalOutputFunction,
    ToolsToFinalOutputResult,
    ToolUseBehavior,
)
from millstream.agent.as_tool import AgentToolStreamEvent
from millstream.agent.checks import check_agent, check_max_turns, reachable, refuse_unsupported
from millstream.agent.output import AgentOutputSchema, AgentOutputSchemaBase, output_schema_of
from millstream.agent.tool_input import (
    AgentAsToolInput,
    StructuredToolInputBuilder,
    StructuredToolInputBuilderOptions,
    StructuredToolInputResult,
    default_tool_input_builder,
)

__all__ = [
    "Agent",
    "AgentAsToolInput",
    "AgentBase",
    "AgentOutputSchema",
    "AgentOutputSchemaBase",
    "AgentToolStreamEvent",
    "MCPConfig",
    "StopAtTools",
    "StructuredToolInputBuilder",
    "StructuredToolInputBuilderOptions",
    "StructuredToolInputResult",
    "ToolUseBehavior",
    "ToolsToFinalOutputFunction",
    "ToolsToFinalOutputResult",
    "check_agent",
    "check_max_turns",
    "default_tool_input_builder",
    "output_schema_of",
    "reachable",
    "refuse_unsupported",
]
