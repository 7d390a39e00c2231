"""Results: what an MCP server answered, as the output of a tool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp.types import CallToolResult

    from millstream.output import ToolOutputImageDict, ToolOutputTextDict


def output_of(result: CallToolResult, *, use_structured_content: bool = False) -> Any:
    """The output of a tool that `result` is.

    One part of content is that part, several are a list. Text and images are what they are;
    parts of other kinds are told as text, in JSON. Where `use_structured_content` says so, and
    there is some, the structured content alone is the output, as JSON.
    """
    if use_structured_content and result.structured_content and not result.is_error:
        return json.dumps(result.structured_content)
    parts = [_part(part) for part in result.content]
    return parts[0] if len(parts) == 1 else parts


def error_text(result: CallToolResult) -> str:
    """What a result that is an error says, for logs."""
    return " ".join(part.text for part in result.content if part.type == "text") or "no reason was given"


def _part(part: Any) -> ToolOutputTextDict | ToolOutputImageDict:
    if part.type == "text":
        return {"type": "text", "text": part.text}
    if part.type == "image":
        return {"type": "image", "image_url": f"data:{part.mime_type};base64,{part.data}"}
    return {"type": "text", "text": part.model_dump_json()}
