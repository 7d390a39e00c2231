"""The processor that exports on a thread of its own."""

import asyncio
import logging
import os
import threading
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, Runner, UserError
from millstream.testing import ScriptedModel
from millstream.tracing import (
    BatchTraceProcessor,
    Span,
    Trace,
    TracingExporter,
    custom_span,
    flush_traces,
    set_trace_processors,
    trace,
)
from tests.support.traces import Recorder

pytestmark = pytest.mark.usefixtures("recorder")  # which takes away what the test has registered


class Kept(TracingExporter):
    """Keeps what it is given, batch by batch; waits before each for `may_go_on`, where there is one."""

    def __init__(self, may_go_on: threading.Event | None = None) -> None:
        self.batches: list[list[Any]] = []
        self.threads: set[str] = set()
        self.entered = threading.Event()
        self._may_go_on = may_go_on

    def export(self, items: list[Trace | Span[Any]]) -> None:
        self.entered.set()
        if self._may_go_on is not None:
            assert self._may_go_on.wait(30)
        self.threads.add(threading.current_thread().name)
        self.batches.append([_name(item) for item in items])


def _name(item: Trace | Span[Any]) -> str:
    data: Any = item if isinstance(item, Trace) else item.span_data
    return getattr(data, "name", "") or data.type


def batching(exporter: TracingExporter, **options: Any) -> BatchTraceProcessor:
    """A processor that waits for a full batch, or for a flush."""
    processor = BatchTraceProcessor(exporter, schedule_delay=3600, **options)
    set_trace_processors([processor])
    return processor


def test_traces_that_begin_and_spans_that_end_are_exported_in_batches_off_the_thread() -> None:
    kept = Kept()
    processor = batching(kept, max_batch_size=2)

    with trace("W"), custom_span("a"), custom_span("b"):
        pass
    processor.force_flush()

    assert kept.batches == [["W", "b"], ["a"]]
    assert kept.threads == {"millstream traces"}
    processor.shutdown()


async def test_a_run_does_not_wait_for_an_exporter_that_hangs() -> None:
    may_go_on = threading.Event()
    kept = Kept(may_go_on)
    processor = batching(kept, max_batch_size=1)

    for _ in range(3):
        await Runner.run(Agent(name="A", model=ScriptedModel(["Hi."])), "Hello")

    assert kept.batches == []
    may_go_on.set()
    await asyncio.to_thread(flush_traces)
    assert len(kept.batches) == 3 * len(["trace", "turn", "agent", "task"])
    await asyncio.to_thread(processor.shutdown)


def test_what_finds_the_queue_full_is_lost_which_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    may_go_on = threading.Event()
    kept = Kept(may_go_on)
    processor = batching(kept, max_batch_size=1, max_queue_size=2)

    with trace("W"):
        assert kept.entered.wait(30)
        for name in "abcd":
            with custom_span(name):
                pass
    may_go_on.set()
    processor.force_flush()

    assert kept.batches == [["W"], ["a"], ["b"]]
    assert [record.getMessage() for record in caplog.records] == [
        "traces are lost: Kept does not keep up, and 2 items wait for it. Further losses are not logged."
    ]
    processor.shutdown()


def test_an_exporter_that_raises_is_logged_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Kept):
        def export(self, items: list[Trace | Span[Any]]) -> None:
            super().export(items)
            raise OSError("the disk is full")

    failing = Failing()
    processor = batching(failing, max_batch_size=1)

    with trace("W"), custom_span("a"):
        pass
    processor.force_flush()

    assert failing.batches == [["W"], ["a"]]
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "Failing failed, and 1 items of traces are lost" in record.getMessage()
    processor.shutdown()


def test_shutting_down_exports_what_is_left_and_a_later_span_starts_it_again() -> None:
    kept = Kept()
    processor = batching(kept)
    with trace("W"):
        with custom_span("a"):
            pass
        processor.shutdown()
        processor.shutdown()

        with custom_span("b"):
            pass
        processor.shutdown()

    assert kept.batches == [["W", "a"], ["b"]]


def test_shutting_down_waits_no_longer_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    may_go_on = threading.Event()
    kept = Kept(may_go_on)
    processor = batching(kept, max_batch_size=1)
    with trace("W"):
        pass

    processor.shutdown(timeout=0)

    assert kept.batches == []
    assert caplog.messages == ["traces may be lost: Kept was not done within 0 s of the end"]
    may_go_on.set()
    processor.shutdown(timeout=None)
    assert kept.batches == [["W"]]
    assert len(caplog.messages) == 1


def test_one_who_flushes_while_another_shuts_down_is_not_left_waiting() -> None:
    may_go_on = threading.Event()
    kept = Kept(may_go_on)
    processor = batching(kept, max_batch_size=1)
    with trace("W"):
        pass
    assert kept.entered.wait(30)
    processor.shutdown(timeout=0)
    with trace("V"):
        pass

    flushing = threading.Thread(target=processor.force_flush)
    flushing.start()
    may_go_on.set()
    flushing.join(30)

    assert not flushing.is_alive()
    assert kept.batches == [["W"], ["V"]]
    processor.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_exports_its_own_and_not_what_its_parent_has_queued() -> None:
    processor = batching(Kept())
    with trace("of the parent"):
        pass

    child = os.fork()
    if not child:
        kept = Kept()
        processor._exporter = kept
        with trace("of the child"):
            pass
        processor.force_flush()
        os._exit(0 if kept.batches == [["of the child"]] else 1)

    assert os.waitpid(child, 0)[1] == 0
    processor.shutdown()


def test_where_nothing_was_traced_there_is_no_thread() -> None:
    before = threading.active_count()
    processor = BatchTraceProcessor(Kept())

    processor.force_flush()
    processor.shutdown()

    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"exporter": Kept}, "takes a TracingExporter"),
        ({"exporter": Recorder()}, "takes a TracingExporter"),
        ({"exporter": Kept(), "max_batch_size": 0}, "max_batch_size are at least 1"),
        ({"exporter": Kept(), "schedule_delay": -1}, "schedule_delay at least 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        BatchTraceProcessor(**arguments)
