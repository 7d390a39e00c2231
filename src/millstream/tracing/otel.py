"""Traces to OpenTelemetry, in the terms of its semantic conventions for generative AI.

    from millstream.tracing import add_trace_processor
    from millstream.tracing.otel import OpenTelemetryProcessor

    add_trace_processor(OpenTelemetryProcessor())

| here | there |
|---|---|
| trace | `invoke_workflow` |
| agent | `invoke_agent` |
| generation, response | `chat`, with the model's settings and `gen_ai.usage.*` |
| function | `execute_tool` |
| handoff, guardrail, MCP tools, custom | a span of that name |
| task, turn | none: what is in them belongs to what is around them |

The parent of a trace is the OpenTelemetry span that is current where the run is started: that of a
request, where a framework's instrumentation opens one. While a span is current here, its
OpenTelemetry span is current there, in the same task: what a tool's libraries open there are its
children. Nothing is ever detached by a token, so nothing can fail in a foreign context.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from millstream.about import __version__
from millstream.errors import MissingExtraError, UserError
from millstream.output import text_of
from millstream.tracing.create import get_current_span, get_current_trace
from millstream.tracing.otel_attributes import at_end, at_start, calls_others, error_type, name_of
from millstream.tracing.processors import TracingProcessor

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace as otel_trace
except ImportError as error:
    raise MissingExtraError("millstream.tracing.otel", "otel") from error

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import TracerProvider

    from millstream.tracing.spans import Span
    from millstream.tracing.traces import Trace

_HERE = otel_context.create_key("millstream-span")
"""In an OpenTelemetry context: what of ours is current in it, also where a span of others is opened in that."""


class OpenTelemetryProcessor(TracingProcessor):
    """Opens an OpenTelemetry span for what is traced here.

    Args:
        tracer_provider: makes the spans; None for the provider of the process. It stays yours to shut down.
        include_content: also tell what models and tools were given and gave. A run that records no
            sensitive data (`RunConfig.trace_include_sensitive_data`) tells nothing of it in any case.

    Raises:
        UserError: `tracer_provider` is none.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, *, include_content: bool = False
    ) -> None:
        if tracer_provider is not None and not callable(getattr(tracer_provider, "get_tracer", None)):
            raise UserError(
                f"OpenTelemetryProcessor(tracer_provider=…) takes a TracerProvider, not {type(tracer_provider).__name__}."
            )
        self._provider = tracer_provider
        self._tracer = otel_trace.get_tracer("millstream", __version__, tracer_provider)
        self._content = include_content
        # For as long as the traces and spans themselves: one that is never finished leaves nothing behind.
        self._opened: weakref.WeakKeyDictionary[Any, _Opened] = weakref.WeakKeyDictionary()
        self._by_id: weakref.WeakValueDictionary[str, _Opened] = weakref.WeakValueDictionary()

    @override
    def on_trace_start(self, trace: Trace) -> None:
        here = otel_context.get_current()
        attributes = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": trace.name}
        group = (trace.export() or {}).get("group_id")
        if group is not None:
            attributes["gen_ai.conversation.id"] = text_of(group)
        span = self._tracer.start_span(f"invoke_workflow {trace.name}", here, attributes=attributes)
        opened = self._open(trace, trace.trace_id, span, here)
        if get_current_trace() is trace and get_current_span() is None:
            opened.enter()

    @override
    def on_trace_end(self, trace: Trace) -> None:
        self._close(trace)

    @override
    def on_span_start(self, span: Span[Any]) -> None:
        around = self._by_id.get(span.parent_id or span.trace_id)
        here = otel_context.get_current()
        if around is not None and otel_context.get_value(_HERE, here) is not around:
            here = around.context  # a parent that is not the current one was asked for
        name = name_of(span.span_data)
        if name is None:
            if around is not None:
                self._opened[span] = self._by_id[span.span_id] = around
            return
        kind = otel_trace.SpanKind.CLIENT if calls_others(span.span_data) else otel_trace.SpanKind.INTERNAL
        started = self._tracer.start_span(name, here, kind=kind, attributes=at_start(span.span_data))
        opened = self._open(span, span.span_id, started, here)
        if get_current_span() is span:
            opened.enter()

    @override
    def on_span_end(self, span: Span[Any]) -> None:
        opened, name = self._opened.get(span), name_of(span.span_data)
        if opened is None or name is None:
            return
        try:
            opened.span.update_name(name)  # a handoff does not know where it leads when it begins
            if span.error is not None:
                kind, text = error_type(span.error)
                opened.span.set_attribute("error.type", kind)
                opened.span.set_status(otel_trace.StatusCode.ERROR, text)
            opened.span.set_attributes(at_end(span.span_data, include_content=self._content))
        finally:  # whatever the data was
            self._close(span)

    @override
    def shutdown(self) -> None:
        self.force_flush()

    @override
    def force_flush(self) -> None:
        provider: Any = self._provider or otel_trace.get_tracer_provider()
        if hasattr(provider, "force_flush"):
            provider.force_flush()

    def _open(self, of: Trace | Span[Any], its_id: str, span: otel_trace.Span, around: Context) -> _Opened:
        opened = self._opened[of] = self._by_id[its_id] = _Opened(span, around)
        return opened

    def _close(self, of: Trace | Span[Any]) -> None:
        opened = self._opened.get(of)
        if opened is not None:
            opened.span.end()
            opened.leave()


class _Opened:
    """A span of OpenTelemetry, and the context in which it is the current one."""

    def __init__(self, span: otel_trace.Span, around: Context) -> None:
        self.span = span
        self.around = around
        self.context = otel_trace.set_span_in_context(span, otel_context.set_value(_HERE, self, around))

    def enter(self) -> None:
        """Make it current here."""
        otel_context.attach(self.context)  # the token is not for us: see `leave`

    def leave(self) -> None:
        """Make current what was around it, where it still is the current one itself."""
        if otel_context.get_current() is self.context:
            otel_context.attach(self.around)
