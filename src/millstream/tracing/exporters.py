"""Exporters that need nothing but this machine: JSON lines, and lines for people."""

from __future__ import annotations

import sys
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from typing_extensions import override

from millstream import codec
from millstream.errors import UserError
from millstream.output import text_of
from millstream.tracing.processors import TracingExporter
from millstream.tracing.traces import Trace

if TYPE_CHECKING:
    from millstream.tracing.spans import Span


class JsonLinesExporter(TracingExporter):
    """Appends each trace and span to a file, as one line of strict JSON: what its `export()` gives.

    A trace stands where it began, a span where it ended, so children come before their parents. A
    value that has no JSON becomes a marked placeholder in its place, as in events. The file is opened
    for each batch, so that it may be rotated, and several processes may append to one.

    Args:
        to: the path of the file, or an open text file.

    Raises:
        UserError: the folder of the file does not exist, or `to` is neither.
    """

    def __init__(self, to: str | PathLike[str] | TextIO) -> None:
        self._path = Path(to) if isinstance(to, str | PathLike) else None
        self._file = None if isinstance(to, str | PathLike) else to
        if self._path is not None and not self._path.parent.is_dir():
            raise UserError(f"JsonLinesExporter: there is no folder {self._path.parent}: make it first.")
        if self._path is None and not hasattr(self._file, "write"):
            raise UserError(f"JsonLinesExporter takes a path or a text file, not {type(to).__name__}.")

    @override
    def export(self, items: list[Trace | Span[Any]]) -> None:
        """Append a line for each."""
        lines = b"".join(codec.encode(item.export()) + b"\n" for item in items)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(lines)
        else:
            file = cast("TextIO", self._file)
            file.write(lines.decode())
            file.flush()


class ConsoleSpanExporter(TracingExporter):
    """Prints a line for each trace that begins and each span that ends, for people to read.

    Args:
        file: where to print; None for the standard output.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file

    @override
    def export(self, items: list[Trace | Span[Any]]) -> None:
        """Print them."""
        lines = "".join(f"{_line(item)}\n" for item in items)
        file = self._file or sys.stdout
        file.write(lines)
        file.flush()


def _line(item: Trace | Span[Any]) -> str:
    if isinstance(item, Trace):
        return f"trace {item.name} ({item.trace_id})"
    data = item.span_data
    name = data.type if (about := _about(data)) is None else f"{data.type} {about}"
    error = "" if item.error is None else f", {item.error['message']}"
    return f"  {name}: {_milliseconds(item)}{error}"


def _about(data: Any) -> str | None:
    """What a span is called, besides its type."""
    if data.type == "handoff":
        return f"{data.from_agent} → {data.to_agent}"
    for field in ("name", "turn", "model", "server"):
        value = getattr(data, field, None)
        if value is not None:
            return text_of(value)
    return None


def _milliseconds(span: Span[Any]) -> str:
    if span.started_at is None or span.ended_at is None:
        return "not ended"
    seconds = datetime.fromisoformat(span.ended_at) - datetime.fromisoformat(span.started_at)
    return f"{seconds.total_seconds() * 1000:.0f} ms"
