"""Exporters to files and consoles."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from millstream import UserError
from millstream.testing.awkward import awkward_values
from millstream.tracing import (
    BatchTraceProcessor,
    ConsoleSpanExporter,
    JsonLinesExporter,
    SpanError,
    TracingExporter,
    agent_span,
    custom_span,
    function_span,
    generation_span,
    guardrail_span,
    handoff_span,
    mcp_tools_span,
    response_span,
    set_trace_processors,
    task_span,
    trace,
    turn_span,
)

pytestmark = pytest.mark.usefixtures("recorder")


def export_to(exporter: TracingExporter) -> BatchTraceProcessor:
    processor = BatchTraceProcessor(exporter)
    set_trace_processors([processor])
    return processor


def test_a_file_has_a_line_of_json_for_each_trace_and_span(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text('{"what": "was there"}\n')
    processor = export_to(JsonLinesExporter(file))

    with trace("W", group_id="g") as whole, custom_span("x", {"a": 1}) as span:
        pass
    processor.shutdown()

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == [{"what": "was there"}, whole.export(), span.export()]


def test_an_open_file_will_do(tmp_path: Path) -> None:
    text = io.StringIO()
    processor = export_to(JsonLinesExporter(text))

    with trace("Ü"):
        pass
    processor.shutdown()

    assert json.loads(text.getvalue())["workflow_name"] == "Ü"


@pytest.mark.hostile
def test_whatever_a_span_is_about_its_line_is_strict_json(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    processor = export_to(JsonLinesExporter(file))
    values = awkward_values()

    with trace("W"):
        for value in values:
            with custom_span("x", {"value": value.value}):
                pass
    processor.shutdown()

    lines = file.read_bytes().split(b"\n")
    assert len(lines) == len(values) + 2
    for line in lines[:-1]:
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("to", "says"),
    [("no/such/folder/traces.jsonl", "no folder no/such/folder: make it first"), (7, "not int")],
)
def test_a_place_that_cannot_be_written_to_is_refused(to: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        JsonLinesExporter(to)


def test_the_console_has_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    processor = export_to(ConsoleSpanExporter())

    with trace("W", trace_id="trace_1"):
        for span in (
            task_span("T"), agent_span("A"), turn_span(2, "A"), generation_span(model="m"), response_span(),
            function_span("f"), handoff_span("A", "B"), guardrail_span("g"), mcp_tools_span("s"),
        ):  # fmt: skip
            with span:
                pass
        with custom_span("c") as failed:
            failed.set_error(SpanError(message="No.", data=None))
    processor.shutdown()

    lines = [line.replace(": 1 ms", ": 0 ms") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "trace W (trace_1)"
    assert [line.rpartition(":")[0] for line in lines[1:]] == [
        "  task T", "  agent A", "  turn 2", "  generation m", "  response", "  function f",
        "  handoff A → B", "  guardrail g", "  mcp_tools s", "  custom c",
    ]  # fmt: skip
    assert lines[-1].endswith(" ms, No.")
