"""The functions that open traces and spans, and tell which are open here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millstream.tracing.data import (
    AgentSpanData,
    CustomSpanData,
    FunctionSpanData,
    GenerationSpanData,
    GuardrailSpanData,
    HandoffSpanData,
    MCPListToolsSpanData,
    ResponseSpanData,
    TaskSpanData,
    TurnSpanData,
)
from millstream.tracing.provider import get_trace_provider

if TYPE_CHECKING:
    from openai.types.responses import Response

    from millstream.tracing.spans import Span
    from millstream.tracing.traces import Trace, TracingConfig


def trace(
    workflow_name: str,
    trace_id: str | None = None,
    group_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    tracing: TracingConfig | None = None,
    disabled: bool = False,
) -> Trace:
    """Give a new trace, for several runs that make up one workflow: use it in a `with`.

    Runs that are started in the `with` join it. A run that is started in none has a trace of its own.

    Args:
        workflow_name: what the trace is called.
        trace_id: its id; None for a new one.
        group_id: ties traces together: those of one conversation, say.
        metadata: anything that belongs to it, for exporters.
        tracing: its settings.
        disabled: record nothing of it.
    """
    return get_trace_provider().create_trace(workflow_name, trace_id, group_id, metadata, disabled, tracing)


def get_current_trace() -> Trace | None:
    """The trace that is current here, if any: in tools and hooks, that of the run."""
    return get_trace_provider().get_current_trace()


def get_current_span() -> Span[Any] | None:
    """The span that is current here, if any: in a tool, that of its call.

    Where nobody records spans, it is one that does nothing.
    """
    return get_trace_provider().get_current_span()


# Each of these gives a span that has not begun: use it in a `with`. It goes into the current span
# or trace, unless `parent` is given; outside any trace, and with `disabled`, it records nothing.


def custom_span(
    name: str,
    data: dict[str, Any] | None = None,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[CustomSpanData]:
    """A span for work of your own. Its `span_data.data` may be added to while it is open."""
    span_data = CustomSpanData(name, {} if data is None else data)
    return get_trace_provider().create_span(span_data, span_id, parent, disabled)


def agent_span(
    name: str,
    handoffs: list[str] | None = None,
    tools: list[str] | None = None,
    output_type: str | None = None,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[AgentSpanData]:
    """A span for what an agent does. Runs open these by themselves."""
    data = AgentSpanData(name, handoffs, tools, output_type)
    return get_trace_provider().create_span(data, span_id, parent, disabled)


def task_span(
    name: str,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[TaskSpanData]:
    """A span for a whole run. Runs open these by themselves."""
    return get_trace_provider().create_span(TaskSpanData(name), span_id, parent, disabled)


def turn_span(
    turn: int,
    agent_name: str,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[TurnSpanData]:
    """A span for one turn of an agent. Runs open these by themselves."""
    return get_trace_provider().create_span(TurnSpanData(turn, agent_name), span_id, parent, disabled)


def generation_span(
    input: Sequence[Mapping[str, Any]] | None = None,
    output: Sequence[Mapping[str, Any]] | None = None,
    model: str | None = None,
    model_config: Mapping[str, Any] | None = None,
    usage: dict[str, Any] | None = None,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[GenerationSpanData]:
    """A span for a model call, told as messages. For a model that you call, or write, yourself."""
    data = GenerationSpanData(input, output, model, model_config, usage)
    return get_trace_provider().create_span(data, span_id, parent, disabled)


def response_span(
    response: Response | None = None,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[ResponseSpanData]:
    """A span for a call of the Responses API. For one that you make yourself."""
    return get_trace_provider().create_span(ResponseSpanData(response), span_id, parent, disabled)


def function_span(
    name: str,
    input: str | None = None,
    output: str | None = None,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[FunctionSpanData]:
    """A span for a call of a tool. Runs open these by themselves."""
    return get_trace_provider().create_span(FunctionSpanData(name, input, output), span_id, parent, disabled)


def handoff_span(
    from_agent: str | None = None,
    to_agent: str | None = None,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[HandoffSpanData]:
    """A span for a handoff. Runs open these by themselves."""
    return get_trace_provider().create_span(HandoffSpanData(from_agent, to_agent), span_id, parent, disabled)


def guardrail_span(
    name: str,
    triggered: bool = False,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[GuardrailSpanData]:
    """A span for a guardrail's judgement. Runs open these by themselves."""
    return get_trace_provider().create_span(GuardrailSpanData(name, triggered), span_id, parent, disabled)


def mcp_tools_span(
    server: str | None = None,
    result: list[str] | None = None,
    span_id: str | None = None,
    parent: Trace | Span[Any] | None = None,
    disabled: bool = False,
) -> Span[MCPListToolsSpanData]:
    """A span for asking an MCP server for its tools. Runs open these by themselves."""
    return get_trace_provider().create_span(MCPListToolsSpanData(server, result), span_id, parent, disabled)
