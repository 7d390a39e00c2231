"""Tools: what a model may call."""

from __future__ import annotations

from typing import TypeAlias

from millstream.items import ToolOrigin, ToolOriginType
from millstream.output import (
    ToolOutput,
    ToolOutputFileContent,
    ToolOutputFileContentDict,
    ToolOutputImage,
    ToolOutputImageDict,
    ToolOutputText,
    ToolOutputTextDict,
    tool_output_parts,
)
from millstream.tool.function import (
    FunctionTool,
    FunctionToolResult,
    ToolErrorFunction,
    ToolTimeoutBehavior,
    default_tool_error_function,
    function_tool,
    invoke_function_tool,
    tool,
)
from millstream.tool.hosted import (
    CodeInterpreterTool,
    FileSearchTool,
    HostedMCPTool,
    ImageGenerationTool,
    WebSearchTool,
)
from millstream.tool.names import tool_names

HostedTool: TypeAlias = (
    WebSearchTool | FileSearchTool | CodeInterpreterTool | ImageGenerationTool | HostedMCPTool
)
"""A tool that the model's host runs."""

Tool: TypeAlias = FunctionTool | HostedTool
"""Anything that stands in `Agent.tools`."""

__all__ = [
    "CodeInterpreterTool",
    "FileSearchTool",
    "FunctionTool",
    "FunctionToolResult",
    "HostedMCPTool",
    "HostedTool",
    "ImageGenerationTool",
    "Tool",
    "ToolErrorFunction",
    "ToolOrigin",
    "ToolOriginType",
    "ToolOutput",
    "ToolOutputFileContent",
    "ToolOutputFileContentDict",
    "ToolOutputImage",
    "ToolOutputImageDict",
    "ToolOutputText",
    "ToolOutputTextDict",
    "ToolTimeoutBehavior",
    "WebSearchTool",
    "default_tool_error_function",
    "function_tool",
    "invoke_function_tool",
    "tool",
    "tool_names",
    "tool_output_parts",
]
