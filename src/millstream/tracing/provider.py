"""The provider makes traces and spans, and knows who is told of them. There is one in a process."""

from __future__ import annotations

import abc
import atexit
import os
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from millstream.errors import UserError
from millstream.tracing import ids
from millstream.tracing.current import current
from millstream.tracing.processors import Processors
from millstream.tracing.spans import NoOpSpan, RecordedSpan, Span, TSpanData
from millstream.tracing.traces import NoOpTrace, RecordedTrace, Trace

if TYPE_CHECKING:
    from millstream.tracing.processors import TracingProcessor
    from millstream.tracing.traces import TracingConfig

DISABLE = "OPENAI_AGENTS_DISABLE_TRACING"
"""The environment variable by which tracing is off from the beginning, if it is `1` or `true`; the SDK's."""


class TraceProvider(abc.ABC):
    """Makes traces and spans. Yours takes the place of the default one with `set_trace_provider`."""

    @abc.abstractmethod
    def register_processor(self, processor: TracingProcessor) -> None:
        """Tell `processor` too, behind those that are there."""

    @abc.abstractmethod
    def set_processors(self, processors: list[TracingProcessor]) -> None:
        """Tell these, and no others any more."""

    @abc.abstractmethod
    def get_current_trace(self) -> Trace | None:
        """The trace that is current here."""

    @abc.abstractmethod
    def get_current_span(self) -> Span[Any] | None:
        """The span that is current here."""

    @abc.abstractmethod
    def set_disabled(self, disabled: bool) -> None:
        """Record nothing from now on, or do so again."""

    @abc.abstractmethod
    def time_iso(self) -> str:
        """The time now, as ISO 8601."""

    @abc.abstractmethod
    def gen_trace_id(self) -> str:
        """A new id for a trace."""

    @abc.abstractmethod
    def gen_span_id(self) -> str:
        """A new id for a span."""

    @abc.abstractmethod
    def gen_group_id(self) -> str:
        """A new id for a group of traces."""

    @abc.abstractmethod
    def create_trace(
        self,
        name: str,
        trace_id: str | None = None,
        group_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        disabled: bool = False,
        tracing: TracingConfig | None = None,
    ) -> Trace:
        """A new trace, which has not begun."""

    @abc.abstractmethod
    def create_span(
        self,
        span_data: TSpanData,
        span_id: str | None = None,
        parent: Trace | Span[Any] | None = None,
        disabled: bool = False,
    ) -> Span[TSpanData]:
        """A new span, which has not begun; in the current span or trace, unless a parent is given."""

    def force_flush(self) -> None:
        """Deliver what has ended so far."""

    def shutdown(self) -> None:
        """Deliver what is left, and let go of everything."""


class DefaultTraceProvider(TraceProvider):
    """Records for the processors that were registered. As long as there is none, spans cost next to nothing.

    Without a processor, a trace has its id, but its spans are not recorded, also if one is
    added before it ends.
    """

    def __init__(self) -> None:
        self._processors = Processors()
        self._disabled = os.environ.get(DISABLE, "").strip().lower() in ("1", "true")

    @override
    def register_processor(self, processor: TracingProcessor) -> None:
        self._processors.add(processor)

    @override
    def set_processors(self, processors: list[TracingProcessor]) -> None:
        self._processors.replace(processors)

    @override
    def get_current_trace(self) -> Trace | None:
        return current().trace

    @override
    def get_current_span(self) -> Span[Any] | None:
        return current().span

    @override
    def set_disabled(self, disabled: bool) -> None:
        self._disabled = disabled

    @override
    def time_iso(self) -> str:
        return ids.time_iso()

    @override
    def gen_trace_id(self) -> str:
        return ids.gen_trace_id()

    @override
    def gen_span_id(self) -> str:
        return ids.gen_span_id()

    @override
    def gen_group_id(self) -> str:
        return ids.gen_group_id()

    @override
    def create_trace(
        self,
        name: str,
        trace_id: str | None = None,
        group_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        disabled: bool = False,
        tracing: TracingConfig | None = None,
    ) -> Trace:
        if disabled or self._disabled:
            return NoOpTrace()
        return RecordedTrace(
            name,
            self._processors or None,
            trace_id=trace_id,
            group_id=group_id,
            metadata=metadata,
            tracing=tracing,
        )

    @override
    def create_span(
        self,
        span_data: TSpanData,
        span_id: str | None = None,
        parent: Trace | Span[Any] | None = None,
        disabled: bool = False,
    ) -> Span[TSpanData]:
        if disabled or self._disabled:
            return NoOpSpan(span_data)
        trace, around = _place(parent)
        if not isinstance(trace, RecordedTrace) or trace.processors is None or isinstance(around, NoOpSpan):
            return NoOpSpan(span_data)
        parent_id = None if around is None else around.span_id
        return RecordedSpan(trace, parent_id, span_data, trace.processors, span_id)

    @override
    def force_flush(self) -> None:
        self._processors.force_flush()

    @override
    def shutdown(self) -> None:
        self._processors.shutdown()


def _place(parent: Any) -> tuple[Trace | None, Span[Any] | None]:
    """The trace and the span that a new span goes into."""
    if parent is None:
        here = current()
        return here.trace, here.span
    if isinstance(parent, Trace):
        return parent, None
    if isinstance(parent, RecordedSpan):
        return parent.trace, parent  # pyright: ignore[reportUnknownVariableType]
    if isinstance(parent, NoOpSpan):
        return None, None
    raise UserError(
        f"The parent of a span is a trace or a span of this library, not {type(parent).__name__}."
    )


# --- the provider of the process ----------------------------------------------------------------

_provider: TraceProvider | None = None


def get_trace_provider() -> TraceProvider:
    """The provider of the process; the default one, unless another was set."""
    return _provider or _use(DefaultTraceProvider())


def set_trace_provider(provider: TraceProvider) -> None:
    """Let `provider` make traces and spans from now on. It is shut down when the program exits."""
    _use(provider)


def _use(provider: TraceProvider) -> TraceProvider:
    global _provider  # the one of the process
    if _provider is None:
        atexit.register(lambda: get_trace_provider().shutdown())
    _provider = provider
    return provider


def add_trace_processor(span_processor: TracingProcessor) -> None:
    """Tell `span_processor` of traces and spans too, behind those that are there.

    Raises:
        UserError: it is no processor. An exporter goes into a `BatchTraceProcessor`.
    """
    get_trace_provider().register_processor(span_processor)


def set_trace_processors(processors: list[TracingProcessor]) -> None:
    """Tell these of traces and spans, and no others any more. `[]` records nothing, as at the beginning.

    Those that were there are not shut down: they may have something to deliver yet.

    Raises:
        UserError: one of them is no processor. An exporter goes into a `BatchTraceProcessor`.
    """
    get_trace_provider().set_processors(processors)


def set_tracing_disabled(disabled: bool) -> None:
    """Record nothing from now on in this process, or do so again. What is open goes on to its end.

    Args:
        disabled: whether traces and spans that are opened from now on do nothing.
    """
    get_trace_provider().set_disabled(disabled)


def flush_traces() -> None:
    """Let all processors deliver what has ended so far, and wait for it.

    Blocks: in an event loop, call it as `await asyncio.to_thread(flush_traces)`.
    """
    get_trace_provider().force_flush()
