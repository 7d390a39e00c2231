"""The processor that hands traces and spans to an exporter, on a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from millstream.clock import SYSTEM_CLOCK
from millstream.errors import UserError
from millstream.tracing.processors import TracingExporter, TracingProcessor

if TYPE_CHECKING:
    from millstream.tracing.spans import Span
    from millstream.tracing.traces import Trace

logger = logging.getLogger("millstream")

LAST_WAIT = 10.0
"""Seconds for which a program that exits waits for its exporter: one that hangs does not keep it for ever."""

_LOOK = 1.0
"""Seconds after which somebody who waits looks whether there is still a thread."""


class BatchTraceProcessor(TracingProcessor):
    """Hands traces that begin and spans that end to `exporter`, many at a time and off the event loop.

    A run only puts them into a queue. Where that is full, they are lost, which is logged once. What
    is queued when the program exits is exported before it does, as far as the exporter gets in ten seconds.

    Args:
        exporter: where they go.
        max_queue_size: how many wait at most.
        max_batch_size: how many the exporter is given at most in one call.
        schedule_delay: seconds for which a batch that is not full waits for more.
        export_trigger_ratio: accepted for compatibility: a batch is exported when it is full.
    """

    def __init__(
        self,
        exporter: TracingExporter,
        max_queue_size: int = 8192,
        max_batch_size: int = 128,
        schedule_delay: float = 5.0,
        export_trigger_ratio: float = 0.7,
    ) -> None:
        if isinstance(exporter, type) or not callable(getattr(exporter, "export", None)):
            raise UserError("BatchTraceProcessor takes a TracingExporter: JsonLinesExporter(...), say.")
        if max_queue_size < 1 or max_batch_size < 1 or schedule_delay < 0:
            raise UserError(
                "BatchTraceProcessor: max_queue_size and max_batch_size are at least 1, schedule_delay at least 0."
            )
        self._exporter = exporter
        self._max_queue_size = max_queue_size
        self._max_batch_size = max_batch_size
        self._delay = schedule_delay
        # Puts without a lock of ours: nobody who puts something in, least of all an event loop, ever waits.
        self._queue: SimpleQueue[Trace | Span[Any] | _Mark] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._starting = threading.Lock()
        self._has_lost = False
        self._has_failed = False

    @override
    def on_trace_start(self, trace: Trace) -> None:
        self._put(trace)

    @override
    def on_trace_end(self, trace: Trace) -> None:
        pass

    @override
    def on_span_start(self, span: Span[Any]) -> None:
        pass

    @override
    def on_span_end(self, span: Span[Any]) -> None:
        self._put(span)

    @override
    def force_flush(self) -> None:
        """Return when everything that was put in so far is exported. Blocks."""
        self._reach(_Mark(is_last=False), None)

    @override
    def shutdown(self, timeout: float | None = LAST_WAIT) -> None:
        """Export what is left, and stop. Blocks, for at most `timeout` seconds; None waits as long as it takes.

        What was not exported by then is lost where the program exits, which is logged. What is put
        in afterwards starts it again.
        """
        if not self._reach(_Mark(is_last=True), timeout):
            logger.warning(
                "traces may be lost: %s was not done within %g s of the end",
                type(self._exporter).__name__, timeout,
            )  # fmt: skip

    def _put(self, item: Trace | Span[Any]) -> None:
        # Not before there is something to do: a server that forks its workers has no thread then.
        self._work_on()
        if self._queue.qsize() < self._max_queue_size:
            self._queue.put(item)
        elif not self._has_lost:
            self._has_lost = True
            logger.warning(
                "traces are lost: %s does not keep up, and %d items wait for it. Further losses are not logged.",
                type(self._exporter).__name__,
                self._max_queue_size,
            )

    def _reach(self, mark: _Mark, timeout: float | None) -> bool:
        """Put in `mark`, and wait until it comes out; whether it did."""
        if not self._is_at_work() and self._queue.empty():
            return True
        self._queue.put(mark)
        self._work_on()
        # Another's last mark may stand before this one: then somebody has to begin again.
        while not mark.reached.wait(_LOOK if timeout is None else timeout):
            if timeout is not None:
                return False
            self._work_on()
        return True

    def _is_at_work(self) -> bool:
        return self._thread is not None and self._process == os.getpid() and self._thread.is_alive()

    def _work_on(self) -> None:
        """Have a thread that exports."""
        if self._is_at_work():
            return
        with self._starting:
            if not self._is_at_work():
                if self._process != os.getpid():  # a fork: what its parent has put in is the parent's
                    self._process, self._queue = os.getpid(), SimpleQueue()
                self._thread = threading.Thread(target=self._work, name="millstream traces", daemon=True)
                self._thread.start()

    # --- on the thread -----------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            batch, mark = self._next_batch()
            if batch:
                self._export(batch)
            if mark is not None:
                mark.reached.set()
                if mark.is_last and self._queue.empty():
                    return

    def _next_batch(self) -> tuple[list[Trace | Span[Any]], _Mark | None]:
        """What is to be exported next, and the mark behind it, if that is why."""
        batch: list[Trace | Span[Any]] = []
        due = None
        while len(batch) < self._max_batch_size:
            try:
                item = self._queue.get(
                    timeout=None if due is None else max(0, due - SYSTEM_CLOCK.monotonic())
                )
            except Empty:
                break
            if isinstance(item, _Mark):
                return batch, item
            if not batch:
                due = SYSTEM_CLOCK.monotonic() + self._delay
            batch.append(item)
        return batch, None

    def _export(self, batch: list[Trace | Span[Any]]) -> None:
        try:
            self._exporter.export(batch)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.exception(
                    "%s failed, and %d items of traces are lost. What else it raises is not logged.",
                    type(self._exporter).__name__,
                    len(batch),
                )


class _Mark:
    """Stands in the queue behind what somebody waits for."""

    def __init__(self, *, is_last: bool) -> None:
        self.is_last = is_last
        self.reached = threading.Event()
