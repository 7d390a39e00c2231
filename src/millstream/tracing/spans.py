"""Spans: one piece of work each, with its beginning, its end, and what it was about."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypedDict, TypeVar, override

from millstream.tracing.current import Current, current, enter, leave
from millstream.tracing.data import SpanData
from millstream.tracing.ids import NO_OP, gen_span_id, time_iso

if TYPE_CHECKING:
    from typing import Self

    from millstream.tracing.processors import TracingProcessor
    from millstream.tracing.traces import RecordedTrace

TSpanData = TypeVar("TSpanData", bound=SpanData, default=Any)


class SpanError(TypedDict):
    """What went wrong in a span."""

    message: str
    data: dict[str, Any] | None


class Span(abc.ABC, Generic[TSpanData]):
    """One piece of work. Use it as `with custom_span("look up") as span:`, or call `start` and `finish`.

    In the `with`, it is the current span: spans that are opened there are its children, also in
    tasks and threads that are started there. An exception that leaves the `with` becomes its
    error, by the name of its class, where none was set.
    """

    @property
    @abc.abstractmethod
    def trace_id(self) -> str:
        """The trace that it belongs to."""

    @property
    @abc.abstractmethod
    def span_id(self) -> str:
        """Its own id."""

    @property
    @abc.abstractmethod
    def span_data(self) -> TSpanData:
        """What it is about. May be changed until it is finished."""

    @abc.abstractmethod
    def start(self, mark_as_current: bool = False) -> None:
        """Begin. A second call does nothing.

        Args:
            mark_as_current: make it the current span.
        """

    @abc.abstractmethod
    def finish(self, reset_current: bool = False) -> None:
        """End. A second call does nothing. May be called from any task, thread or context.

        Args:
            reset_current: make current what was so before, where this span still is.
        """

    @property
    @abc.abstractmethod
    def parent_id(self) -> str | None:
        """The id of the span around it; None where there is only the trace."""

    @abc.abstractmethod
    def set_error(self, error: SpanError) -> None:
        """Say what went wrong. The last one counts."""

    @property
    @abc.abstractmethod
    def error(self) -> SpanError | None:
        """What went wrong, if anything."""

    @abc.abstractmethod
    def export(self) -> dict[str, Any] | None:
        """The span as a dict; None for one that nobody records."""

    @property
    @abc.abstractmethod
    def started_at(self) -> str | None:
        """When it began, as ISO 8601; None before."""

    @property
    @abc.abstractmethod
    def ended_at(self) -> str | None:
        """When it ended, as ISO 8601; None before."""

    @property
    @abc.abstractmethod
    def tracing_api_key(self) -> str | None:
        """The key of `TracingConfig`, for exporters that need one."""

    @property
    def trace_metadata(self) -> dict[str, Any] | None:
        """The metadata of its trace."""
        return None

    def __enter__(self) -> Self:
        self.start(mark_as_current=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and self.error is None and not issubclass(kind, GeneratorExit):
            # Its class and no more: its text may be what the program wants to keep to itself.
            self.set_error(SpanError(message=kind.__name__, data=None))
        self.finish(reset_current=True)


class NoOpSpan(Span[TSpanData]):
    """A span that nobody records: tracing is off, there is no trace, or no processor.

    It is used like any other, and so is what is opened in it, which is not recorded either.
    """

    def __init__(self, span_data: TSpanData) -> None:
        self._data = span_data
        self._before: Current | None = None

    @property
    @override
    def trace_id(self) -> str:
        return NO_OP

    @property
    @override
    def span_id(self) -> str:
        return NO_OP

    @property
    @override
    def span_data(self) -> TSpanData:
        return self._data

    @override
    def start(self, mark_as_current: bool = False) -> None:
        if mark_as_current and self._before is None:
            self._before = enter(Current(current().trace, self))

    @override
    def finish(self, reset_current: bool = False) -> None:
        if reset_current and self._before is not None:
            leave(self, self._before)

    @property
    @override
    def parent_id(self) -> str | None:
        return None

    @override
    def set_error(self, error: SpanError) -> None:
        pass

    @property
    @override
    def error(self) -> SpanError | None:
        return None

    @override
    def export(self) -> dict[str, Any] | None:
        return None

    @property
    @override
    def started_at(self) -> str | None:
        return None

    @property
    @override
    def ended_at(self) -> str | None:
        return None

    @property
    @override
    def tracing_api_key(self) -> str | None:
        return None


class RecordedSpan(Span[TSpanData]):
    """A span that processors are told of.

    Args:
        trace: the trace that it belongs to.
        parent_id: the span around it.
        span_data: what it is about.
        processors: who is told.
        span_id: its own id; None for a new one.
    """

    def __init__(
        self,
        trace: RecordedTrace,
        parent_id: str | None,
        span_data: TSpanData,
        processors: TracingProcessor,
        span_id: str | None = None,
    ) -> None:
        self._trace = trace
        self._parent_id = parent_id
        self._data = span_data
        self._processors = processors
        self._span_id = gen_span_id() if span_id is None else span_id
        self._error: SpanError | None = None
        self._started_at: str | None = None
        self._ended_at: str | None = None
        self._before: Current | None = None

    @property
    def trace(self) -> RecordedTrace:
        """The trace that it belongs to."""
        return self._trace

    @property
    @override
    def trace_id(self) -> str:
        return self._trace.trace_id

    @property
    @override
    def span_id(self) -> str:
        return self._span_id

    @property
    @override
    def span_data(self) -> TSpanData:
        return self._data

    @override
    def start(self, mark_as_current: bool = False) -> None:
        if self._started_at is not None:
            return
        self._started_at = time_iso()
        if mark_as_current:  # first, so that a processor knows
            self._before = enter(Current(self._trace, self))
        self._processors.on_span_start(self)

    @override
    def finish(self, reset_current: bool = False) -> None:
        if self._started_at is not None and self._ended_at is None:
            self._ended_at = time_iso()
            self._processors.on_span_end(self)
        if reset_current and self._before is not None:
            leave(self, self._before)

    @property
    @override
    def parent_id(self) -> str | None:
        return self._parent_id

    @override
    def set_error(self, error: SpanError) -> None:
        self._error = error

    @property
    @override
    def error(self) -> SpanError | None:
        return self._error

    @override
    def export(self) -> dict[str, Any] | None:
        return {
            "object": "trace.span",
            "id": self._span_id,
            "trace_id": self.trace_id,
            "parent_id": self._parent_id,
            "started_at": self._started_at,
            "ended_at": self._ended_at,
            "span_data": self._data.export(),
            "error": self._error,
        }

    @property
    @override
    def started_at(self) -> str | None:
        return self._started_at

    @property
    @override
    def ended_at(self) -> str | None:
        return self._ended_at

    @property
    @override
    def tracing_api_key(self) -> str | None:
        return self._trace.tracing_api_key

    @property
    @override
    def trace_metadata(self) -> dict[str, Any] | None:
        return self._trace.metadata
