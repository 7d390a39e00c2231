"""Traces and spans: what a program's runs do, for tools that show it. Nothing is sent anywhere unless asked for.

    from millstream.tracing import BatchTraceProcessor, JsonLinesExporter, add_trace_processor

    add_trace_processor(BatchTraceProcessor(JsonLinesExporter("traces.jsonl")))

The names are the SDK's. `millstream.tracing.otel` is the way to OpenTelemetry.
"""

from millstream.tracing.batch import BatchTraceProcessor
from millstream.tracing.create import (
    agent_span,
    custom_span,
    function_span,
    generation_span,
    get_current_span,
    get_current_trace,
    guardrail_span,
    handoff_span,
    mcp_tools_span,
    response_span,
    task_span,
    trace,
    turn_span,
)
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
from millstream.tracing.exporters import ConsoleSpanExporter, JsonLinesExporter
from millstream.tracing.ids import gen_group_id, gen_span_id, gen_trace_id
from millstream.tracing.processors import TracingExporter, TracingProcessor
from millstream.tracing.provider import (
    DefaultTraceProvider,
    TraceProvider,
    add_trace_processor,
    flush_traces,
    get_trace_provider,
    set_trace_processors,
    set_trace_provider,
    set_tracing_disabled,
)
from millstream.tracing.spans import NoOpSpan, Span, SpanError
from millstream.tracing.traces import NoOpTrace, Trace, TracingConfig

__all__ = [
    "AgentSpanData",
    "BatchTraceProcessor",
    "ConsoleSpanExporter",
    "CustomSpanData",
    "DefaultTraceProvider",
    "FunctionSpanData",
    "GenerationSpanData",
    "GuardrailSpanData",
    "HandoffSpanData",
    "JsonLinesExporter",
    "MCPListToolsSpanData",
    "NoOpSpan",
    "NoOpTrace",
    "ResponseSpanData",
    "Span",
    "SpanData",
    "SpanError",
    "TaskSpanData",
    "Trace",
    "TraceProvider",
    "TracingConfig",
    "TracingExporter",
    "TracingProcessor",
    "TurnSpanData",
    "add_trace_processor",
    "agent_span",
    "custom_span",
    "flush_traces",
    "function_span",
    "gen_group_id",
    "gen_span_id",
    "gen_trace_id",
    "generation_span",
    "get_current_span",
    "get_current_trace",
    "get_trace_provider",
    "guardrail_span",
    "handoff_span",
    "mcp_tools_span",
    "response_span",
    "set_trace_processors",
    "set_trace_provider",
    "set_tracing_disabled",
    "task_span",
    "trace",
    "turn_span",
]
