"""Processors: who is told of traces and spans, and how their trouble is kept from runs."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from millstream.errors import UserError

if TYPE_CHECKING:
    from millstream.tracing.spans import Span
    from millstream.tracing.traces import Trace

logger = logging.getLogger("millstream")


class TracingProcessor(abc.ABC):
    """Is told when traces and spans begin and end. Register one with `add_trace_processor`.

    Methods are called one after the other, in the task or thread that begins or ends the span,
    while it is current there. They hold up the run, and so must be quick: what takes time
    (files, network) is for a `BatchTraceProcessor`. What they raise is logged once, and
    changes nothing for the run.
    """

    @abc.abstractmethod
    def on_trace_start(self, trace: Trace) -> None:
        """A trace begins."""

    @abc.abstractmethod
    def on_trace_end(self, trace: Trace) -> None:
        """A trace has ended. Spans of work that goes on may still come."""

    @abc.abstractmethod
    def on_span_start(self, span: Span[Any]) -> None:
        """A span begins. Its data may be incomplete."""

    @abc.abstractmethod
    def on_span_end(self, span: Span[Any]) -> None:
        """A span has ended, and its data is complete."""

    @abc.abstractmethod
    def shutdown(self) -> None:
        """The program ends: deliver what is left, and let go of everything."""

    @abc.abstractmethod
    def force_flush(self) -> None:
        """Deliver what has ended so far, and return when that is done."""


class TracingExporter(abc.ABC):
    """Delivers traces and spans to somewhere. A `BatchTraceProcessor` calls it on a thread of its own."""

    @abc.abstractmethod
    def export(self, items: list[Trace | Span[Any]]) -> None:
        """Deliver `items`: traces that began, spans that ended. What it raises is logged once; the items are lost."""


class Processors(TracingProcessor):
    """All processors of a provider, called in the order in which they were added."""

    def __init__(self) -> None:
        self._all: tuple[TracingProcessor, ...] = ()
        self._failed: set[int] = set()
        """The `id()` of each that has raised: it was logged."""

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, processor: TracingProcessor) -> None:
        """Take in one more."""
        _check(processor)
        self._all = (*self._all, processor)

    def replace(self, processors: Sequence[TracingProcessor]) -> None:
        """Take these in place of those that were there, which are not shut down."""
        if not isinstance(processors, list | tuple):
            raise UserError(
                f"set_trace_processors takes a list of processors, not {type(processors).__name__}."
            )
        for each in processors:
            _check(each)
        self._all = tuple(processors)
        self._failed.clear()

    def on_trace_start(self, trace: Trace) -> None:
        """Tell them all."""
        for each in self._all:
            self._tell(each, each.on_trace_start, trace)

    def on_trace_end(self, trace: Trace) -> None:
        """Tell them all."""
        for each in self._all:
            self._tell(each, each.on_trace_end, trace)

    def on_span_start(self, span: Span[Any]) -> None:
        """Tell them all."""
        for each in self._all:
            self._tell(each, each.on_span_start, span)

    def on_span_end(self, span: Span[Any]) -> None:
        """Tell them all."""
        for each in self._all:
            self._tell(each, each.on_span_end, span)

    def shutdown(self) -> None:
        """Shut them all down."""
        for each in self._all:
            self._tell(each, each.shutdown)

    def force_flush(self) -> None:
        """Let them all deliver."""
        for each in self._all:
            self._tell(each, each.force_flush)

    def _tell(self, processor: TracingProcessor, method: Callable[..., None], *about: Any) -> None:
        try:
            method(*about)
        except Exception:
            if id(processor) not in self._failed:
                self._failed.add(id(processor))
                logger.exception(
                    "the trace processor %s failed in %s(); what else it raises is not logged",
                    type(processor).__name__,
                    getattr(method, "__name__", "a method"),
                )


_METHODS = ("on_trace_start", "on_trace_end", "on_span_start", "on_span_end", "shutdown", "force_flush")


def _check(processor: Any) -> None:
    if isinstance(processor, type):
        raise UserError(f"A trace processor is an object, not a class: make one, {processor.__name__}(...).")
    lacking = [name for name in _METHODS if not callable(getattr(processor, name, None))]
    if not lacking:
        return
    name = type(processor).__name__
    if isinstance(processor, TracingExporter):
        raise UserError(f"{name} is an exporter: hand it over as BatchTraceProcessor({name}(...)).")
    raise UserError(f"{name} is no trace processor: it has no {lacking[0]}().")
