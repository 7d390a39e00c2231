"""Decorators under one roof, as the OpenAI Agents SDK has them."""

from __future__ import annotations

from millstream.guardrail import (
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
    tool_output_guardrail,
)
from millstream.tool import function_tool, tool

__all__ = [
    "function_tool",
    "input_guardrail",
    "output_guardrail",
    "tool",
    "tool_input_guardrail",
    "tool_output_guardrail",
]
