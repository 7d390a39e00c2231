"""Processors: who is told, in which order, and that their trouble is nobody else's."""

import logging
import subprocess
import sys
from typing import Any

import pytest

from millstream import Agent, Runner, UserError
from millstream.testing import ScriptedModel
from millstream.tracing import (
    ConsoleSpanExporter,
    Span,
    Trace,
    TracingProcessor,
    add_trace_processor,
    custom_span,
    flush_traces,
    get_trace_provider,
    set_trace_processors,
    trace,
)
from tests.support.traces import Recorder


class Failing(Recorder):
    """Raises whatever it is told."""

    def on_trace_start(self, trace: Trace) -> None:
        raise RuntimeError("no")

    on_trace_end = on_trace_start

    def on_span_start(self, span: Span[Any]) -> None:
        raise RuntimeError("no")

    on_span_end = on_span_start

    def shutdown(self) -> None:
        raise RuntimeError("no")

    force_flush = shutdown


def test_processors_are_told_one_after_the_other(recorder: Recorder) -> None:
    second = Recorder()
    second.calls = recorder.calls  # one list for both
    add_trace_processor(second)

    with trace("W"), custom_span("x"):
        pass
    flush_traces()

    assert recorder.calls == [
        call
        for each in ("start trace W", "start custom x", "end custom x", "end trace W", "flush")
        for call in (each, each)
    ]


def test_new_processors_take_the_place_of_the_old_which_are_not_shut_down(recorder: Recorder) -> None:
    new = Recorder()
    set_trace_processors([new])

    with trace("W"):
        pass

    assert recorder.calls == []
    assert new.calls == ["start trace W", "end trace W"]


def test_what_a_processor_raises_is_logged_once_and_is_nobody_elses_trouble(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    set_trace_processors([Failing(), recorder])
    agent = Agent(name="A", model=ScriptedModel(["Hi."], emit_traces=True))

    result = Runner.run_sync(agent, "Hello")
    flush_traces()
    get_trace_provider().shutdown()

    assert result.final_output == "Hi."
    assert recorder.open == set()
    assert recorder.calls[-2:] == ["flush", "shutdown"]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the trace processor Failing failed in on_trace_start(); what else it raises is not logged"
    ]
    assert caplog.records[0].exc_info


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Recorder, r"is an object, not a class: make one, Recorder\(\.\.\.\)"),
        (ConsoleSpanExporter(), r"exporter: hand it over as BatchTraceProcessor\(ConsoleSpanExporter\("),
        (print, "is no trace processor: it has no on_trace_start"),
    ],
)
def test_what_is_no_processor_is_refused_where_it_is_given(given: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        add_trace_processor(given)
    with pytest.raises(UserError, match=says):
        set_trace_processors([given])

    with pytest.raises(UserError, match="takes a list of processors, not Recorder"):
        set_trace_processors(Recorder())  # pyright: ignore[reportArgumentType]


def test_a_processor_of_a_subclass_has_to_have_it_all() -> None:
    class Half(TracingProcessor):
        def on_trace_start(self, trace: Trace) -> None: ...

    with pytest.raises(TypeError, match="on_span_end"):
        Half()  # pyright: ignore[reportAbstractUsage]


@pytest.mark.slow
def test_what_is_left_is_delivered_when_the_program_exits() -> None:
    program = """
from millstream.tracing import BatchTraceProcessor, ConsoleSpanExporter, add_trace_processor, custom_span, trace
add_trace_processor(BatchTraceProcessor(ConsoleSpanExporter(), schedule_delay=3600))
with trace("W"), custom_span("x"):
    pass
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[1].startswith("  custom x: ")
    assert done.stderr == ""
