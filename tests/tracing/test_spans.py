"""Spans and traces by themselves: what is current, who is whose parent, and from where they may be closed."""

import asyncio
import contextvars
import gc
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from millstream import UserError
from millstream.tracing import (
    DefaultTraceProvider,
    NoOpSpan,
    NoOpTrace,
    Span,
    SpanData,
    SpanError,
    Trace,
    custom_span,
    function_span,
    gen_group_id,
    gen_span_id,
    gen_trace_id,
    get_current_span,
    get_current_trace,
    get_trace_provider,
    set_trace_provider,
    set_tracing_disabled,
    trace,
)
from millstream.tracing.provider import DISABLE
from tests.support.traces import Recorder


def in_another_context(do: Any) -> None:
    contextvars.Context().run(do)


def in_a_copy_of_this_context(do: Any) -> None:
    contextvars.copy_context().run(do)


def in_another_thread(do: Any) -> None:
    thread = threading.Thread(target=do)
    thread.start()
    thread.join()


def in_another_task(do: Any) -> None:
    async def main() -> None:
        await asyncio.create_task(as_coroutine())

    async def as_coroutine() -> None:
        do()

    asyncio.run(main())


ELSEWHERE = [in_another_context, in_a_copy_of_this_context, in_another_thread, in_another_task]


# --- what is current --------------------------------------------------------------------------


def test_a_span_is_current_in_its_with_and_the_parent_of_what_is_opened_there(recorder: Recorder) -> None:
    with trace("W") as whole:
        assert (get_current_trace(), get_current_span()) == (whole, None)
        with custom_span("outer") as outer:
            assert get_current_span() is outer
            with custom_span("inner") as inner:
                assert (get_current_trace(), get_current_span()) == (whole, inner)
        assert get_current_span() is None

    assert (get_current_trace(), get_current_span()) == (None, None)
    assert (outer.parent_id, inner.parent_id) == (None, outer.span_id)
    assert outer.trace_id == inner.trace_id == whole.trace_id
    assert recorder.calls == [
        "start trace W", "start custom outer", "start custom inner",
        "end custom inner", "end custom outer", "end trace W",
    ]  # fmt: skip


def test_a_span_that_is_only_started_is_not_current(recorder: Recorder) -> None:
    with trace("W"):
        span = custom_span("aside")
        span.start()

        assert get_current_span() is None

        span.finish()
    assert recorder.open == set()


def test_a_trace_within_a_trace_has_its_own_spans(recorder: Recorder) -> None:
    with trace("outer"), custom_span("in outer"):
        with trace("inner") as inner, custom_span("in inner") as span:
            pass
        assert get_current_trace() is recorder.traces[0]

    assert (span.trace_id, span.parent_id) == (inner.trace_id, None)


def test_a_span_may_be_put_below_any_other(recorder: Recorder) -> None:
    with trace("W") as whole, custom_span("current") as current:
        with custom_span("child", parent=current, span_id="span_mine") as child:
            pass
        with custom_span("in the trace", parent=whole) as top:
            pass

    assert (child.parent_id, child.span_id) == (current.span_id, "span_mine")
    assert top.parent_id is None
    assert len(recorder.spans) == 3


def test_the_parent_of_a_span_is_a_span_or_a_trace() -> None:
    with pytest.raises(UserError, match="parent of a span is a trace or a span of this library, not str"):
        custom_span("x", parent="span_1")  # pyright: ignore[reportArgumentType]


def test_tasks_and_threads_that_are_started_in_a_span_are_in_it(recorder: Recorder) -> None:
    async def look() -> Span[Any] | None:
        return get_current_span()

    async def main() -> None:
        with trace("W"), custom_span("x") as span:
            assert await asyncio.create_task(look()) is span
            assert await asyncio.to_thread(get_current_span) is span

    asyncio.run(main())


def test_tasks_side_by_side_do_not_see_each_others_spans(recorder: Recorder) -> None:
    async def work(name: str, both: asyncio.Barrier) -> None:
        with trace(name), custom_span(f"outer {name}"):
            await both.wait()
            with custom_span(f"inner {name}"):
                await both.wait()

    async def main() -> None:
        both = asyncio.Barrier(2)
        await asyncio.gather(work("a", both), work("b", both))

    asyncio.run(main())

    by_id = {span.span_id: span for span in recorder.spans}
    for inner in recorder.spans:
        if inner.parent_id is not None:
            outer = by_id[inner.parent_id]
            assert outer.span_data.name == inner.span_data.name.replace("inner", "outer")
            assert outer.trace_id == inner.trace_id


# --- closed from anywhere ---------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_what_was_begun_here_may_be_finished_anywhere(
    elsewhere: Any, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def use() -> None:
        whole = trace("W")
        whole.start(mark_as_current=True)
        span = custom_span("x")
        span.start(mark_as_current=True)
        elsewhere(lambda: span.finish(reset_current=True))
        elsewhere(lambda: whole.finish(reset_current=True))
        # Here it is none of theirs, and what is opened next is.
        span.finish(reset_current=True)
        whole.finish(reset_current=True)
        assert (get_current_trace(), get_current_span()) == (None, None)

    in_another_context(use)

    assert recorder.calls == ["start trace W", "start custom x", "end custom x", "end trace W"]
    assert caplog.records == []


def test_finishing_leaves_alone_what_another_context_has_current(recorder: Recorder) -> None:
    with trace("mine") as mine, custom_span("my span") as my_span:
        theirs: list[Trace] = []
        in_another_context(lambda: (theirs.append(trace("theirs")), theirs[0].start(mark_as_current=True)))

        theirs[0].finish(reset_current=True)

        assert (get_current_trace(), get_current_span()) == (mine, my_span)


def test_a_generator_that_the_collector_closes_leaves_no_trace(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def numbers() -> Iterator[int]:
        with trace("W"), custom_span("x"):
            yield from range(3)

    def use() -> None:
        reader: list[Iterator[int]] = [numbers()]
        in_another_context(lambda: next(reader[0]))
        reader.clear()
        gc.collect()

    use()

    assert (get_current_trace(), get_current_span()) == (None, None)
    assert recorder.open == set()
    assert recorder.spans[0].error is None
    assert caplog.records == []


def test_begun_twice_and_finished_twice_is_told_once(recorder: Recorder) -> None:
    with trace("W") as whole, custom_span("x") as span:
        span.start()
        whole.start()
        span.finish()
    span.finish()
    whole.finish()

    assert [call for call in recorder.calls if call.startswith("start")] == [
        "start trace W",
        "start custom x",
    ]
    assert [call for call in recorder.calls if call.startswith("end")] == ["end custom x", "end trace W"]


def test_what_never_began_does_not_end(recorder: Recorder) -> None:
    with trace("W"):
        custom_span("x").finish()
    trace("V").finish()

    assert recorder.calls == ["start trace W", "end trace W"]


# --- errors -----------------------------------------------------------------------------------


def test_an_exception_that_leaves_a_span_is_its_error_by_its_class_alone(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="secret"), trace("W"), custom_span("x") as span:
        raise ValueError("secret")

    assert span.error == {"message": "ValueError", "data": None}
    assert span.ended_at is not None


def test_an_error_that_was_set_stays(recorder: Recorder) -> None:
    said = SpanError(message="Too cold.", data={"degrees": -40})

    def fail(span: Span[Any]) -> None:
        span.set_error(said)
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"), trace("W"), custom_span("x") as span:
        fail(span)

    assert span.error == said
    exported = span.export()
    assert exported is not None
    assert exported["error"] == said


# --- nobody records ---------------------------------------------------------------------------


def test_a_span_outside_any_trace_does_nothing_and_can_be_used_like_any_other(recorder: Recorder) -> None:
    with custom_span("x", {"a": 1}) as span:
        span.span_data.data["b"] = 2
        span.set_error(SpanError(message="m", data=None))
        assert get_current_span() is span

    assert isinstance(span, NoOpSpan)
    assert span.span_data.data == {"a": 1, "b": 2}
    assert (span.trace_id, span.span_id, span.parent_id) == ("no-op", "no-op", None)
    assert (span.export(), span.error, span.started_at, span.ended_at) == (None, None, None, None)
    assert (span.tracing_api_key, span.trace_metadata) == (None, None)
    assert get_current_span() is None
    assert recorder.calls == []


def test_nothing_in_a_disabled_trace_or_span_is_recorded(recorder: Recorder) -> None:
    with trace("off", disabled=True) as off:
        with custom_span("x"):
            pass
        assert get_current_trace() is off
    with trace("on"), custom_span("off", disabled=True) as span, custom_span("in it"):
        with custom_span("told to", parent=span):
            pass
        assert get_current_trace() is recorder.traces[0]

    assert isinstance(off, NoOpTrace)
    assert (off.trace_id, off.name, off.export(), off.to_json()) == ("no-op", "no-op", None, None)
    assert off.tracing_api_key is None
    assert recorder.calls == ["start trace on", "end trace on"]
    assert (get_current_trace(), get_current_span()) == (None, None)


def test_tracing_can_be_turned_off_and_on_again_for_the_whole_process(recorder: Recorder) -> None:
    set_tracing_disabled(True)
    with trace("off"), custom_span("off"):
        pass
    set_tracing_disabled(False)
    with trace("on"), custom_span("on"):
        pass

    assert recorder.calls == ["start trace on", "start custom on", "end custom on", "end trace on"]


@pytest.mark.parametrize(
    ("said", "is_off"), [("1", True), ("true", True), ("TRUE", True), ("0", False), ("", False)]
)
def test_the_environment_may_turn_tracing_off(
    said: str, is_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DISABLE, said)

    assert isinstance(DefaultTraceProvider().create_trace("W"), NoOpTrace) is is_off


def test_without_a_processor_there_is_the_trace_and_its_id_but_no_span() -> None:
    with trace("W") as whole, custom_span("x") as span:
        assert get_current_trace() is whole
        assert get_current_span() is span

    assert whole.trace_id.startswith("trace_")
    assert isinstance(span, NoOpSpan)


# --- what is told of them ---------------------------------------------------------------------


def test_a_trace_and_its_spans_are_exported_as_dicts(recorder: Recorder) -> None:
    whole = trace("W", group_id="chat_7", metadata={"customer": 3}, tracing={"api_key": "k"})
    with whole, function_span("look", '{"n": 1}') as span:
        span.span_data.output = {"found": True}
    exported = span.export()

    assert whole.export() == whole.to_json() == {
        "object": "trace", "id": whole.trace_id, "workflow_name": "W",
        "group_id": "chat_7", "metadata": {"customer": 3},
    }  # fmt: skip
    assert whole.to_json(include_tracing_api_key=True) == {**whole.to_json(), "tracing_api_key": "k"}  # pyright: ignore[reportGeneralTypeIssues]
    assert (span.tracing_api_key, span.trace_metadata) == ("k", {"customer": 3})
    assert exported == {
        "object": "trace.span", "id": span.span_id, "trace_id": whole.trace_id, "parent_id": None,
        "started_at": span.started_at, "ended_at": span.ended_at, "error": None,
        "span_data": {
            "type": "function", "name": "look", "input": '{"n": 1}',
            "output": "{'found': True}", "mcp_data": None,
        },
    }  # fmt: skip


def test_ids_and_times_are_written_as_in_the_sdk() -> None:
    assert re.fullmatch(r"trace_[0-9a-f]{32}", gen_trace_id())
    assert re.fullmatch(r"span_[0-9a-f]{24}", gen_span_id())
    assert re.fullmatch(r"group_[0-9a-f]{24}", gen_group_id())
    provider = get_trace_provider()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", provider.time_iso())
    assert provider.gen_trace_id()[:6] + provider.gen_span_id()[:5] + provider.gen_group_id()[:6] == (
        "trace_span_group_"
    )


def test_a_span_may_be_about_anything(recorder: Recorder) -> None:
    class Poem(SpanData):
        type = "poem"

        def export(self) -> dict[str, Any]:
            return {"type": self.type, "lines": 2}

    with trace("W"), get_trace_provider().create_span(Poem()) as span:
        pass

    assert recorder.spans == [span]
    assert (span.export() or {})["span_data"] == {"type": "poem", "lines": 2}


def test_another_provider_may_take_the_place_of_the_default_one(caplog: pytest.LogCaptureFixture) -> None:
    before, mine = get_trace_provider(), DefaultTraceProvider()
    recorder = Recorder()
    mine.register_processor(recorder)

    set_trace_provider(mine)
    try:
        with trace("W"), custom_span("x"):
            pass
    finally:
        set_trace_provider(before)

    assert recorder.calls == ["start trace W", "start custom x", "end custom x", "end trace W"]
    assert caplog.get_records("call") == []
