"""A processor that remembers what it is told, for tests; put in place by the fixture `recorder`."""

from collections.abc import Iterator
from typing import Any

import pytest

from millstream.tracing import Span, Trace, TracingProcessor, set_trace_processors, set_tracing_disabled


class Recorder(TracingProcessor):
    """Remembers every call, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """What was called: `start trace W`, `end custom x`."""
        self.traces: list[Trace] = []
        self.spans: list[Span[Any]] = []
        """In the order in which they began."""
        self.open: set[str] = set()
        """The ids of those that have begun and not ended."""

    def on_trace_start(self, trace: Trace) -> None:
        self.calls.append(f"start trace {trace.name}")
        self.traces.append(trace)
        self.open.add(trace.trace_id)

    def on_trace_end(self, trace: Trace) -> None:
        self.calls.append(f"end trace {trace.name}")
        self.open.remove(trace.trace_id)

    def on_span_start(self, span: Span[Any]) -> None:
        self.calls.append(f"start {called(span)}")
        self.spans.append(span)
        self.open.add(span.span_id)

    def on_span_end(self, span: Span[Any]) -> None:
        self.calls.append(f"end {called(span)}")
        self.open.remove(span.span_id)

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def force_flush(self) -> None:
        self.calls.append("flush")

    def tree(self) -> list[str]:
        """Every span, indented below the one around it, as it began."""
        lines: list[str] = []

        def tell(parent: str | None, depth: int) -> None:
            for span in self.spans:
                if span.parent_id == parent:
                    lines.append("  " * depth + called(span))
                    tell(span.span_id, depth + 1)

        tell(None, 0)
        return lines

    def of(self, kind: str) -> list[Span[Any]]:
        """The spans of a type."""
        return [span for span in self.spans if span.span_data.type == kind]

    def one(self, kind: str) -> Span[Any]:
        """The one span of a type."""
        (span,) = self.of(kind)
        return span


def called(span: Span[Any]) -> str:
    data = span.span_data
    for field in ("name", "turn", "to_agent", "server"):
        if getattr(data, field, None) is not None:
            return f"{data.type} {getattr(data, field)}"
    return data.type


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """The one processor there is, until the test ends."""
    recorder = Recorder()
    set_trace_processors([recorder])
    yield recorder
    set_trace_processors([])
    set_tracing_disabled(False)
