"""What a span is called in OpenTelemetry, and its attributes, by the conventions for generative AI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from millstream import codec
from millstream.output import text_of
from millstream.tracing.data import (
    AgentSpanData,
    CustomSpanData,
    FunctionSpanData,
    GenerationSpanData,
    GuardrailSpanData,
    HandoffSpanData,
    MCPListToolsSpanData,
    ResponseSpanData,
    SpanData,
    TaskSpanData,
    TurnSpanData,
)
from millstream.tracing.spans import SpanError

Attributes: TypeAlias = dict[str, Any]


def name_of(data: SpanData) -> str | None:
    """The name of the span; None for what has none there."""
    match data:
        case TaskSpanData() | TurnSpanData():
            return None
        case AgentSpanData():
            return f"invoke_agent {data.name}"
        case GenerationSpanData() | ResponseSpanData():
            return "chat" if data.model is None else f"chat {data.model}"
        case FunctionSpanData():
            return f"execute_tool {data.name}"
        case HandoffSpanData():
            return "handoff" if data.to_agent is None else f"handoff {data.to_agent}"
        case GuardrailSpanData():
            return f"guardrail {data.name}"
        case MCPListToolsSpanData():
            return "tools/list" if data.server is None else f"tools/list {data.server}"
        case CustomSpanData():
            return data.name
        case _:  # a kind of the program's own
            return text_of(data.type)


def calls_others(data: SpanData) -> bool:
    """Whether the span is about asking another program."""
    return isinstance(data, GenerationSpanData | ResponseSpanData | MCPListToolsSpanData)


def at_start(data: SpanData) -> Attributes:
    """What is known when the span begins, and what samplers may ask for."""
    match data:
        case AgentSpanData():
            return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": data.name}
        case GenerationSpanData() | ResponseSpanData():
            return _known(
                {
                    "gen_ai.operation.name": "chat",
                    "gen_ai.provider.name": _provider(data.model),
                    "gen_ai.request.model": data.model,
                }
                | _settings(data.model_config or {})
            )
        case FunctionSpanData():
            return _known(
                {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": data.name,
                    "gen_ai.tool.type": "function",
                    "gen_ai.tool.call.id": data.call_id,
                }
            )
        case HandoffSpanData():
            return _known({"millstream.handoff.from_agent": data.from_agent})
        case GuardrailSpanData():
            return {"millstream.guardrail.name": data.name}
        case MCPListToolsSpanData():
            return {"mcp.method.name": "tools/list"}
        case _:
            return {}


def at_end(data: SpanData, *, include_content: bool) -> Attributes:
    """What is known when it ends; with what was said and done, if `include_content`."""
    content: Attributes = {}
    match data:
        case GenerationSpanData():
            if include_content:
                content = _messages(data.input, data.output)
            return _known(_usage(data.usage) | content)
        case ResponseSpanData():
            response: Any = data.response
            if include_content:
                content = _messages(data.input, getattr(response, "output", None))
            answered = {
                "gen_ai.response.id": getattr(response, "id", None),
                "gen_ai.response.model": getattr(response, "model", None),
            }
            return _known(_usage(data.usage) | answered | content)
        case FunctionSpanData():
            if include_content:
                content = {
                    "gen_ai.tool.call.arguments": data.input,
                    "gen_ai.tool.call.result": None if data.output is None else text_of(data.output),
                }
            return _known(content)
        case HandoffSpanData():
            return _known({"millstream.handoff.to_agent": data.to_agent})
        case GuardrailSpanData():
            return {"millstream.guardrail.triggered": data.triggered}
        case MCPListToolsSpanData():
            return _known({"millstream.mcp.server": data.server, "millstream.mcp.tools": data.result})
        case CustomSpanData():
            return {f"millstream.custom.{key}": _value(value) for key, value in data.data.items()}
        case _:
            return {}


def error_type(error: SpanError) -> tuple[str, str]:
    """The kind of an error, of which there are few, and its text."""
    data = error.get("data") or {}
    return text_of(data.get("error_type") or "_OTHER"), text_of(data.get("error") or error["message"])


def _known(attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _value(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else codec.encode(value).decode()


# --- model calls ----------------------------------------------------------------------------------

_PROVIDERS = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "perplexity": "perplexity",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""The conventions' names of vendors, by what stands before the slash in LiteLLM's names of their models."""


def _provider(model: str | None) -> str:
    # Any other server speaks OpenAI's protocol, and goes by its name, as the conventions have it.
    return _PROVIDERS.get((model or "").partition("/")[0], "openai")


def _settings(settings: Mapping[str, Any]) -> Attributes:
    names = ("temperature", "top_p", "max_tokens", "frequency_penalty", "presence_penalty")
    return {f"gen_ai.request.{name}": settings.get(name) for name in names}


def _usage(usage: Mapping[str, Any] | None) -> Attributes:
    used = usage or {}
    read: Mapping[str, Any] = used.get("input_tokens_details") or {}
    written: Mapping[str, Any] = used.get("output_tokens_details") or {}
    return {
        "gen_ai.usage.input_tokens": used.get("input_tokens"),
        "gen_ai.usage.output_tokens": used.get("output_tokens"),
        "gen_ai.usage.cache_read.input_tokens": read.get("cached_tokens"),
        "gen_ai.usage.cache_creation.input_tokens": read.get("cache_write_tokens"),
        "gen_ai.usage.reasoning.output_tokens": written.get("reasoning_tokens"),
    }


def _messages(given: Any, said: Any) -> Attributes:
    """Input and output as JSON text, which is how attributes hold what has a structure."""
    told: Attributes = {}
    if given is not None:
        told["gen_ai.input.messages"] = _json(_message(item) for item in _items(given))
    if said is not None:
        parts = [part for item in _items(said) for part in _message(item)["parts"]]
        told["gen_ai.output.messages"] = _json([{"role": "assistant", "parts": parts}])
    return told


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    plain = [
        each.model_dump(exclude_unset=True, by_alias=True, warnings=False)
        if hasattr(each, "model_dump")
        else each
        for each in value
    ]
    return [each if isinstance(each, dict) else {"content": text_of(each)} for each in plain]


def _message(item: dict[str, Any]) -> dict[str, Any]:
    """An input or output item as a message of the conventions."""
    part = _PARTS.get(item.get("type", "message"), _other)(item)
    parts = cast("list[Any]", part) if isinstance(part, list) else [part]
    role = "tool" if item.get("type") == "function_call_output" else item.get("role", "assistant")
    return {"role": role, "parts": parts}


def _text(item: dict[str, Any]) -> list[dict[str, Any]]:
    content: Any = item.get("content")
    if not isinstance(content, list):
        return [{"type": "text", "content": "" if content is None else text_of(content)}]
    pieces = cast("list[Any]", content)
    return [
        {"type": "text", "content": piece["text"]}
        if isinstance(piece, dict) and "text" in piece
        else _other(piece)
        for piece in pieces
    ]


def _call(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "tool_call",
        "id": item.get("call_id"),
        "name": item.get("name"),
        "arguments": item.get("arguments"),
    }


def _result(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_call_response", "id": item.get("call_id"), "result": item.get("output")}


def _other(item: Any) -> dict[str, Any]:
    kind = cast("dict[str, Any]", item).get("type", "other") if isinstance(item, dict) else "other"
    return {"type": text_of(kind)}


_PARTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "message": _text,
    "function_call": _call,
    "function_call_output": _result,
}


def _json(value: Any) -> str:
    return codec.encode(list(value)).decode()
